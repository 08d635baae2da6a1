"""`import neptune` in processes that are spawned under `python -m headrace.neptune`: they have its `sys.path`, not its modules."""

from __future__ import annotations

import sys

from headrace.neptune.installing import OLD_NAME, install

if __name__ == OLD_NAME:
    del sys.modules[OLD_NAME]  # the import that runs this goes on with what stands there in the end
    install()
