"""`make bench`: every figure that the project quotes, measured in one run.

    python -m tests.benchmarks [NAME ...] [--write FOLDER]

NAME picks benchmarks (`--help` names them); `--write` keeps the table as Markdown and JSON.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from tests.benchmarks.rows import Row, as_json, as_markdown, machine_line, show

BENCHMARKS = (
    "sdk",
    "agent",
    "collector",
    "path",
    "node",
    "recovery",
    "files",
    "store",
    "size",
    "reading",
    "growth",
    "load",
    "import",
)


def main() -> int:
    """Run the benchmarks that were asked for; the exit status says only whether they ran."""
    parser = argparse.ArgumentParser(prog="tests.benchmarks", description="Measure what the README quotes.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; all without one")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="keep the table as RESULTS.md and results.json")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    console = Console()
    console.print(machine_line())
    every: list[Row] = []
    for name in arguments.names or BENCHMARKS:
        bench = importlib.import_module(f"tests.benchmarks.bench_{name}")
        rows = bench.run()
        show(name, rows, console)
        every += rows
        if arguments.write and hasattr(bench, "plot"):
            bench.plot(arguments.write)
    if arguments.write:
        heading = f"Measured on {datetime.now(UTC):%Y-%m-%d} with `make bench`, on {machine_line()}.\n\n"
        (arguments.write / "RESULTS.md").write_text("# Figures\n\n" + heading + as_markdown(every), encoding="utf-8")
        (arguments.write / "results.json").write_text(as_json(every), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
