"""The journal: a source's append-only segments on the node's disk. `layout` says what is true of it at every instant."""

from __future__ import annotations

from headrace_proto.journal.layout import Header, SourceFacts
from headrace_proto.journal.writer import JournalWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from headrace_proto.journal.reader import PULSE_AT, PULSE_BYTES, JournalReader
    from headrace_proto.journal.verify import Damage

__all__ = ["PULSE_AT", "PULSE_BYTES", "Damage", "Header", "JournalReader", "JournalWriter", "SourceFacts"]


def __getattr__(name: str) -> Any:
    """What reads journals is loaded when it is used: a trainer only writes them."""
    if name in __all__:
        from headrace_proto.journal import reader

        return getattr(reader, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
