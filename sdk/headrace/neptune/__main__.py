"""`python -m headrace.neptune train.py ...` runs an old script unchanged: its `import neptune` means `headrace.neptune`."""

from __future__ import annotations

import os
import runpy
import sys
from typing import Final

from headrace.neptune.installing import ALIAS, install

USAGE: Final = "usage: python -m headrace.neptune [-m MODULE | SCRIPT] [ARGUMENTS ...]"


def main() -> None:
    """Run what the command line names, as Python itself would."""
    arguments = sys.argv[1:]
    module = arguments[:1] == ["-m"]
    target = arguments[module : module + 1]
    if not target or target[0].startswith("-"):
        sys.exit(USAGE)
    install()
    sys.path.insert(1, ALIAS)
    sys.argv = arguments[module:]
    if module:
        sys.path[0] = os.getcwd()
        runpy.run_module(target[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = os.path.dirname(os.path.realpath(target[0]))
        runpy.run_path(target[0], run_name="__main__")


if __name__ == "__main__":
    main()
