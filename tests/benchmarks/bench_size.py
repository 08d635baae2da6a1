"""How much the store writes: bytes a point as they lie, and how often compaction writes a point again in a long run.

    python -m tests.benchmarks size

The run is 3,600 commits of a second each, of 8 channels at 20 Hz, in a store in memory; its parts are followed by their records.
For longer runs the plan alone is followed, which is all that decides what is merged.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from headrace_proto.ids import random_id
from headrace_proto.store import compaction
from headrace_proto.store.backend import open_store
from headrace_proto.store.chain import Chain
from headrace_proto.store.commits import PartRecord
from tests.benchmarks.noisy import CHANNELS, RATE_HZ, written
from tests.benchmarks.rows import Row

STEPS: Final = 1_000_000
COMMIT_STEPS: Final = 50_000
HOUR: Final = 3_600
LONG: Final = 360_000
"""Commits: two days in a local store, six weeks in a remote one."""
RESTING_BYTES: Final = 9
"""A point's, about."""
PROJECT: Final = "bench/size"


def run() -> list[Row]:
    """Every figure of this page."""
    return [
        Row("bytes a point, noisy float64 at 20 Hz, compacted", _bytes_a_point(np.float64), "B", at_most=9),
        Row("  values that were float32", _bytes_a_point(np.float32), "B", at_most=5.5),
        *_an_hour(),
        Row(
            f"a point is written again, on average, by the plan, {LONG:,} commits and the end",
            _planned(LONG),
            "times",
            at_most=3,
        ),
    ]


def _bytes_a_point(born: type[np.floating]) -> float:
    chain = _chain(STEPS, COMMIT_STEPS, born)
    chain.compact(now_ns=time.time_ns(), final=True)
    return sum(part.bytes for part in _live(chain)) / (STEPS * len(CHANNELS))


def _an_hour() -> Iterator[Row]:
    fresh: dict[str, PartRecord] = {}
    again: dict[str, PartRecord] = {}

    def look(chain: Chain) -> None:
        for part in _live(chain):
            (again if part.level else fresh)[part.path] = part

    chain = _chain(HOUR * RATE_HZ, RATE_HZ, np.float64, look)
    chain.compact(now_ns=time.time_ns(), final=True)
    look(chain)
    points = HOUR * RATE_HZ * len(CHANNELS)
    first, more = (sum(part.bytes for part in parts.values()) for parts in (fresh, again))
    run = f"{HOUR:,} commits of {RATE_HZ * len(CHANNELS)} points, and the end"
    yield Row(f"{run}: bytes written, of those that commits wrote", (first + more) / first, "x", at_most=3)
    rewritten = sum(part.rows for part in again.values()) / points
    yield Row("  a point is written again, on average", rewritten, "times", at_most=3)
    yield Row("  bytes a point as committed", first / points, "B")
    yield Row("  bytes a point in the end", sum(part.bytes for part in _live(chain)) / points, "B")


def _planned(commits: int) -> float:
    """How often each of so many equal commits' points is written again."""
    live: compaction.Run = ()
    rows = 0
    points = RATE_HZ * len(CHANNELS)
    for number in range(commits):
        live = (*live, PartRecord(path=f"{number}", rows=points, bytes=points * RESTING_BYTES))
        run = compaction.plan(live, final=number == commits - 1)
        if run:
            merged = PartRecord(
                path=f"{number}m",
                rows=sum(part.rows for part in run),
                bytes=sum(part.bytes for part in run),
                level=compaction.level(run),
            )
            rows += merged.rows
            live = compaction.replaced(live, run, merged) or live
    return rows / (commits * points)


def _live(chain: Chain) -> tuple[PartRecord, ...]:
    return chain.head.parts.numeric if chain.head else ()


def _chain(
    steps: int, commit_steps: int, born: type[np.floating], look: Callable[[Chain], None] = lambda _: None
) -> Chain:
    return written(open_store(f"memory://{random_id()}/store"), PROJECT, steps, commit_steps, born, look)
