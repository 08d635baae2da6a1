"""Importing without what only costs time."""

from __future__ import annotations

import gc
import os
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_WHILE_IMPORTING = {"OPENBLAS_NUM_THREADS": "1", "PYDANTIC_DISABLE_PLUGINS": "__all__"}
"""No command multiplies matrices, or validates by plug-ins: to look for those reads the facts of all that is installed."""


@contextmanager
def in_haste() -> Iterator[None]:
    """Import in here: a quarter of `headrace ls`. Nothing of it is left to the process or its children."""
    given = {name: value for name, value in _WHILE_IMPORTING.items() if name not in os.environ}
    collecting = gc.isenabled()
    os.environ.update(given)
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
        for name in given:
            os.environ.pop(name, None)
