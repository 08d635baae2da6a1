"""Experiments of many points: rows as `log_metrics` writes them, committed and compacted as a collector does it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import numpy as np

from headrace_proto import events
from headrace_proto.events import ChannelType, Kind, Role
from headrace_proto.ids import random_id
from headrace_proto.store.chain import Batch, Chain

if TYPE_CHECKING:
    from headrace_proto.store.backend import Store

PERIOD_NS: Final = 50_000_000
JITTER_NS: Final = 2_000_000
_ROW: Final = [("step", ">f8"), ("tag_u64", "S1"), ("time", ">u8"), ("tag_bin", "S1"), ("size", ">u2")]
"""A ROW of `headrace_proto.events` between its prefix and its values."""


def channel_names(count: int) -> list[str]:
    """What the channels are called."""
    return [f"channel {n:02d}" for n in range(count)]


class Series:
    """One experiment that goes on and on: noisy float64 values of `channels` channels at 20 Hz."""

    def __init__(self, store: Store, project: str, channels: int) -> None:
        self.names: Final = channel_names(channels)
        self.chain: Final = Chain(store, project, random_id())
        self.steps = 0
        self._source, self._position = random_id(), 0
        self._noise = np.random.default_rng(1)
        self._start_ns = time.time_ns()
        numbers = range(channels)
        self._head = b"".join(
            [
                events.pack(Kind.OPEN, self._start_ns, {"role": Role.OWNER}),
                events.pack(Kind.CREATE, self._start_ns, {"name": "bench", "created_ns": self._start_ns}),
                *(events.pack(Kind.CHANNEL, n, name, int(ChannelType.NUMERIC)) for n, name in enumerate(self.names)),
                events.pack(Kind.SCHEMA, 0, list(numbers)),
            ]
        )

    def commit(self, steps: int) -> None:
        """One commit of so many steps of every channel, and the compaction that it makes due."""
        raw = self._head + self._rows(steps)
        self._head = b""
        batch = Batch(self._source, self._position, self._position + len(raw), raw)
        self._position += len(raw)
        self.chain.commit([batch], now_ns=time.time_ns())
        self.chain.compact(now_ns=time.time_ns())

    def _rows(self, count: int) -> bytes:
        width = len(self.names)
        rows = np.empty(count, [("prefix", "S8"), *_ROW, ("values", ">f8", (width,))])
        rows["prefix"], rows["tag_u64"], rows["tag_bin"] = events.row_prefix(0), events.TAG_U64, events.TAG_BIN16
        steps = self.steps + np.arange(count)
        self.steps += count
        rows["step"], rows["size"] = steps, 8 * width
        rows["time"] = self._start_ns + steps * PERIOD_NS + self._noise.integers(0, JITTER_NS, count)
        rows["values"] = self._noise.normal(size=(count, width)) / (1 + steps[:, None] * 1e-6)
        return rows.tobytes()
