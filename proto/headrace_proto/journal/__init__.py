"""The journal: a source's append-only segments on the node's disk. `layout` says what is true of it at every instant."""

from __future__ import annotations

from headrace_proto.journal.layout import Header, SourceFacts
from headrace_proto.journal.reader import PULSE_AT, PULSE_BYTES, JournalReader
from headrace_proto.journal.verify import Damage
from headrace_proto.journal.writer import JournalWriter

__all__ = ["PULSE_AT", "PULSE_BYTES", "Damage", "Header", "JournalReader", "JournalWriter", "SourceFacts"]
