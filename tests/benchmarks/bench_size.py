"""How much the store writes: bytes a point as they lie, and how often compaction writes a point again in a long run.

    python -m tests.benchmarks size

The run is an hour of commits, one a second, of 8 channels at 20 Hz, in a store in memory; its parts are followed by their records.
For longer runs the plan alone is followed, which is all that decides who is merged.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from headrace_proto import events
from headrace_proto.events import ChannelType, Kind, Role
from headrace_proto.ids import random_id
from headrace_proto.store import compaction
from headrace_proto.store.backend import open_store
from headrace_proto.store.chain import Batch, Chain
from headrace_proto.store.commits import PartRecord
from tests.benchmarks.rows import Row

CHANNELS: Final = 8
RATE_HZ: Final = 20
PERIOD_NS: Final = 10**9 // RATE_HZ
JITTER_NS: Final = 2_000_000
STEPS: Final = 1_000_000
COMMIT_STEPS: Final = 50_000
HOUR: Final = 3_600
LONG: Final = 360_000
"""Commits: two days in a local store, six weeks in a remote one."""
RESTING_BYTES: Final = 9
"""A point's, about."""
PROJECT: Final = "bench/size"

_POINT: Final = np.dtype(
    [
        *(("head", "u1"), ("kind", "u1"), ("t0", "u1"), ("channel", ">u4"), ("t1", "u1"), ("step", ">f8")),
        *(("t2", "u1"), ("time", ">u8"), ("t3", "u1"), ("value", ">f8")),
    ]
)
"""A POINT of `headrace_proto.events`."""


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
    return sum(part.bytes for part in _live(chain)) / (STEPS * CHANNELS)


def _an_hour() -> Iterator[Row]:
    fresh: dict[str, PartRecord] = {}
    again: dict[str, PartRecord] = {}

    def look(chain: Chain) -> None:
        for part in _live(chain):
            (again if part.level else fresh)[part.path] = part

    chain = _chain(HOUR * RATE_HZ, RATE_HZ, np.float64, look)
    chain.compact(now_ns=time.time_ns(), final=True)
    look(chain)
    points = HOUR * RATE_HZ * CHANNELS
    first, more = (sum(part.bytes for part in parts.values()) for parts in (fresh, again))
    run = f"{HOUR:,} commits of {RATE_HZ * CHANNELS} points, and the end"
    yield Row(f"{run}: bytes written, of those that commits wrote", (first + more) / first, "x", at_most=3)
    rewritten = sum(part.rows for part in again.values()) / points
    yield Row("  a point is written again, on average", rewritten, "times", at_most=3)
    yield Row("  bytes a point as committed", first / points, "B")
    yield Row("  bytes a point in the end", sum(part.bytes for part in _live(chain)) / points, "B")


def _planned(commits: int) -> float:
    """How often each of so many equal commits' points is written again."""
    live: compaction.Run = ()
    rows = 0
    points = RATE_HZ * CHANNELS
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
    """An experiment, committed and compacted as a collector does it. `look` is shown each commit."""
    chain, noise = Chain(open_store(f"memory://{random_id()}/store"), PROJECT, random_id()), np.random.default_rng(1)
    start_ns, source, position = time.time_ns(), random_id(), 0
    first = b"".join(
        [
            events.pack(Kind.OPEN, start_ns, {"role": Role.OWNER}),
            events.pack(Kind.CREATE, start_ns, {"name": "bench", "created_ns": start_ns}),
            *(events.pack(Kind.CHANNEL, n, f"channel {n}", int(ChannelType.NUMERIC)) for n in range(CHANNELS)),
        ]
    )
    for step in range(0, steps, commit_steps):
        raw = (first if step == 0 else b"") + _raw_points(step, commit_steps, start_ns, noise, born)
        chain.commit([Batch(source, position, position + len(raw), raw)], now_ns=time.time_ns())
        position += len(raw)
        look(chain)
        if chain.compact(now_ns=time.time_ns()):
            look(chain)
    return chain


def _raw_points(
    first_step: int, steps: int, start_ns: int, noise: np.random.Generator, born: type[np.floating]
) -> bytes:
    """So many steps of all channels, as a loop logs them."""
    count = steps * CHANNELS
    points = np.empty(count, _POINT)
    points["head"], points["kind"] = 0x95, int(Kind.POINT)
    points["t0"], points["t1"], points["t2"], points["t3"] = (
        tag[0] for tag in (events.TAG_U32, events.TAG_F64, events.TAG_U64, events.TAG_F64)
    )
    number = first_step + np.arange(count) // CHANNELS
    points["channel"], points["step"] = np.arange(count) % CHANNELS, number
    points["time"] = start_ns + number * PERIOD_NS + noise.integers(0, JITTER_NS, count)
    points["value"] = (noise.normal(size=count) / (1 + number * 1e-6)).astype(born)
    return points.tobytes()
