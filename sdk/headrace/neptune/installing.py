"""`import neptune` itself, for scripts and libraries that cannot be changed."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from importlib.util import find_spec
from typing import Final

from headrace_proto.errors import HeadraceError

OLD_NAME: Final = "neptune"
OURS: Final = "headrace.neptune"
MODULES: Final = (
    "api_exceptions",
    "backend",
    "exceptions",
    "experiments",
    "git_info",
    "notebook",
    "projects",
    "sessions",
    "utils",
)
ALIAS: Final = os.path.join(os.path.dirname(__file__), "alias")
"""A folder with a package `neptune` that is us, for `sys.path`."""
_logger = logging.getLogger("neptune.installing")


class NeptuneIsImported(HeadraceError, ImportError):
    """The real `neptune` is in this process already."""


def install() -> None:
    """From now on `import neptune`, and `from neptune.exceptions import ...`, mean `headrace.neptune` in this process.

    A package of that name that is installed but not imported is passed over with a warning that names it.

    Raises `NeptuneIsImported` when it is imported already: some of the program's code would talk to it, and some to us.
    """
    package = importlib.import_module(OURS)
    there = sys.modules.get(OLD_NAME)
    if there is package:
        return
    if there is not None:
        raise NeptuneIsImported(
            f"neptune is imported already, from {getattr(there, '__file__', None) or there!r}: call "
            f"{OURS}.install() before that, or say `import {OURS} as neptune` instead"
        )
    spec = find_spec(OLD_NAME)
    if spec is not None and not (spec.origin or "").startswith(ALIAS + os.sep):
        _logger.warning("`import neptune` means %s in this process, not the package at %s", OURS, spec.origin)
    sys.modules[OLD_NAME] = package
    for name in MODULES:
        sys.modules[f"{OLD_NAME}.{name}"] = importlib.import_module(f"{OURS}.{name}")
