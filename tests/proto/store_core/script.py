"""Sources that write what a test tells them, as bytes of a journal, without a journal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace_proto import events
from headrace_proto.events import ChannelType, Kind
from headrace_proto.frame import FrameKind
from headrace_proto.ids import random_id
from headrace_proto.store.backend import open_store
from headrace_proto.store.chain import Batch, Chain
from headrace_proto.store.times import us_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from headrace_proto.store.backend import Store
    from headrace_proto.store.commits import PartKind

NOW_NS = 1_763_692_800_000_000_000
PROJECT = "vision/digits"
EXPERIMENT = "e" * 32
SECOND_NS = 1_000_000_000


class Source:
    """One source. `batch()` gives what was written since the last."""

    def __init__(self, name: str = "a", role: str = "owner", *, time_ns: int = NOW_NS, **facts: Any) -> None:
        self.id = name * 32 if len(name) == 1 else name
        self.time_ns = time_ns
        self._channels: dict[str, int] = {}
        self._schemas: dict[tuple[str, ...], int] = {}
        self._raw = b""
        self.first = 0
        self.ends: list[int] = []
        if role:
            self.event(Kind.OPEN, self.time_ns, {"role": role, "host": "node", "user": "me", "pid": 1, **facts})

    @property
    def position(self) -> int:
        return self.first + len(self._raw)

    def write(self, raw: bytes) -> Source:
        self._raw += raw
        self.ends.append(self.position)
        return self

    def event(self, kind: Kind, *fields: Any) -> Source:
        return self.write(events.pack(kind, *fields))

    def create(self, name: str = "mlp", **facts: Any) -> Source:
        return self.event(Kind.CREATE, self.time_ns, {"name": name, "created_ns": self.time_ns, **facts})

    def channel(self, name: str, kind: ChannelType = ChannelType.NUMERIC) -> int:
        if name not in self._channels:
            self._channels[name] = len(self._channels)
            self.event(Kind.CHANNEL, self._channels[name], name, int(kind))
        return self._channels[name]

    def point(self, name: str, step: float | None, value: float, time_ns: int | None = None) -> Source:
        return self.write(events.pack_point(self.channel(name), step, self._now(time_ns), value))

    def row(self, values: Mapping[str, float], step: float | None, time_ns: int | None = None) -> Source:
        names = tuple(values)
        channels, time_ns = [self.channel(name) for name in names], self._now(time_ns)
        if names not in self._schemas:
            self._schemas[names] = len(self._schemas)
            self.event(Kind.SCHEMA, self._schemas[names], channels)
        return self.raw_row(self._schemas[names], list(values.values()), step, time_ns)

    def raw_row(self, schema: int, values: list[float], step: float | None, time_ns: int) -> Source:
        from struct import pack

        packed = pack(f">{len(values)}d", *values)
        tag, size = events.TAG_BIN16, len(packed)
        if step is None:
            head = events.AUTO_ROW_HEAD.pack(events.auto_row_prefix(schema), events.TAG_U64, time_ns, tag, size)
        else:
            head = events.ROW_HEAD.pack(events.row_prefix(schema), step, events.TAG_U64, time_ns, tag, size)
        return self.write(head + packed)

    def text(self, name: str, step: float | None, payload: Any, time_ns: int | None = None) -> Source:
        return self.event(Kind.TEXT, self.channel(name, ChannelType.TEXT), step, self._now(time_ns), payload)

    def image(self, channel: str, step: float | None, payload: Any, **facts: Any) -> Source:
        number = self.channel(channel, ChannelType.IMAGE)
        return self.event(Kind.IMAGE, number, step, self.time_ns, payload, {"suffix": "png", **facts})

    def artifact(self, path: str, payload: Any, time_ns: int | None = None, **facts: Any) -> Source:
        return self.event(Kind.ARTIFACT, self._now(time_ns), path, payload, {"mode": 0o644, **facts})

    def check(self) -> Source:
        return self.write(events.pack_check(1, 0.5, self.position))

    def close(self, outcome: str = "succeeded", detail: str | None = None, time_ns: int | None = None) -> Source:
        return self.event(Kind.CLOSED, self._now(time_ns), outcome, detail)

    def _now(self, time_ns: int | None) -> int:
        if time_ns is None:
            self.time_ns += 1_000_000
            return self.time_ns
        return time_ns

    # -- Batches --------------------------------------------------------------------------------------------------------

    def batch(self) -> Batch:
        raw, first = self._raw, self.first
        self._raw, self.first = b"", self.position
        return Batch(self.id, first, first + len(raw), raw)

    def lost(self, end: int, reason: str = "damaged") -> Batch:
        """Skip to `end`, as a journal of which nothing before it can be read."""
        assert not self._raw
        first, self.first = self.first, end
        return Batch(self.id, first, end, b"", FrameKind.LOST, reason)

    def dead(self, reason: str = "gone") -> Batch:
        return Batch(self.id, self.position, self.position, b"", FrameKind.DEAD, reason)


def spooled(number: int = 0, size: int = 100_000, digest: str = "0" * 64) -> dict[str, Any]:
    return {"file": f"{number:06d}-00c0ffee", "size": size, "sha256": digest}


def memory_store() -> Store:
    """An empty store without a disk, for the many examples of a property."""
    return open_store(f"memory://{random_id()}/store")


def chain_of(store: Store, experiment: str = EXPERIMENT) -> Chain:
    return Chain(store, PROJECT, experiment).load()


def frame_of(chain: Chain, kind: PartKind = "numeric") -> pd.DataFrame:
    return chain.read(kind).to_pandas().astype({"channel": str})


def points_of(chain: Chain) -> list[tuple[str, float, int, float]]:
    """Every stored numeric point: channel, step, time in microseconds, value."""
    rows: list[dict[str, Any]] = chain.read("numeric").to_pylist()
    return [(row["channel"], row["step"], us_of(row["time"]), row["value"]) for row in rows]
