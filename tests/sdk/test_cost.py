"""What a call costs, as a multiple of `msgpack.packb` of the same event in the same process: a guard against a slow hot path.

`make bench` has the figures; these ratios are about a half of the bars. Both sides are measured in turn, in CPU
time of this thread, and the quickest of many short rounds counts: what else the machine does makes both sides slower, or one round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import msgpack
import pytest

import headrace as hr
from headrace_proto.home import Home

ROUNDS = 40
CALLS = 500
VALUES = {f"layer{number}/norm": number * 0.5 for number in range(50)}


@pytest.fixture
def experiment(home: Home) -> Iterator[hr.Experiment]:
    """One whose first calls, which look at the order of arguments, are over."""
    with hr.init("a/b", home=home.root).create_experiment(upload_source_files=[], git_info=False) as made:
        for step in range(1_000):
            made.log_metric("loss", step, 0.5)
            made.log_metrics(VALUES, step)
        yield made


def quickest(*sides: Callable[[int], None]) -> list[float]:
    """Nanoseconds a call of each side."""
    best = [float("inf")] * len(sides)
    for _ in range(ROUNDS):
        for nth, side in enumerate(sides):
            begin = time.thread_time_ns()
            side(CALLS)
            best[nth] = min(best[nth], (time.thread_time_ns() - begin) / CALLS)
    return best


def test_a_metric_costs_little_more_than_encoding_it(experiment: hr.Experiment) -> None:
    """About 1.4 times here, the loop itself included; it was 2 with a lock and a keyword-only argument."""
    log, pack, now = experiment.log_metric, msgpack.packb, time.time()

    def metrics(count: int) -> None:
        for step in range(count):
            log("loss", step, 0.5)

    def packs(count: int) -> None:
        for step in range(count):
            pack([1, 3, step, now, 0.5])

    logged, packed = quickest(metrics, packs)
    assert logged < 3 * packed, f"log_metric {logged:.0f} ns, packb {packed:.0f} ns"


def test_a_row_costs_little_more_than_encoding_it(experiment: hr.Experiment) -> None:
    """About 1.6 times here: the names are compared, not hashed, and the values packed at once."""
    log, pack, now = experiment.log_metrics, msgpack.packb, time.time()

    def rows(count: int) -> None:
        for step in range(count):
            log(VALUES, step)

    def packs(count: int) -> None:
        for step in range(count):
            pack([3, 1, step, now, [*VALUES.values()]])

    logged, packed = quickest(rows, packs)
    assert logged < 4 * packed, f"log_metrics {logged:.0f} ns, packb {packed:.0f} ns"
