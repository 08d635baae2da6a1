"""The whole path on one machine: logging process, agent, nats-server and collector together."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.rows import Row
from tests.path.stack import Stack, document, experiments

SUSTAINED_S = 30
POINTS_PER_S = 600_000
"""Offered: above the bar, below what fills the broker, so that 'until stored' says whether the path keeps up."""
PROBES = 20
PROJECT = "chaos/killed"

LOAD = """
import json, sys, time
import headrace as hr

seconds, per_s = int(sys.argv[1]), int(sys.argv[2])
exp = hr.init("chaos/killed").create_experiment(
    upload_source_files=[], upload_stdout=False, upload_stderr=False, send_hardware_metrics=False
)
names, begin, count, log = [f"c{n}" for n in range(8)], time.perf_counter(), 0, exp.log_metric
while (now := time.perf_counter() - begin) < seconds:
    for step in range(count, count + per_s // 200):
        log(names[step & 7], step >> 3, step * 0.5)
    count += per_s // 200
    ahead = count / per_s - (time.perf_counter() - begin)
    if ahead > 0:
        time.sleep(ahead)
logged_s = time.perf_counter() - begin
receipt = exp.wait("stored", timeout=120)
assert receipt.reached, receipt
print(json.dumps({"count": count, "logged_s": logged_s, "stored_s": time.perf_counter() - begin}))
"""

PROBE = """
import sys
import headrace as hr

exp = hr.init("chaos/killed").create_experiment(
    upload_source_files=[], upload_stdout=False, upload_stderr=False, send_hardware_metrics=False
)
for line in sys.stdin:
    exp.log_metric("probe", int(line), 1.0)
"""


def run() -> list[Row]:
    """Throughput until stored, and the time from a call to a readable point."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder, Stack(Path(folder)) as stack:
        stack.start()
        return [*_throughput(stack), *_latency(stack)]


def _throughput(stack: Stack) -> list[Row]:
    arguments = [sys.executable, "-c", LOAD, str(SUSTAINED_S), str(POINTS_PER_S)]
    done = subprocess.run(arguments, env=stack.environment, check=True, capture_output=True, text=True)
    figures = json.loads(done.stdout)
    return [
        Row(
            f"end to end, logging process included, {figures['logged_s']:.0f} s at {figures['count'] / figures['logged_s']:,.0f}/s",
            figures["count"] / figures["stored_s"],
            "points/s until stored",
            at_least=500_000,
        ),
        Row("the last point stored after the last call", figures["stored_s"] - figures["logged_s"], "s"),
    ]


def _latency(stack: Stack) -> list[Row]:
    before = set(experiments(stack.store))
    dice, seconds = random.Random(7), []
    with subprocess.Popen(
        [sys.executable, "-c", PROBE], env=stack.environment, stdin=subprocess.PIPE, text=True
    ) as probe:
        assert probe.stdin is not None
        for number in range(PROBES):
            begin = time.perf_counter()
            print(number, file=probe.stdin, flush=True)
            while _last_step(stack, before) < number:
                time.sleep(0.005)
            seconds.append(time.perf_counter() - begin)
            time.sleep(dice.random())
        probe.stdin.close()
    seconds = seconds[1:]  # the first makes the experiment
    return [
        Row("a point logged, readable in the local store: p50", statistics.median(seconds), "s", at_most=1.5),
        Row("the same, slowest of the probes", max(seconds), "s"),
    ]


def _last_step(stack: Stack, before: set[str]) -> float:
    new = set(experiments(stack.store)) - before
    try:
        last = document(stack.store, new.pop())["channels"]["numeric"]["probe"]["last"] if new else None
    except (FileNotFoundError, KeyError, ValueError):
        return -1
    return float(last["step"]) if last else -1
