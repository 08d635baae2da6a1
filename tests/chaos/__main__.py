"""`make soak`: minutes of faults by a seeded schedule, then a verdict.

    python -m tests.chaos --seconds 600 --seed 7 [--lossy] [--remote] [--faults-every 2] [--per-second 24000]

With `--lossy` the broker also loses, again and again, what it had acknowledged. When something is wrong the exit status is 1,
and the folder of the run is kept.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.chaos.run import Chaos, Plan, Report

HEAL_S_MAX = 20.0


def main() -> int:
    """Run once, show the table, and say whether it was as it must be."""
    parser = argparse.ArgumentParser(prog="tests.chaos", description="Kill everything, lose nothing.")
    parser.add_argument("--seconds", type=float, default=600.0, help="how long faults are made (600)")
    parser.add_argument("--seed", type=int, default=None, help="of the schedule; any one by default, and printed")
    parser.add_argument("--lossy", action="store_true", help="the broker loses what it acknowledged, too")
    parser.add_argument("--remote", action="store_true", help="on S3, as moto plays it, which fails too")
    parser.add_argument("--faults-every", type=float, default=2.0, metavar="S", help="seconds between two faults (2)")
    parser.add_argument(
        "--per-second", type=float, default=24_000.0, metavar="N", help="calls of all producers (24,000)"
    )
    parser.add_argument("--folder", type=Path, help="where to run; a new folder for temporary files by default")
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(1 << 31)
    folder = given.folder or Path(tempfile.mkdtemp(prefix="headrace-soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    console = Console()
    console.print(f"seed {seed}, {given.seconds:g} s{', lossy' if given.lossy else ''}, in {folder}")
    plan = Plan(given.seconds, seed, given.lossy, given.remote, given.faults_every, given.per_second)
    began = time.monotonic()

    def tell(line: str) -> None:
        console.print(f"{time.monotonic() - began:6.0f} s  {line}", highlight=False)

    report = Chaos(folder, plan, tell).run()
    console.print(table(report))
    if report.heal_s > HEAL_S_MAX:
        report.findings.say(f"healing took {report.heal_s:.1f} s after the last fault, more than {HEAL_S_MAX:g} s")
    for sentence in report.findings.sentences:
        console.print(f"WRONG: {sentence}", highlight=False, style="red")
    if report.findings.sentences:
        console.print(f"seed {seed}: the run is kept in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


def table(report: Report) -> Table:
    """The run in figures."""
    shown = Table(title=f"{report.plan.seconds:g} s of faults, seed {report.plan.seed}", title_justify="left")
    shown.add_column("what")
    shown.add_column("figure", justify="right")
    for fault, number in sorted(report.faults.items()):
        shown.add_row(fault, f"{number:,}")
    rows = {
        "processes killed": report.kills,
        "calls that returned": report.returned,
        "events stored": report.findings.stored,
        "dropped and counted, by plan": report.findings.dropped,
        "lost with a damaged block": report.findings.damaged,
        "lost": report.findings.lost,
        "duplicated": report.findings.duplicated,
        **report.figures,
    }
    for name, number in rows.items():
        shown.add_row(name, f"{number:,}")
    shown.add_row("everything stored and freed after the last fault", f"{report.heal_s:.1f} s")
    if not report.plan.remote:
        shown.add_row("longest time without a commit of a live experiment", f"{report.stall_s:.1f} s")
    return shown


if __name__ == "__main__":
    sys.exit(main())
