"""`headrace import neptune PATH`: what neptune-exporter has saved becomes experiments of a store."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from fnmatch import fnmatch
from types import TracebackType
from typing import Annotated, Final, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from headrace.command.console import err, out, plain, print_json
from headrace.command.options import HomeOption, JsonOption, StoreOption
from headrace.command.running import running
from headrace.moving.arrival import Arrived, Fate, import_run, project_of
from headrace.moving.export import Export, Run
from headrace.moving.meaning import is_neptune_id
from headrace.secrets import HIDDEN
from headrace_proto.errors import ConfigError, Corrupt, InvalidValue
from headrace_proto.home import STORE_VARIABLE, Home, store_url
from headrace_proto.names import project_name
from headrace_proto.store.backend import Store, open_store
from headrace_proto.store.catalog import CatalogRow, append_rows, read_rows

AT_ONCE: Final = 4
"""Runs imported at the same time: compressing and syncing leave Python's lock to each other."""
ROWS_A_DELTA: Final = 500
"""Runs that become visible in lists at once."""
TELL_S: Final = 10.0
"""Between lines of progress where there is no terminal."""

import_ = typer.Typer(help="Take over what another tracker has exported.", no_args_is_help=True)


@import_.callback()
def _import() -> None:
    """Take over what another tracker has exported."""


@import_.command()
def neptune(
    path: Annotated[str, typer.Argument(help="The export: a folder with data/ and files/ in it, or the data folder.")],
    files: Annotated[
        str | None, typer.Option(help="The folder of downloaded files; else files/ beside the data.")
    ] = None,
    into: Annotated[str | None, typer.Option(help="A project of another name, workspace/name, for all runs.")] = None,
    project: Annotated[str | None, typer.Option(help="Only this Neptune project; may have * and ?.")] = None,
    run: Annotated[str | None, typer.Option(help="Only runs with this id; may have * and ?.")] = None,
    store: StoreOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Import what neptune-exporter has saved (Parquet and files, of Neptune 2 and 3).

    It may be run again at any time, also after it was killed: what is stored is not stored twice. The exit code is 0 when all
    is in the store, 1 when something was left out, which is then said, 2 when it could not begin.

    \b
    run id                      the key; sys/id (SAN-7) the id, if it is free
    sys/name, owner, tags ...   name, owner, tags, description, times, state
    parameters/X, properties/X  parameter X, property X
    other single values         parameters under their whole path
    float_series                numeric channel, fractions of steps and all
    string_series               text channel
    histogram_series            text channel of JSON
    file, file_set, artifact    artifact; below source_code/ a source file
    file_series                 channel of images, or artifacts PATH/STEP.EXT

    What looks like a secret is masked. Types that are not known are counted, told and left out.
    """
    export = Export(path, files)
    place = project_name(into) if into is not None else None
    runs = [one for one in export.runs if fnmatch(one.project_id, project or "*") and fnmatch(one.run_id, run or "*")]
    if not runs and not export.unfinished:
        raise InvalidValue(
            f"there are no runs of neptune-exporter in {export.data!r}: name the folder that it wrote to"
        )
    _refuse_mixture(runs, place)
    opened = _store_for_writing(store, Home(home))
    told = _Told(err(), opened)
    try:
        with _Display(err(), runs) as display:
            for one, arrived in _imported(opened, export, runs, place, display.show):
                told.add(one, arrived)
                display.done(one)
    except KeyboardInterrupt:
        told.say("not all of it is imported: run it again, and it goes on from there", problem=False)
        raise
    finally:
        told.finish()
    for unfinished in export.unfinished:
        told.say(f"{unfinished.path} was left out: {unfinished.reason}", problem=True)
    if json:
        print_json({"store": opened.url, "runs": told.counts, "left_out": told.left_out, "problems": told.problems})
    else:
        _sum_up(out(), opened, told)
    if told.problems or told.left_out:
        raise typer.Exit(1)


def _refuse_mixture(runs: list[Run], into: str | None) -> None:
    """Two projects may have runs of one id: in one project they would be one experiment."""
    owners: dict[tuple[str, str], str] = {}
    for one in runs:
        place = into or project_of(one.project_id)
        other = owners.setdefault((place, one.run_id), one.project_id)
        if other != one.project_id:
            raise ConfigError(
                f"{other} and {one.project_id} both have a run {one.run_id!r}, which would be one experiment of {place}: import "
                "one project at a time (--project), each --into another"
            )


def _store_for_writing(store: str | None, home: Home) -> Store:
    if not (store or os.environ.get(STORE_VARIABLE)) and (there := running(home)) is not None:
        store = there.store
    return open_store(store_url(store, home))


def _imported(
    store: Store, export: Export, runs: list[Run], into: str | None, show: Callable[[Run, int], None]
) -> Iterator[tuple[Run, Arrived | Corrupt]]:
    """Import runs, several at once, in no order. One of each project goes ahead, if there is one with an id of Neptune's: it gives
    the project its key."""

    def take(one: Run) -> Arrived | Corrupt:
        try:
            return import_run(store, export, one, into, lambda rows: show(one, rows))
        except Corrupt as error:
            return error

    ahead: dict[str, Run] = {}
    for one in sorted(runs, key=lambda one: not is_neptune_id(one.run_id)):
        ahead.setdefault(into or project_of(one.project_id), one)
    for one in ahead.values():
        yield one, take(one)
    rest = [one for one in runs if ahead[into or project_of(one.project_id)] is not one]
    with ThreadPoolExecutor(AT_ONCE, "headrace-import") as pool:
        began = {pool.submit(take, one): one for one in rest}
        try:
            for future in as_completed(began):
                yield began[future], future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class _Told:
    """What became of the runs: counted, shown in lists, and said where it is not as it should be."""

    def __init__(self, console: Console, store: Store) -> None:
        self._console: Final = console
        self._store: Final = store
        self._rows: Final[dict[str, list[CatalogRow]]] = {}
        self.counts: Final[Counter[str]] = Counter()
        self.left_out: Final[Counter[str]] = Counter()
        self.problems: Final[list[str]] = []
        self.masked = 0
        self.projects: Final[set[str]] = set()

    def add(self, one: Run, arrived: Arrived | Corrupt) -> None:
        """A run has been looked at."""
        if isinstance(arrived, Corrupt):
            self.counts["damaged"] += 1
            self.say(f"{one.project_id} {one.run_id}: {arrived}", problem=True)
            return
        self.counts[arrived.fate] += 1
        self.left_out.update(arrived.left_out)
        self.masked += arrived.masked
        if arrived.says:
            problem = arrived.fate in (Fate.CHANGED, Fate.TAKEN)
            self.say(f"{one.project_id} {one.run_id}: {arrived.says}", problem=problem)
        if arrived.row is not None:
            self.projects.add(arrived.project)
            rows = self._rows.setdefault(arrived.project, [])
            rows.append(arrived.row)
            if len(rows) >= ROWS_A_DELTA:
                self._list(arrived.project)

    def finish(self) -> None:
        """Show the last ones in lists, too."""
        for project in list(self._rows):
            self._list(project)

    def say(self, message: str, *, problem: bool) -> None:
        """Tell people something about a run."""
        self._console.print(f"{'[red]left out[/] ' if problem else ''}{plain(message)}", soft_wrap=True)
        if problem:
            self.problems.append(message)

    def _list(self, project: str) -> None:
        shown = {row.experiment: row.commit for row in read_rows(self._store, project)}
        rows = [row for row in self._rows.pop(project) if shown.get(row.experiment) != row.commit]
        if rows:
            append_rows(self._store, project, rows)


class _Display:
    """A bar of all rows on a terminal; a line now and then elsewhere."""

    def __init__(self, console: Console, runs: list[Run]) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("rows"),
            TimeElapsedColumn(),
        )
        self._console: Final = console
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task(f"0 of {len(runs):,} runs", total=sum(one.rows for one in runs))
        self._runs: Final = len(runs)
        self._done = 0
        self._shown: Final[Counter[Run]] = Counter()
        self._told_s = time.monotonic()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, one: Run, rows: int) -> None:
        """So many rows more of a run are stored. Called by the threads that store them, each for its own runs."""
        self._shown[one] += rows
        self._progress.update(self._task, advance=rows)
        self._tell()

    def done(self, one: Run) -> None:
        """A run is done: what was not shown of it are rows of another kind, or were there before."""
        self._done += 1
        left = one.rows - self._shown.pop(one, 0)
        self._progress.update(self._task, advance=left, description=f"{self._done:,} of {self._runs:,} runs")
        self._tell()

    def _tell(self) -> None:
        if not self._console.is_terminal and time.monotonic() - self._told_s > TELL_S:
            self._told_s = time.monotonic()
            rows = self._progress.tasks[self._task]
            self._console.print(
                f"{self._done:,} of {self._runs:,} runs, {rows.completed:,.0f} of {rows.total or 0:,.0f} rows",
                soft_wrap=True,
            )


def _sum_up(console: Console, store: Store, told: _Told) -> None:
    counted = ", ".join(f"{count:,} {what}" for what, count in told.counts.items()) or "no runs"
    console.print(f"{plain(store.url)}: {counted}", soft_wrap=True)
    for what, count in told.left_out.items():
        console.print(f"  [yellow]left out[/] {count:,} {plain(what)}", soft_wrap=True)
    if told.masked:
        console.print(f"  {told.masked:,} values that look like secrets are kept as {plain(HIDDEN)} (HEADRACE_SECRETS)")
    for project in sorted(told.projects):
        console.print(f"  headrace ls {plain(project)}")
