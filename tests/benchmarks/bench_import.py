"""How long moving in takes: an export of neptune-exporter, with `headrace import neptune` as people run it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.rows import Row
from tests.exports import BEGAN, Exporter, metrics, single

PROJECT = "acme/bench"
RUNS, CHANNELS, STEPS = 8, 8, 125_000
POINTS = RUNS * CHANNELS * STEPS
SMALL_RUNS = 300


def run() -> list[Row]:
    """Every figure of the import."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        return [*_points(Path(folder) / "points"), *_runs(Path(folder) / "runs")]


def _points(folder: Path) -> list[Row]:
    exporter = Exporter(folder)
    for number in range(RUNS):
        name = f"BEN-{number + 1}"
        table = metrics(PROJECT, name, [f"metrics/{channel}" for channel in range(CHANNELS)], STEPS, number)
        exporter.run(PROJECT, name, [single("sys/creation_time", "datetime", BEGAN)], table)
    first_s, again_s = _imported_s(folder), _imported_s(folder)
    return [
        Row(f"import of {POINTS:,} points in {RUNS} runs, start-up included", first_s, "s", at_most=20.0),
        Row("points imported", POINTS / first_s, "/s", at_least=500_000),
        Row("the same again: nothing to do", again_s, "s", at_most=3.0),
    ]


def _runs(folder: Path) -> list[Row]:
    exporter = Exporter(folder)
    for number in range(SMALL_RUNS):
        name = f"BEN-{number + 1}"
        values = [single(f"parameters/p{at}", "float", at / 7) for at in range(20)]
        exporter.run(PROJECT, name, values, metrics(PROJECT, name, ["a", "b", "c"], 100, number))
    return [Row("small runs imported (20 parameters, 300 points)", SMALL_RUNS / _imported_s(folder), "/s")]


def _imported_s(folder: Path) -> float:
    began_s = time.perf_counter()
    command = [sys.executable, "-m", "headrace.command", "import", "neptune", str(folder), "--store"]
    subprocess.run(
        [*command, str(folder / "store")],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "HEADRACE_HOME": str(folder / "home")},
    )
    return time.perf_counter() - began_s
