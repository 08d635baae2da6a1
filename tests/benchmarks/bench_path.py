"""The whole path on one machine: logging process, agent, nats-server and collector together."""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.rows import Row
from tests.benchmarks.spent import cpu_s_of
from tests.path.stack import Stack, document, experiments

SUSTAINED_S = 60
ROW_VALUES = 50
PROBES = 20
PROJECT = "chaos/killed"

LOAD = """
import json, os, sys, time
import headrace as hr

seconds, width = float(sys.argv[1]), int(sys.argv[2])
exp = hr.init("chaos/killed").create_experiment(
    upload_source_files=[], upload_stdout=False, upload_stderr=False, send_hardware_metrics=False
)
begin, step, log, log_row = time.perf_counter(), 0, exp.log_metric, exp.log_metrics
names, layers = [f"c{n}" for n in range(8)], [f"layer{n}/norm" for n in range(width)]
while time.perf_counter() - begin < seconds:
    if width == 1:
        for step in range(step, step + 10_000):
            log(names[step & 7], step >> 3, step * 0.5)
    else:
        for step in range(step, step + 1_000):
            log_row({layer: step * 0.5 + n for n, layer in enumerate(layers)}, step)
    step += 1
logged_s = time.perf_counter() - begin
receipt = exp.wait("stored", timeout=600)
assert receipt.reached, receipt
spent = os.times()
print(json.dumps({
    "count": step * width, "logged_s": logged_s, "stored_s": time.perf_counter() - begin, "cpu_s": spent.user + spent.system
}))
"""
"""Logs as fast as the loop can, and says when the store has it all."""

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
    return [
        *_throughput(1, "points", at_least=1e6),
        *_throughput(ROW_VALUES, "values", at_least=5e6),
        *_with_stack(_latency),
    ]


def _with_stack(measure: Callable[[Stack], list[Row]]) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder, Stack(Path(folder)) as stack:
        stack.start()
        return measure(stack)


def _throughput(width: int, what: str, at_least: float) -> list[Row]:
    """One process logs rows of `width` at full speed (1: scalars, one a call) beside agent, nats-server and collector."""

    def measure(stack: Stack) -> list[Row]:
        arguments = [sys.executable, "-c", LOAD, str(SUSTAINED_S), str(width)]
        done = subprocess.run(arguments, env=stack.environment, check=True, capture_output=True, text=True)
        figures = json.loads(done.stdout)
        logged = figures["count"] / figures["logged_s"]
        calls = "scalars, one a call" if width == 1 else f"rows of {width}"
        spent = {"the loop": figures["cpu_s"], **cpu_s_of(stack)}
        shares = "; ".join(f"{name} {cpu_s / figures['stored_s']:.2f}" for name, cpu_s in spent.items())
        per_100k = sum(spent.values()) / figures["count"] * 1e5
        return [
            Row(
                f"end to end on {os.cpu_count()} cores, {figures['logged_s']:.0f} s of {calls}, at full speed",
                figures["count"] / figures["stored_s"],
                f"{what}/s until stored",
                at_least=at_least,
            ),
            Row(
                f"  CPU seconds per 100,000 {what}, all four together, their start included",
                per_100k,
                "s",
                at_most=0.3 if width == 1 else None,
            ),
            Row("  the loop beside them", logged, f"{what}/s"),
            Row(
                f"  the last one stored after the last call (cores: {shares})",
                figures["stored_s"] - figures["logged_s"],
                "s",
            ),
        ]

    return _with_stack(measure)


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
