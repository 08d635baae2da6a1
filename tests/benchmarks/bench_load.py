"""The agent under load, with real processes around it: killed and started again, behind by 100 M points, and idle a thousandfold.

    python -m tests.benchmarks.bench_load [recovery] [backlog] [idle] [--points N] [--seconds S]

The backlog takes about 8 GB of disk and five minutes; `--points` makes it smaller for a quick look.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple, Self

import psutil
from nats.js import JetStreamContext
from pyarrow import parquet

from headrace.service.broker import connect, ensure_streams
from headrace_proto import subjects
from headrace_proto.limits import MIB
from tests.benchmarks.rows import Row
from tests.benchmarks.spent import cpu_s_of
from tests.path.stack import Stack, document, experiments, parts_of
from tests.waiting import wait_until

POINTS: Final = 100_000_000
EXPERIMENTS: Final = 32
"""That are behind. Their journals are written by as many processes as there are cores."""
IDLE_SOURCES: Final = 1_000
IDLE_S: Final = 30.0
KILLS: Final = 5
PROJECT: Final = "bench/load"
FRESH_PROJECT: Final = "bench/fresh"
FRESH_PERIOD_S: Final = 0.2

WRITE = """
import random, sys, time
from headrace_proto.events import Outcome
from headrace_proto.home import Home
from headrace_proto.ids import random_id
from headrace_proto.journal import JournalWriter

home, project, points, journals = Home(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
noise = [random.gauss(0.0, 1.0) for _ in range(4096)]
channels = [f"channel {n}" for n in range(8)]
for _ in range(journals):
    writer = JournalWriter(home, project, random_id())
    point, start_ns = writer.point, time.time_ns() - points * 6_250_000
    for i in range(points):
        point(channels[i & 7], float(i >> 3), noise[i & 4095] / (1 + i * 1e-6), start_ns + i * 6_250_000 + (i * 7919) % 2_000_000)
    writer.close(Outcome.SUCCEEDED)
"""

STEADY = """
import sys, time
import headrace as hr

exp = hr.init(sys.argv[1]).create_experiment(
    upload_source_files=[], upload_stdout=False, upload_stderr=False, send_hardware_metrics=False
)
pause_s, step = float(sys.argv[2]), 0
while True:
    exp.log_metric("fresh", step, time.time())
    step += 1
    time.sleep(pause_s)
"""

HOLD = """
import resource, sys, time
from headrace_proto.home import Home
from headrace_proto.ids import random_id
from headrace_proto.journal import JournalWriter

limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
home, writers = Home(sys.argv[1]), []
for _ in range(int(sys.argv[3])):
    writers.append(JournalWriter(home, sys.argv[2], random_id()))
    writers[-1].point("loss", 0.0, 1.0, time.time_ns())
print("held", flush=True)
sys.stdin.read()
"""


def run() -> list[Row]:
    """Every figure of this page, at full size."""
    return [*recovery(), *idle(), *backlog()]


@contextmanager
def _stack() -> Iterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder, Stack(Path(folder)) as stack:
        stack.environment["HEADRACE_HARDWARE_S"] = "0"
        yield stack


@contextmanager
def _child(stack: Stack, program: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    child = subprocess.Popen(command, env=stack.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


# -- Recovery ------------------------------------------------------------------------------------------------------------


def recovery() -> list[Row]:
    """From SIGKILL of the agent, which is started again at once, to the first new batch that the stream has acknowledged."""
    with _stack() as stack:
        stack.start()
        with _child(stack, STEADY, PROJECT, 0.001):
            took_s = asyncio.run(_recoveries(stack))
    return [
        Row("agent: from kill -9 to the first new batch in the stream, median", statistics.median(took_s), "s"),
        Row(f"the same, slowest of {len(took_s)}", max(took_s), "s", at_most=1.0),
    ]


async def _recoveries(stack: Stack) -> list[float]:
    client = await connect(stack.nats.url, name="bench", on_event=lambda _: None)
    js, took_s = client.jetstream(), []
    try:
        await ensure_streams(js)
        await _beyond(js, 10)
        for _ in range(KILLS):
            await asyncio.sleep(3.0)  # it ships, and the collector has stored something
            began_s = time.perf_counter()
            stack.kill("agent")
            stack.start_agent()
            await _beyond(js, (await js.stream_info(subjects.EVENTS_STREAM)).state.last_seq)
            took_s.append(time.perf_counter() - began_s)
    finally:
        await client.close()
    return took_s


async def _beyond(js: JetStreamContext, sequence: int) -> None:
    while (await js.stream_info(subjects.EVENTS_STREAM)).state.last_seq <= sequence:
        await asyncio.sleep(0.01)


# -- A backlog -----------------------------------------------------------------------------------------------------------


def backlog(points: int = POINTS) -> list[Row]:
    """Journals full of points, and an experiment that is logged to while they drain: how fast, and how far behind it is seen."""
    with _stack() as stack:
        behind = _write_backlog(stack, points // EXPERIMENTS)
        stack.nats.start()
        stack.start_collector()
        before, began_s = psutil.cpu_times(), time.perf_counter()
        stack.start_agent()
        with _child(stack, STEADY, FRESH_PROJECT, FRESH_PERIOD_S), _Watch(stack.store) as watch:
            wait_until(lambda: behind.isdisjoint(os.listdir(stack.home.journals)), "the backlog is stored", 3600)
            took_s = time.perf_counter() - began_s
        stored = sum(_rows_stored(stack.store, experiment) for experiment in experiments(stack.store, PROJECT))
        if stored != len(behind) * (points // EXPERIMENTS):
            raise AssertionError(f"{stored} of {points} points are in the store")
        shares = "; ".join(f"{name} {cpu_s / took_s:.2f}" for name, cpu_s in cpu_s_of(stack).items())
        idle = (psutil.cpu_times().idle - before.idle) / took_s
        rss = {name: psutil.Process(child.pid).memory_info().rss / MIB for name, child in stack.children.items()}
    return [
        Row(
            f"{stored / 1e6:.0f} M points in journals, drained", stored / took_s, "points/s until stored", at_least=1e6
        ),
        Row("fresh points of another experiment meanwhile: readable after, p50", statistics.median(watch.seconds), "s"),
        Row("the same, slowest", max(watch.seconds), "s", at_most=5.0),
        *(Row(f"RSS of the {name} after it", value, "MiB") for name, value in rss.items()),
        Row(f"cores in use ({shares})", (os.cpu_count() or 1) - idle, ""),
    ]


def _write_backlog(stack: Stack, points: int) -> set[str]:
    writers = os.cpu_count() or 1
    shares = [EXPERIMENTS // writers + (nth < EXPERIMENTS % writers) for nth in range(writers)]
    commands = [[sys.executable, "-c", WRITE, stack.home.root, PROJECT, str(points), str(share)] for share in shares]
    for child in [subprocess.Popen(command, env=stack.environment) for command in commands]:
        if child.wait() != 0:
            raise RuntimeError("a backlog could not be written")
    os.sync()  # what the disk owes from here on is the drain's own
    return set(os.listdir(stack.home.journals))


def _rows_stored(store: Path, experiment: str) -> int:
    folder = store / PROJECT / "experiments" / experiment
    return sum(parquet.read_metadata(folder / part).num_rows for part in parts_of(document(store, experiment, PROJECT)))


class _Watch:
    """Sees the newest fresh point in the store again and again, and how old each was when it was first seen."""

    def __init__(self, store: Path) -> None:
        self.seconds: list[float] = []
        self._store = store
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        """Between two looks nothing new means that what is next becomes older: the age counts from the point that is missing."""
        seen = -1.0
        while not self._over.wait(0.02):
            last = self._newest()
            if last is None or last["step"] == seen:
                continue
            missing = (last["step"] - seen - 1) * FRESH_PERIOD_S  # the oldest of those that came with it
            self.seconds.append(time.time() - last["value"] + missing)
            seen = last["step"]

    def _newest(self) -> dict[str, float] | None:
        try:
            (experiment,) = experiments(self._store, FRESH_PROJECT)
            found: dict[str, float] = document(self._store, experiment, FRESH_PROJECT)["channels"]["numeric"]["fresh"][
                "last"
            ]
        except (OSError, KeyError, ValueError):
            return None
        return found


# -- Idle sources --------------------------------------------------------------------------------------------------------


class _Cost(NamedTuple):
    cpu_s: float
    rss_mib: float
    files: int


def idle(sources: int = IDLE_SOURCES, seconds: float = IDLE_S) -> list[Row]:
    """Journals whose writers live and rest: what they cost the agent, once all that they hold is stored."""
    with _stack() as stack:
        stack.start()
        with _child(stack, HOLD, stack.home.root, PROJECT, sources) as holder:
            assert holder.stdout is not None
            holder.stdout.readline()
            wait_until(lambda: len(experiments(stack.store, PROJECT)) == sources, "all is stored", 300)
            time.sleep(10)  # marks are kept, statuses written, and the agent has seen that nothing grows
            agent = psutil.Process(stack.children["agent"].pid)
            before, began_s = _cost(agent), time.perf_counter()
            time.sleep(seconds)
            after, took_s = _cost(agent), time.perf_counter() - began_s
    return [
        Row(
            f"agent: {sources:,} idle open sources",
            100 * (after.cpu_s - before.cpu_s) / took_s,
            "% of a core",
            at_most=2.0,
        ),
        Row("the same: RSS", after.rss_mib, "MiB", at_most=200),
        Row("the same: open files", after.files, "descriptors"),
    ]


def _cost(process: psutil.Process) -> _Cost:
    spent = process.cpu_times()
    return _Cost(spent.user + spent.system, process.memory_info().rss / MIB, process.num_fds())


def _main() -> None:
    parser = argparse.ArgumentParser(prog="tests.benchmarks.bench_load")
    parser.add_argument("parts", nargs="*", metavar="PART", help="recovery, backlog, idle; all without one")
    parser.add_argument("--points", type=int, default=POINTS)
    parser.add_argument("--seconds", type=float, default=IDLE_S)
    given = parser.parse_args()
    parts: dict[str, Callable[[], list[Row]]] = {
        "recovery": recovery,
        "idle": lambda: idle(seconds=given.seconds),
        "backlog": lambda: backlog(given.points),
    }
    for name in given.parts or parts:
        for row in parts[name]():
            print(json.dumps(row._asdict()))


if __name__ == "__main__":
    _main()
