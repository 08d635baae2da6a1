"""What lies in the store: its size, and how long a reader waits for a channel, before and after compaction."""

from __future__ import annotations

import io
import tempfile
import time
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq

from headrace.reading import StoredExperiment
from headrace_proto import events
from headrace_proto.events import ChannelType, Kind, Role
from headrace_proto.ids import random_id
from headrace_proto.store.backend import open_store
from headrace_proto.store.chain import Batch, Chain
from headrace_proto.store.columns import encoded_points
from tests.benchmarks.rows import Row, median_ms

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace_proto.store.backend import Store

PROJECT = "bench/store"
CHANNELS = [f"channel {n}" for n in range(8)]
STEPS = 1_000_000
"""Of each channel."""
COMMIT_STEPS = 50_000
PERIOD_NS, JITTER_NS = 50_000_000, 2_000_000  # 20 Hz
POINTS = STEPS * len(CHANNELS)


def run() -> list[Row]:
    """Every figure of the store."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        store = open_store(folder)
        return list(_series(store))


def _series(store: Store) -> Iterator[Row]:
    chain = _written(store)
    assert chain.head is not None
    experiment = StoredExperiment(store, PROJECT, chain.place.experiment)
    yield Row(
        f"1 M points of one of 8 channels as a DataFrame, {len(chain.head.parts.numeric)} parts",
        median_ms(lambda: experiment.get_channel(CHANNELS[3])),
        "ms",
        at_most=60,
    )
    chain.compact(now_ns=time.time_ns(), final=True)
    yield Row(
        f"  as it rests when the experiment has ended, {len(chain.head.parts.numeric)} parts",
        median_ms(lambda: experiment.get_channel(CHANNELS[3])),
        "ms",
        at_most=60,
    )
    yield Row(
        "  three such channels side by side",
        median_ms(lambda: experiment.get_numeric_channels_values(*CHANNELS[:3])),
        "ms",
    )
    parts = chain.head.parts.numeric
    yield Row(
        "bytes a point, noisy float64 at 20 Hz, compacted", sum(part.bytes for part in parts) / POINTS, "B", at_most=9
    )
    plain = io.BytesIO()
    pq.write_table(chain.read("numeric"), plain)
    yield Row("  the same points with PyArrow's defaults", len(plain.getvalue()) / POINTS, "B")


def _written(store: Store) -> Chain:
    """An experiment of 8 M points, committed as a collector commits them."""
    chain, noise = Chain(store, PROJECT, random_id()), np.random.default_rng(1)
    start_ns = time.time_ns()
    first = b"".join(
        [
            events.pack(Kind.OPEN, start_ns, {"role": Role.OWNER}),
            events.pack(Kind.CREATE, start_ns, {"name": "bench", "created_ns": start_ns}),
            *(events.pack(Kind.CHANNEL, n, name, int(ChannelType.NUMERIC)) for n, name in enumerate(CHANNELS)),
        ]
    )
    source, position = random_id(), 0
    for step in range(0, STEPS, COMMIT_STEPS):
        raw = (first if step == 0 else b"") + _raw_points(step, start_ns, noise)
        chain.commit([Batch(source, position, position + len(raw), raw)], now_ns=time.time_ns())
        position += len(raw)
        chain.compact(now_ns=time.time_ns())
    return chain


def _raw_points(first_step: int, start_ns: int, noise: np.random.Generator) -> bytes:
    """COMMIT_STEPS steps of all channels, as a loop logs them."""
    count = COMMIT_STEPS * len(CHANNELS)
    numbers = np.arange(count)
    steps = first_step + numbers // len(CHANNELS)
    times_ns = start_ns + steps * PERIOD_NS + noise.integers(0, JITTER_NS, count)
    values = noise.normal(size=count) / (1 + steps * 1e-6)
    return encoded_points(numbers % len(CHANNELS), steps.astype(np.float64), times_ns, values)
