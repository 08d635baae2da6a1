"""The SDK as a training loop sees it: what a call costs, what importing and beginning cost, what stays in memory.

Per-call times are net of the clock: the median of two readings in a row, measured in the same kind of loop. The baseline is
`msgpack.packb([1, 3, i, t, 0.5])`, measured in the same run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import msgpack

import headrace as hr
from headrace_proto import filesystem
from tests.benchmarks.rows import Row
from tests.quiet import QUIET

CALLS: Final = 300_000
ROWS: Final = 50_000
ROUNDS: Final = 3
COLD_CALLS: Final = 300
COLD_BYTES: Final = 64 * 1024 * 1024
PROCESSES: Final = 9
NAMES: Final = [f"metric{number}" for number in range(8)]
ROW_NAMES: Final = [f"layer{number}/norm" for number in range(50)]
"""As a loop has them that makes its dict of the same strings each time."""


class Times(NamedTuple):
    """Of many calls, in microseconds."""

    p50: float
    p99: float
    p999: float
    longest: float


def times(spans: array[int], clock_ns: int = 0) -> Times:
    """What a run of spans in nanoseconds says."""
    ordered = sorted(spans)
    at = [ordered[min(len(ordered) - 1, int(len(ordered) * part))] for part in (0.5, 0.99, 0.999, 1.0)]
    return Times(*((span - clock_ns) / 1000 for span in at))


def clock_ns() -> int:
    """What reading the clock twice costs."""
    spans, clock = array("q", bytes(8 * CALLS)), time.perf_counter_ns
    for i in range(CALLS):
        begin = clock()
        spans[i] = clock() - begin
    return sorted(spans)[CALLS // 2]


def packb_spans() -> array[int]:
    """The baseline: encoding an event, and doing nothing with it."""
    spans, clock, pack, t = array("q", bytes(8 * CALLS)), time.perf_counter_ns, msgpack.packb, time.time()
    for i in range(CALLS):
        begin = clock()
        pack([1, 3, i, t, 0.5])
        spans[i] = clock() - begin
    return spans


def metric_spans(experiment: hr.Experiment, calls: int = CALLS) -> array[int]:
    """`log_metric` in a loop, eight channels in turn."""
    spans, clock, log = array("q", bytes(8 * calls)), time.perf_counter_ns, experiment.log_metric
    for i in range(calls):
        name = NAMES[i & 7]
        begin = clock()
        log(name, i, 0.5)
        spans[i] = clock() - begin
    return spans


def row_spans(experiment: hr.Experiment) -> array[int]:
    """`log_metrics` of 50 values in a loop."""
    values = {name: 0.5 * number for number, name in enumerate(ROW_NAMES)}
    spans, clock, log = array("q", bytes(8 * ROWS)), time.perf_counter_ns, experiment.log_metrics
    for i in range(ROWS):
        begin = clock()
        log(values, i)
        spans[i] = clock() - begin
    return spans


def cold_spans(call: Callable[[int], Any]) -> array[int]:
    """One call at a time, with more memory touched in between than any cache holds."""
    spans, clock, page = array("q", bytes(8 * COLD_CALLS)), time.perf_counter_ns, bytearray(COLD_BYTES)
    for i in range(COLD_CALLS):
        page[::64] = bytes(len(page) // 64)
        begin = clock()
        call(i)
        spans[i] = clock() - begin
    return spans


def thread_spans(experiment: hr.Experiment, threads: int) -> array[int]:
    """`log_metric` in several threads at full speed."""
    together, parts = threading.Barrier(threads), [array("q") for _ in range(threads)]

    def work(number: int) -> None:
        together.wait()
        parts[number] = metric_spans(experiment, CALLS // threads)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(parts, array("q"))


_SYNC: Final = """
import os, sys, time
while True:
    for folder, _, files in os.walk(sys.argv[1]):
        for name in files:
            if name.endswith(".seg"):
                descriptor = os.open(os.path.join(folder, name), os.O_RDONLY)
                os.fdatasync(descriptor)
                os.close(descriptor)
    time.sleep(0.05)
"""


@contextmanager
def syncing(home: str) -> Iterator[None]:
    """Another process syncs the journals 20 times a second, as an agent does once."""
    process = subprocess.Popen([sys.executable, "-c", _SYNC, home])
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def lying_on(kind: str) -> Iterator[None]:
    """Every folder is said to lie on such a file system: what a call costs there, less the server."""
    known = filesystem.kind_of
    filesystem.kind_of = lambda path: kind
    try:
        yield
    finally:
        filesystem.kind_of = known


# -- Beginning and end, each in a process of its own ---------------------------------------------------------------------

_BEGIN: Final = """
import json, time
imported = time.perf_counter()
import headrace as hr
began = time.perf_counter()
project = hr.init("bench/sdk")
exp = project.create_experiment(upload_source_files=[], git_info=False)
exp.log_metric("loss", 0.5)
logged = time.perf_counter()
import os, sys
threads = len(os.listdir("/proc/self/task")) - 1
def anonymous():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon"))
for step in range(10_000):
    exp.log_metric("loss", step, 0.5)
before = anonymous()
for step in range(int(sys.argv[1])):
    exp.log_metric("loss", step, 0.5)
after = anonymous()
stopping = time.perf_counter()
exp.stop()
stopped = time.perf_counter()
print(json.dumps({
    "begin_ms": (logged - began) * 1e3, "threads": threads, "added_mib": (after - before) / 1024,
    "stop_ms": (stopped - stopping) * 1e3,
}))
"""


def begun(home: str, events: int) -> dict[str, float]:
    """One life of a trainer."""
    script = Path(home) / "begin.py"
    script.write_text(_BEGIN, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script), str(events)], env=_environment(home), capture_output=True, text=True, check=True
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def process_ms(code: str, home: str) -> float:
    """How long an interpreter takes that runs `code`: the quickest of several, bytecode cached."""
    spans = []
    for _ in range(PROCESSES):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], env=_environment(home), check=True)
        spans.append(time.perf_counter() - begin)
    return min(spans) * 1000


def _environment(home: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HEADRACE_"))}
    return {**kept, "HEADRACE_HOME": home, "PYTHONPYCACHEPREFIX": f"{home}/bytecode"}


# -- The table -----------------------------------------------------------------------------------------------------------


def run() -> list[Row]:
    """Measure everything."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as home:
        experiment = hr.init("bench/sdk", home=home).create_experiment(**QUIET)
        clock = clock_ns()
        metric_spans(experiment, 10_000)
        rounds = [
            (times(packb_spans(), clock), times(metric_spans(experiment), clock), times(row_spans(experiment), clock))
            for _ in range(ROUNDS)
        ]
        beside = list(_beside(experiment, home, clock))
        experiment.stop()
        return [*_hot(rounds), *_life(home), *beside]


def _hot(rounds: list[tuple[Times, Times, Times]]) -> list[Row]:
    """The medians of some rounds, in each of which baseline, metrics and rows take turns; of what is longest the longest."""
    packb, metric, rows = (Times(*map(median, zip(*kind, strict=True))) for kind in zip(*rounds, strict=True))
    longest = max(metric.longest for _, metric, _ in rounds)
    return [
        Row("msgpack.packb([1, 3, i, t, 0.5]), the baseline, p50", packb.p50, "us"),
        Row("log_metric, p50", metric.p50, "us", at_most=0.6),
        Row(
            "log_metric, p50, against the baseline",
            median(metric.p50 / packb.p50 for packb, metric, _ in rounds),
            "x",
            at_most=1.3,
        ),
        Row("log_metric, p99", metric.p99, "us", at_most=1.5),
        Row(f"log_metric, longest of {ROUNDS * CALLS:,}", longest / 1000, "ms", at_most=3),
        Row("log_metrics of 50 values, p50", rows.p50, "us"),
        Row("  a value", rows.p50 * 1000 / 50, "ns", at_most=35),
    ]


def _life(home: str) -> list[Row]:
    bare = process_ms("pass", home)
    imported = process_ms("import headrace", home) - bare
    lives = [begun(home, 1000) for _ in range(PROCESSES)]
    long_life = begun(home, 1_000_000)
    return [
        Row("import headrace, over bare python", imported, "ms", at_most=25),
        Row("init + create_experiment + first metric", min(life["begin_ms"] for life in lives), "ms", at_most=10),
        Row("threads of ours while logging scalars", max(life["threads"] for life in lives), "", at_most=0),
        Row("memory added by 1 M events, beyond the mapped segments", long_life["added_mib"], "MiB", at_most=8),
        Row("stop() with everything journaled", max(life["stop_ms"] for life in [*lives, long_life]), "ms", at_most=10),
    ]


def _beside(experiment: hr.Experiment, home: str, clock: int) -> Iterator[Row]:
    """Without a bar: what else a loop may meet."""
    cold = times(cold_spans(lambda i: experiment.log_metric("cold", i, 0.5)), clock)
    cold_packb = times(cold_spans(lambda i: msgpack.packb([1, 3, i, 0.25, 0.5])), clock)
    yield Row("log_metric, caches cold, p50", cold.p50, "us")
    yield Row("msgpack.packb, caches cold, p50", cold_packb.p50, "us")
    for threads in (2, 4):
        together = times(thread_spans(experiment, threads), clock)
        yield Row(f"log_metric in {threads} threads, p50", together.p50, "us")
        yield Row(f"log_metric in {threads} threads, p99", together.p99, "us")
    with lying_on("nfs4"):
        written = hr.init("bench/sdk", home=f"{home}/written").create_experiment(**QUIET)
        calls = times(metric_spans(written), clock)
        written.stop()
    yield Row("log_metric, journal written and not mapped (network file systems), p50", calls.p50, "us")
    yield Row("log_metric, journal written and not mapped (network file systems), p99", calls.p99, "us")
    with syncing(home):
        synced = times(metric_spans(experiment), clock)
    yield Row("log_metric beside 20 fdatasync/s, p99", synced.p99, "us")
    yield Row("log_metric beside 20 fdatasync/s, longest", synced.longest / 1000, "ms")
