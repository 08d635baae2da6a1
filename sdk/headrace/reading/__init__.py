"""Reading: projects and experiments as they lie in a store, without a server. Needs the `read` extra.

`StoredProject` lists from the catalog and opens no experiment; `StoredExperiment` reads one experiment's newest commit and the
parts that it names. Both are what `headrace.init(...)` and `get_experiments()` hand out, and what the command shows.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from headrace_proto.errors import MissingExtra

if any(find_spec(package) is None for package in ("fsspec", "pandas", "pyarrow", "pydantic")):
    raise MissingExtra.named("reading experiments", "read")

from headrace.reading.project import StoredProject

if TYPE_CHECKING:
    from headrace.reading.experiment import StoredExperiment

__all__ = ["StoredExperiment", "StoredProject"]


def __getattr__(name: str) -> Any:
    """`StoredExperiment` is loaded when it is used: `headrace ls` starts a third sooner without."""
    if name == "StoredExperiment":
        from headrace.reading.experiment import StoredExperiment

        return StoredExperiment
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
