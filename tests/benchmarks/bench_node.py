"""What the node side costs beside a training: the agent at rest, at a thousand points a second, and everything at a typical load.

    python -m tests.benchmarks node

Counted is CPU time, user and system. Of the agent all of it, hardware sampling included where it is on. Of the trainers what the
thread spends inside the logging calls, page faults and slow paths included: the loop around them is the user's, and reading the
clock is the bench's. What those two take, just as cold, is measured half way between two steps, and taken off. Not counted are
the broker and the collector, which stand elsewhere, and what the kernel writes back on its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import psutil

from headrace_proto.limits import MIB
from tests.benchmarks.rows import Row
from tests.benchmarks.spent import cpu_s_of
from tests.path.stack import Stack, experiments
from tests.waiting import wait_until

MEASURED_S: Final = 30.0
SETTLE_S: Final = 5.0
"""After the load has begun: imports, first commits and first marks are over."""
POINTS_PER_S: Final = 1_000
PROCESSES: Final = 8
METRICS: Final = 50
RATE_HZ: Final = 10
HARDWARE_S: Final = 1.0
PROJECT: Final = "bench/node"

LOAD: Final = """
import json, sys, time
import headrace as hr

metrics, rate_hz, hardware, at_once = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3] == "hardware", sys.argv[5] == "row"
exp = hr.init("bench/node").create_experiment(
    upload_source_files=[], upload_stdout=False, upload_stderr=False, send_hardware_metrics=hardware
)
names, log, step, spent_ns, clock = [f"metric {n}" for n in range(metrics)], exp.log_metric, 0, 0, time.thread_time_ns
log_row, row, blank_ns, blanks = exp.log_metrics, dict.fromkeys(names, 0.5), 0, 0
print("ready", flush=True)
sys.stdin.readline()
begin = due = time.monotonic()
end = begin + float(sys.argv[4])
while time.monotonic() < end:
    before = clock()
    if at_once:
        log_row(row, step)
    else:
        for name in names:
            log(name, step, step * 0.5)
    spent_ns += clock() - before
    step += 1
    if step % 10 == 0:
        time.sleep(max(due + 0.5 / rate_hz - time.monotonic(), 0))
        before = clock()
        if not at_once:
            for name in names:
                step * 0.5
        blank_ns += clock() - before
        blanks += 1
    due += 1 / rate_hz
    time.sleep(max(due - time.monotonic(), 0))
spent_ns -= step * blank_ns / max(blanks, 1)
print(json.dumps({"spent_s": spent_ns / 1e9, "seconds": time.monotonic() - begin, "points": step * metrics}))
"""


class _Spent(NamedTuple):
    """In a stretch of time."""

    seconds: float
    agent_s: float
    logging_s: float
    points: int
    rss_mib: float


def run() -> list[Row]:
    """Every figure of this page."""
    with _stack(0.0) as stack:
        idle = psutil.Process(stack.children["agent"].pid)
        time.sleep(2 * SETTLE_S)  # it starts within a second on a quiet machine
        rss = idle.memory_info().rss / MIB
        trickle = _load(stack, 1, 1, POINTS_PER_S, hardware=False)
    with _stack(HARDWARE_S) as stack:
        rows = _load(stack, PROCESSES, METRICS, RATE_HZ, hardware=True, at_once=True)
    with _stack(HARDWARE_S) as stack:
        single = _load(stack, PROCESSES, METRICS, RATE_HZ, hardware=True)
    return [
        Row("agent: RSS at rest, before anything was logged", rss, "MiB", at_most=60),
        Row(
            f"agent: {trickle.points / trickle.seconds:,.0f} points/s of one process",
            100 * trickle.agent_s / trickle.seconds,
            "% of a core",
            at_most=0.5,
        ),
        *_typical(rows, "one log_metrics a step"),
        *_typical(single, "a log_metric each"),
    ]


def _typical(spent: _Spent, how: str) -> Iterator[Row]:
    share = 100 / spent.seconds
    load = f"{PROCESSES} processes x {METRICS} metrics x {RATE_HZ} Hz, hardware every {HARDWARE_S:g} s"
    whole = (spent.agent_s + spent.logging_s) * share
    yield Row(f"node side, {load}, {how}: agent and logging calls", whole, "% of a core", at_most=2)
    yield Row("  of which the agent", spent.agent_s * share, "% of a core")
    yield Row(f"  of which the calls of {PROCESSES} processes", spent.logging_s * share, "% of a core")
    yield Row("  RSS of the agent", spent.rss_mib, "MiB")


@contextmanager
def _stack(hardware_s: float) -> Iterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder, Stack(Path(folder)) as stack:
        stack.environment["HEADRACE_HARDWARE_S"] = str(hardware_s)
        stack.start()
        yield stack


def _load(
    stack: Stack, processes: int, metrics: int, rate_hz: float, *, hardware: bool, at_once: bool = False
) -> _Spent:
    """Have so many processes log, and see what it costs once it runs evenly."""
    seconds = SETTLE_S + MEASURED_S + SETTLE_S
    arguments = [metrics, rate_hz, "hardware" if hardware else "none", seconds, "row" if at_once else "each"]
    command = [sys.executable, "-c", LOAD, *map(str, arguments)]
    with ExitStack() as started:
        children = [started.enter_context(_child(command, stack)) for _ in range(processes)]
        for child in children:
            assert child.stdout is not None
            child.stdout.readline()
        for child in children:
            assert child.stdin is not None
            print(file=child.stdin, flush=True)
        wait_until(lambda: len(experiments(stack.store, PROJECT)) == processes, "all is on its way", 120)
        time.sleep(SETTLE_S)
        before, began_s = cpu_s_of(stack)["agent"], time.perf_counter()
        time.sleep(MEASURED_S)
        agent_s, took_s = cpu_s_of(stack)["agent"] - before, time.perf_counter() - began_s
        rss_mib = psutil.Process(stack.children["agent"].pid).memory_info().rss / MIB
        told = [json.loads(child.communicate()[0]) for child in children]
    logging_s = sum(one["spent_s"] / one["seconds"] for one in told) * took_s
    points = sum(one["points"] / one["seconds"] for one in told) * took_s
    return _Spent(took_s, agent_s, logging_s, int(points), rss_mib)


@contextmanager
def _child(command: list[str], stack: Stack) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(command, env=stack.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield child
    finally:
        child.kill()
        child.wait()
