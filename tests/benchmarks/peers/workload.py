"""The two workloads, and the loops around the calls.

Imported by the measured processes: the standard library only, and little of that.
"""

from __future__ import annotations

import time
from array import array
from math import sin
from typing import TYPE_CHECKING, Final

from tests.benchmarks.peers.peer import CHANNEL, Trial

if TYPE_CHECKING:
    from tests.benchmarks.peers.peer import Log

SCALARS: Final = 100_000
"""Calls with one scalar."""
ROWS: Final = 2_000
"""Calls with a row."""
WIDTH: Final = 50
"""Values of a row."""
LIMIT_NS: Final = 15_000_000_000
"""After which a loop makes no more calls: the slowest would take many minutes."""
TRIALS: Final = 2_000
BATCHES: Final = (16, 32, 64, 128)
WANTED_BATCH: Final = 32
WANTED_LOSS: Final = 0.5
_ROW_NAMES: Final = [f"layer{number}/norm" for number in range(WIDTH)]


def value(step: int) -> float:
    """What is logged at a step: noise in every bit, as a loss has it, so that no store has less to keep here than in life. (The
    fractional part of a large multiple of a sine: the same in every process, and no generator's state to carry.)

    >>> 0 <= value(1) < 1, len({value(step) for step in range(10_000)})
    (True, 10000)
    """
    return sin(step * 12.9898) * 43_758.5453 % 1.0


def trials(count: int) -> list[Trial]:
    """The runs that are searched: an eighth of them has the wanted batch and the wanted loss."""
    return [Trial(f"run {n}", BATCHES[n % len(BATCHES)], n / count) for n in range(count)]


def wanted(count: int) -> int:
    """How many of so many trials a search must find.

    >>> wanted(2000)
    250
    """
    return sum(trial.batch == WANTED_BATCH and trial.loss < WANTED_LOSS for trial in trials(count))


def scalar_spans(log: Log, calls: int) -> array[int]:
    """One scalar a call, as fast as the loop can, for LIMIT_NS at most: nanoseconds of each call."""
    spans, clock, call, noise = array("q", bytes(8 * calls)), time.perf_counter_ns, log.scalar, value
    deadline = clock() + LIMIT_NS
    for step in range(calls):
        number = noise(step)
        begin = clock()
        call(CHANNEL, step, number)
        spans[step] = clock() - begin
        if begin > deadline:
            return spans[: step + 1]
    return spans


def row_spans(log: Log, calls: int) -> array[int]:
    """A dict of WIDTH scalars a call; the loop makes a new dict each time, outside of what is measured."""
    spans, clock, call = array("q", bytes(8 * calls)), time.perf_counter_ns, log.row
    deadline = clock() + LIMIT_NS
    for step in range(calls):
        values = {name: value(step * WIDTH + nth) for nth, name in enumerate(_ROW_NAMES)}
        begin = clock()
        call(values, step)
        spans[step] = clock() - begin
        if begin > deadline:
            return spans[: step + 1]
    return spans


def clock_ns(readings: int = 20_000) -> int:
    """What reading the clock twice costs, p50."""
    spans, clock = array("q", bytes(8 * readings)), time.perf_counter_ns
    for i in range(readings):
        begin = clock()
        spans[i] = clock() - begin
    return sorted(spans)[readings // 2]


def forever(log: Log, returned: memoryview, per_s: float) -> None:
    """Log until somebody kills this process; `returned[0]` is how many calls have returned. `per_s` 0 is full speed."""
    call, step, begin = log.scalar, 0, time.monotonic()
    while True:
        call(CHANNEL, step, value(step))
        step += 1
        returned[0] = step
        if per_s and (ahead := begin + step / per_s - time.monotonic()) > 0:
            time.sleep(ahead)
