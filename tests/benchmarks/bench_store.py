"""What lies in the store: its size, and how long a reader waits for a channel, before and after compaction."""

from __future__ import annotations

import io
import tempfile
import time
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from headrace.reading import StoredExperiment
from headrace_proto.store.backend import open_store
from tests.benchmarks.noisy import CHANNELS, written
from tests.benchmarks.rows import Row, median_ms

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace_proto.store.backend import Store

PROJECT = "bench/store"
STEPS = 1_000_000
"""Of each channel."""
COMMIT_STEPS = 50_000
POINTS = STEPS * len(CHANNELS)


def run() -> list[Row]:
    """Every figure of the store."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        store = open_store(folder)
        return list(_series(store))


def _series(store: Store) -> Iterator[Row]:
    chain = written(store, PROJECT, STEPS, COMMIT_STEPS)
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
