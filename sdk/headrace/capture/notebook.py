"""Whether somebody types the program while it runs: then output, exceptions and the end of a cell mean something else."""

from __future__ import annotations

import sys


def in_notebook() -> bool:
    """Whether IPython runs us: it has its own streams, shows exceptions itself, and never calls `sys.excepthook`."""
    shell = sys.modules.get("IPython")
    return shell is not None and shell.get_ipython() is not None


def is_interactive() -> bool:
    """Whether an exception does not end the program: in a notebook, at a prompt, under `python -i`."""
    return in_notebook() or hasattr(sys, "ps1") or bool(sys.flags.interactive)
