"""What it costs to store, as a multiple of compressing the same bytes once in the same process: a guard against a slow collector.

`python -m tests.benchmarks collector` has the figures; these ratios are about a third of the bars. Both sides are measured in turn,
in CPU time of this process, and the quickest of several rounds counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from struct import Struct

import numpy as np
import zstandard

from headrace_proto import events
from headrace_proto.events import Kind
from headrace_proto.store.chain import Batch
from tests.proto.store_core.script import NOW_NS, Source, chain_of, memory_store

ROUNDS = 7
STEPS = 10_000
CHANNELS = 10


def quickest(round_of: Callable[[], tuple[float, float]]) -> tuple[float, float]:
    """Seconds of the two sides."""
    rounds = [round_of() for _ in range(ROUNDS)]
    return min(first for first, _ in rounds), min(second for _, second in rounds)


def compared(define: Source, hot: list[bytes]) -> tuple[float, float]:
    """Seconds to store some points of the channels that are defined, and to compress their bytes."""
    defined = define.batch()
    raw = defined.raw + b"".join(hot)

    def once() -> tuple[float, float]:
        chain = chain_of(memory_store())
        began = time.process_time()
        chain.commit([Batch(defined.source, 0, len(raw), raw)], now_ns=NOW_NS)
        stored = time.process_time()
        zstandard.compress(raw, 3)
        return stored - began, time.process_time() - stored

    return quickest(once)


def noise() -> list[float]:
    """Values that do not compress."""
    values: list[float] = np.random.default_rng(1).normal(size=STEPS * CHANNELS).tolist()
    return values


def test_storing_points_costs_little_more_than_compressing_them() -> None:
    """Decoded, sorted by channel, packed and committed."""
    source = Source().create()
    channels = [source.channel(f"channel {number}") for number in range(CHANNELS)]
    hot = [
        events.pack_point(channels[nth % CHANNELS], nth // CHANNELS, NOW_NS + nth, value)
        for nth, value in enumerate(noise())
    ]
    stored, packed = compared(source, hot)
    assert stored < 8 * packed, f"stored in {stored * 1e3:.1f} ms, compressed in {packed * 1e3:.1f} ms"


def test_storing_rows_costs_little_more_than_compressing_them() -> None:
    """Rows stay grids: as columns they are in order."""
    source, values = Source().create(), noise()
    for channel in range(CHANNELS):
        source.channel(f"channel {channel}")
    source.event(Kind.SCHEMA, 0, list(range(CHANNELS)))
    head, body = events.ROW_HEAD, Struct(f">{CHANNELS}d")
    hot = [
        head.pack(events.row_prefix(0), step, events.TAG_U64, NOW_NS + step, events.TAG_BIN16, body.size)
        + body.pack(*values[step * CHANNELS : (step + 1) * CHANNELS])
        for step in range(STEPS)
    ]
    stored, packed = compared(source, hot)
    assert stored < 6 * packed, f"stored in {stored * 1e3:.1f} ms, compressed in {packed * 1e3:.1f} ms"
