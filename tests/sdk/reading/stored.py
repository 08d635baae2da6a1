"""Stored experiments for tests: real events of any source, committed by a real chain, listed in a real catalog."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from headrace_proto import events
from headrace_proto.events import ChannelType, Kind, Role
from headrace_proto.ids import derived_id, random_id
from headrace_proto.store.chain import Batch, Chain
from tests.stores import list_newest

if TYPE_CHECKING:
    from headrace_proto.store.backend import Store
    from headrace_proto.store.chain import FileDone

PROJECT = "vision/digits"
START_NS = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z
SECOND_NS = 1_000_000_000
_ticks = count()


class Source:
    """A process that writes to an experiment: events go into its buffer, `batch` takes them out."""

    def __init__(self, role: str = Role.OWNER, **facts: Any) -> None:
        self.id = random_id()
        self._position = 0
        self._raw = bytearray()
        self._channels: dict[tuple[str, ChannelType], int] = {}
        self.event(Kind.OPEN, START_NS, {"role": role, "rank": None, "label": "", "attempt": 0, **facts})

    def event(self, kind: Kind, *fields: Any) -> None:
        self._raw += events.pack(kind, *fields)

    def _channel(self, name: str, kind: ChannelType) -> int:
        if (name, kind) not in self._channels:
            number = self._channels[name, kind] = len(self._channels)
            self.event(Kind.CHANNEL, number, name, int(kind))
        return self._channels[name, kind]

    def point(self, name: str, step: float, value: float, time_ns: int | None = None) -> None:
        number = self._channel(name, ChannelType.NUMERIC)
        time = START_NS + next(_ticks) * SECOND_NS if time_ns is None else time_ns
        self._raw += events.pack_point(number, step, time, value)

    def text(self, name: str, step: float, value: Any, time_ns: int = START_NS) -> None:
        self.event(Kind.TEXT, self._channel(name, ChannelType.TEXT), step, time_ns, value)

    def image(self, name: str, step: float, data: Any, /, **facts: Any) -> None:
        number = self._channel(name, ChannelType.IMAGE)
        self.event(
            Kind.IMAGE, number, step, START_NS, data, {"name": None, "description": None, "suffix": "png", **facts}
        )

    def artifact(self, path: str, payload: Any, **facts: Any) -> None:
        self.event(
            Kind.ARTIFACT, START_NS, path, payload, {"mode": 0o644, "mtime_ns": START_NS, "copied": True, **facts}
        )

    def batch(self) -> Batch:
        first, raw = self._position, bytes(self._raw)
        self._position += len(raw)
        self._raw.clear()
        return Batch(self.id, first, self._position, raw)


class Stored:
    """An experiment in a store, with one owner."""

    def __init__(self, store: Store, project: str = PROJECT, *, created_s: float = 0, **definition: Any) -> None:
        key = definition.get("key")
        self.store, self.project, self.id = store, project, derived_id(project, key) if key else random_id()
        self.chain = Chain(store, project, self.id)
        self.owner = Source(user=definition.get("author", "josh"))
        created_ns = START_NS + int(created_s * SECOND_NS)
        facts = {"name": "run", "params": {}, "properties": {}, "tags": [], "created_ns": created_ns, **definition}
        self.owner.event(Kind.CREATE, created_ns, facts)
        self.commit()

    def commit(self, *others: Source, files_done: tuple[FileDone, ...] = ()) -> None:
        """Store what the sources have written, and list it."""
        batches = [batch for source in (self.owner, *others) if (batch := source.batch()).raw]
        self.chain.commit(batches, files_done=files_done, now_ns=START_NS + next(_ticks) * SECOND_NS)
        list_newest(self.chain)

    def close(self, outcome: str = "succeeded", detail: str | None = None, at_s: float = 60) -> None:
        self.owner.event(Kind.CLOSED, START_NS + int(at_s * SECOND_NS), outcome, detail)
        self.commit()
