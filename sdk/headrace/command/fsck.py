"""`headrace fsck`: holds everything in a store against everything else, and mends what can be written anew."""

from __future__ import annotations

import time
from collections import Counter
from types import TracebackType
from typing import Annotated, Final, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from headrace.command.console import err, out, plain, print_json
from headrace.command.find import open_for_reading
from headrace.command.options import HomeOption, JsonOption, StoreOption
from headrace_proto.errors import UnknownStore
from headrace_proto.home import Home
from headrace_proto.limits import SWEEP_GRACE_S
from headrace_proto.store.backend import open_store
from headrace_proto.store.inspection import Depth, Finding, Options, Severity, inspect

THREADS_REMOTE: Final = 16
"""Experiments looked at at once where every look is a round trip."""

_SHOWN = {Severity.ERROR: "[red]error  [/]", Severity.WARNING: "[yellow]warning[/]", Severity.NOTE: "note   "}


def fsck(
    named: Annotated[str | None, typer.Argument(metavar="STORE", help="The store, as with --store.")] = None,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Write catalog and experiment.json anew from commits, remove old leftovers."),
    ] = False,
    digests: Annotated[bool, typer.Option("--digests", help="Read every file, and compare its digest.")] = False,
    fast: Annotated[bool, typer.Option("--fast", help="Newest commits, presence and sizes only.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Experiments at once; 1 for a folder, else 16.")] = None,
    grace_s: Annotated[
        float, typer.Option("--grace", "--grace-s", min=0.0, help="Seconds that a leftover rests before it is removed.")
    ] = SWEEP_GRACE_S,
    store: StoreOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Check a store: commits, parts, files, watermarks, claims, catalog, leftovers. Safe while it is written to.

    The exit code is 0 when it is as it should be (or was mended), 1 when something is damaged, 2 when there is no store.
    """
    if digests and fast:
        raise typer.BadParameter("--digests reads everything and --fast nothing: give one of them")
    if named and store and named != store:
        raise typer.BadParameter(f"{named!r} and --store {store!r} are two stores: give one of them")
    where = open_for_reading(named or store, Home(home))
    if not where.names(""):
        raise UnknownStore(f"there is no store at {where.url!r}: name the one that collectors write to")
    options = Options(
        depth=Depth.DIGESTS if digests else Depth.FAST if fast else Depth.USUAL,
        repair=repair,
        threads=threads or (1 if where.local else THREADS_REMOTE),
        grace_s=grace_s,
        now_ns=time.time_ns(),
    )
    console, told = out(), _Told()
    with _Display() as display:
        for finding in inspect(open_store(where.url) if repair else where, options, display.show):
            told.add(finding, keep=json)
            if not json:
                _print(console, finding)
    if json:
        print_json({"store": where.url, "findings": [finding._asdict() for finding in told.kept], **told.counts()})
    else:
        console.print(f"{plain(where.url)}: {', '.join(f'{count} {what}' for what, count in told.counts().items())}")
    if told.damaged:
        raise typer.Exit(1)


class _Told:
    """What was found so far: counted, and kept only where it has to be."""

    def __init__(self) -> None:
        self.kept: list[Finding] = []
        self.damaged = 0
        self._counts: Counter[str] = Counter()

    def add(self, finding: Finding, *, keep: bool) -> None:
        self.damaged += finding.is_damage
        self._counts["mended" if finding.mended else f"{finding.severity}s"] += 1
        if keep:
            self.kept.append(finding)

    def counts(self) -> dict[str, int]:
        return {what: self._counts[what] for what in ("errors", "warnings", "notes", "mended")}


class _Display:
    """A bar for each project, on a terminal."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        console = err()
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, project: str, done: int, total: int) -> None:
        if project not in self._tasks:
            self._tasks[project] = self._progress.add_task(plain(project), total=total)
        self._progress.update(self._tasks[project], completed=done)


def _print(console: Console, finding: Finding) -> None:
    shown = "[green]mended [/]" if finding.mended else _SHOWN[finding.severity]
    console.print(f"{shown}  [bold]{plain(finding.path)}[/]", soft_wrap=True)
    console.print(f"{'':9}{plain(finding.says)}", soft_wrap=True)
    if finding.remedy and not finding.mended:
        console.print(f"{'':9}→ {plain(finding.remedy)}", soft_wrap=True)
