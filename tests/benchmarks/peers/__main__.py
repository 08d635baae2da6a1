"""`make bench-peers`: Headrace beside what users would pick instead, in one run.

    python -m tests.benchmarks.peers [--only NAME,...] [--columns COLUMN,...] [--runs N] [--write FOLDER] [--keep FILE]

Needs `.venv-peers` (`make bench-peers` makes it) for every peer but headrace and json-lines. `--keep` keeps the figures, and a
later run with the same file measures only what it is asked for and reports all.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markdown import Markdown

from tests.benchmarks.peers.bench import COLUMNS, Bench, Sizes, takes_part
from tests.benchmarks.peers.process import PEERS_PYTHON
from tests.benchmarks.peers.registry import PEERS, peer_class
from tests.benchmarks.peers.report import reached, report
from tests.benchmarks.peers.results import Results
from tests.benchmarks.rows import number

RUNS: Final = 3
SLOW: Final = ("kill-100", "kill-1")
"""They sleep most of the time: all peers at once."""
MADE_FIRST: Final = {"read": "fill", "find": "populate"}
PREPARING: Final = 2


class Session:
    """One run of the bench: what is asked for, and what comes of it."""

    def __init__(self, bench: Bench, results: Results, names: list[str], columns: list[str], console: Console) -> None:
        self.bench, self.results, self.console = bench, results, console
        self.names: Final = names
        self.columns: Final = columns

    def run(self, runs: int) -> None:
        """Everything, run by run, so that what disturbs the machine for a minute disturbs one run of each."""
        self._prepare()
        for turn in range(runs):
            self.console.rule(f"run {turn + 1} of {runs}")
            for name in self.names:
                for column in self.columns:
                    if column not in SLOW:
                        self._measure(name, column)
            for column in SLOW:
                if column in self.columns:
                    self._together(partial(self._measure, column=column), self.names, len(self.names))

    def _prepare(self) -> None:
        for column, making in MADE_FIRST.items():
            if column in self.columns:
                self.console.print(f"[dim]{making}: what {column} needs[/]")
                wanted = [name for name in self.names if takes_part(name, column)]
                self._together(partial(self._make, column=column), wanted, PREPARING)

    def _make(self, name: str, column: str) -> None:
        self._guarded(name, column, partial(getattr(self.bench, MADE_FIRST[column]), name))

    def _measure(self, name: str, column: str) -> None:
        if takes_part(name, column) and column not in self.results.failures[name]:
            self._guarded(name, column, partial(self._note, name, column))

    def _note(self, name: str, column: str) -> None:
        figures = self.bench.measure(name, column)
        self.results.add(name, column, figures)
        said = ", ".join(f"{key} {number(value)}" for key, value in figures.items())
        self.console.print(f"{name:>15}  {column:<9}  {said}", highlight=False, soft_wrap=True)

    def _guarded(self, name: str, column: str, work: Callable[[], object]) -> None:
        """One peer's failure is a line of the report, not the end of the others."""
        try:
            work()
        except Exception as error:
            self.results.fail(name, column, f"{type(error).__name__}: {error}"[-400:])
            self.console.print(f"[red]{name} {column}[/]", str(error)[-2000:], markup=False, highlight=False)

    def _together(self, work: Callable[[str], None], names: Iterable[str], many: int) -> None:
        with ThreadPoolExecutor(max(1, many)) as pool:
            list(pool.map(work, names))


def main() -> int:
    """Measure, write, and say what was reached; the exit status is 1 when something could not be measured."""
    parser = argparse.ArgumentParser(prog="tests.benchmarks.peers", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", metavar="NAME,...", help=f"of {', '.join(PEERS)}", default=",".join(PEERS))
    parser.add_argument("--columns", metavar="COLUMN,...", help=f"of {', '.join(COLUMNS)}", default=",".join(COLUMNS))
    parser.add_argument("--runs", type=int, default=RUNS, help="medians are of so many")
    parser.add_argument("--scalars", type=int, default=Sizes().scalars, help="calls with one scalar")
    parser.add_argument("--rows", type=int, default=Sizes().rows, help="calls with a dict of 50")
    parser.add_argument("--trials", type=int, default=Sizes().trials, help="runs that are searched")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write RESULTS.md there")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="figures to add to")
    parser.add_argument(
        "--folder", type=Path, help="where to work: on the disk that is to be measured; a temporary one"
    )
    arguments = parser.parse_args()
    names, columns = arguments.only.split(","), arguments.columns.split(",")
    for wrong in (set(names) - set(PEERS)) | (set(columns) - set(COLUMNS)):
        parser.error(f"no {wrong!r}; peers: {', '.join(PEERS)}; columns: {', '.join(COLUMNS)}")
    if not PEERS_PYTHON.exists() and not all(peer_class(name).of_product for name in names):
        parser.error("the peers are not installed: `make bench-peers`")
    console, sizes = Console(width=200), Sizes(arguments.scalars, arguments.rows, arguments.scalars, arguments.trials)
    results = Results.load(arguments.keep) if arguments.keep else Results()
    with tempfile.TemporaryDirectory(prefix="headrace-peers-", dir=arguments.folder) as folder:
        results.begin(names, columns, Path(folder), f"{datetime.now(UTC):%Y-%m-%d}", sizes)
        try:
            Session(Bench(Path(folder), sizes), results, names, columns, console).run(arguments.runs)
        finally:
            if arguments.keep:
                results.save(arguments.keep)
    page = report(results)
    if arguments.write:
        (arguments.write / "RESULTS.md").write_text(page, encoding="utf-8")
    else:
        console.print(Markdown(page))
    for row in reached(results):
        console.print(f"{'met   ' if row.met else 'MISSED'} {row.what}: {row.measured} ({row.wanted})", highlight=False)
    return 1 if any(results.failures.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
