"""Libraries that others import wherever they are installed, and that a process of ours has no use for."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_POOL: Final = "ARROW_DEFAULT_MEMORY_POOL"
_FILE_SYSTEMS: Final = "pyarrow._s3fs", "pyarrow._azurefs", "pyarrow._gcsfs", "pyarrow._hdfs"


class _Absence(MetaPathFinder):
    """Answers who looks for one of some modules that it is not there. (None in `sys.modules` is taken for a module by Arrow.)"""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names

    def find_spec(self, fullname: str, *_: object) -> None:
        if fullname in self._names:
            raise ModuleNotFoundError(f"{fullname} is hidden: nothing here needs it", name=fullname)


@contextmanager
def hidden(*names: str) -> Iterator[None]:
    """Modules that are not imported yet cannot be, for now: an import of them fails as if they were not installed."""
    finder = _Absence(names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def load_arrow() -> None:
    """Load Arrow and Parquet without pandas, which is a quarter of a collector and a third of `headrace ls`, and without
    Arrow's own ways to S3, Azure, Google and Hadoop: stores are reached through fsspec.

    Arrow looks for pandas at its first conversion. It looks again when something is to become a DataFrame: nothing is taken away.

    It allocates as the rest of the process does: two allocators keep more, and what one frees the other asks the kernel for.
    """
    theirs = os.environ.get(_POOL)
    os.environ.setdefault(_POOL, "system")
    try:
        with hidden(*_FILE_SYSTEMS):
            import pyarrow.parquet as _  # noqa: F401
        import pyarrow as pa

        with hidden("pandas"):
            pa.array([])
    finally:
        if theirs is None:
            del os.environ[_POOL]
