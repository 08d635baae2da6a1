"""What a process knows of an experiment that it logs to: what it was created with, and what this process has changed since."""

from __future__ import annotations

import time

import msgpack

from headrace_proto.errors import HeadraceError
from headrace_proto.events import Kind
from headrace_proto.limits import INLINE_BYTES_MAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, Final

    from headrace_proto.home import Home
    from headrace_proto.journal import JournalReader

_SETTLE_S: Final = 0.002


class Known:
    """Facts of one experiment. Only single operations on dicts change it, which threads and signal handlers cannot tear."""

    def __init__(self, facts: dict[str, Any] | None = None) -> None:
        """`facts` are those of a CREATE event."""
        facts = facts or {}
        self.name: str = facts.get("name") or ""
        self.description: str = facts.get("description") or ""
        self.author: str | None = facts.get("author")
        self.hostname: str | None = facts.get("hostname")
        self.created_ns: int | None = facts.get("created_ns")
        self.fixed: Final[dict[str, Any]] = dict(facts.get("params") or {})
        self.added: Final[dict[str, Any]] = {}
        self.properties: Final[dict[str, str]] = dict(facts.get("properties") or {})
        self.tags: Final[dict[str, None]] = dict.fromkeys(facts.get("tags") or ())
        self.artifacts: Final[dict[str, None]] = {}
        self.others: Final[dict[str, str | None]] = {}  # text channels with their last value; image channels with None
        self.elsewhere: Final[dict[str, float | str | None]] = {}  # last values in the store, whoever logged them

    def learn(self, **groups: Mapping[str, Any]) -> None:
        """Know what the store knows: `groups` are `fixed`, `added`, `properties`, `tags`, `elsewhere`, each as a whole."""
        for name, theirs in groups.items():
            ours: dict[str, Any] = getattr(self, name)
            ours.update(theirs)
            for gone in [key for key in tuple(ours) if key not in theirs]:
                ours.pop(gone, None)


def known_from_journal(home: Home, source: str) -> Known:
    """What the journal of `source`, an experiment's owner on this node, begins with; nothing when it cannot be read."""
    try:
        # in here: without a descriptor left it cannot be imported, either
        from headrace_proto.journal import JournalReader

        reader = JournalReader(home.journal(source))
    except (OSError, HeadraceError):
        return Known()
    try:
        for kind, *fields in _first_events(reader):
            if kind == Kind.CREATE:
                return Known(fields[1])
    except (ValueError, IndexError, TypeError, AttributeError):
        pass  # whatever lies there, attaching goes on without it
    finally:
        reader.close()
    return Known()


def _first_events(reader: JournalReader) -> Iterator[list[Any]]:
    reader.poll(time.monotonic_ns())
    time.sleep(_SETTLE_S)
    reader.poll(time.monotonic_ns())
    data = reader.read(0, 2 * INLINE_BYTES_MAX)
    if isinstance(data, bytes):
        unpacker = msgpack.Unpacker(max_buffer_size=len(data), strict_map_key=False)
        unpacker.feed(data)
        yield from unpacker
