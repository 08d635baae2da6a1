"""Waiting until the store holds what a command has logged, with a bar for each source."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from headrace.command.console import size
from headrace.command.positions import Position, position, sources
from headrace_proto.home import Home

LOOK_S: Final = 0.1


class Logged(NamedTuple):
    """An experiment that was logged to while a command ran."""

    project: str
    experiment: str


class Watch:
    """The sources that have appeared in a home since this was made: of programs, and the agent's own of the same experiments.

    Look often: the agent deletes a journal as soon as all of it is stored, and that is how its source is seen to be done.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._before = frozenset(sources(home))
        self._goals: dict[str, int] | None = None
        self.last: dict[str, Position] = {}
        """The newest position of each."""
        self.gone: set[str] = set()
        """Those whose journals are deleted."""

    def look(self) -> None:
        """See which are there, and how far each is."""
        new = set(sources(self._home)) - self._before if self._goals is None else set()
        for source in (new | self.last.keys()) - self.gone:
            now = position(self._home, source)
            if now is None and source in self.last:
                self.gone.add(source)
            elif isinstance(now, Position):
                self.last[source] = now

    def command_ended(self) -> None:
        """From now on nothing new is looked for. A program that still lives (another's, or one left in the background) is waited
        for only up to where it is now."""
        self.look()
        here = {source: now for source, now in self.last.items() if source not in self.gone}
        live = {now.experiment for now in here.values() if now.alive and now.of_program}
        self._goals = {source: now.journaled for source, now in here.items() if now.experiment in live}

    @property
    def waiting(self) -> list[str]:
        """The sources that the store does not hold all of yet, as far as it is known."""
        goals = self._goals or {}
        return [
            source
            for source, now in self.last.items()
            if source not in self.gone and (source not in goals or now.stored < goals[source])
        ]

    @property
    def experiments(self) -> list[Logged]:
        """What programs have logged to, in the order of the first event."""
        by_age = sorted(self.last.values(), key=lambda now: now.created_ns)
        return list(dict.fromkeys(Logged(now.project, now.experiment) for now in by_age if now.of_program))

    @property
    def live(self) -> list[Logged]:
        """Those that a program is logging to."""
        logging = {Logged(now.project, now.experiment) for now in self.last.values() if now.of_owner and not now.closed}
        return [logged for logged in self.experiments if logged in logging]

    @property
    def ended(self) -> list[Logged]:
        """Those that no program is logging to any more."""
        live = set(self.live)
        return [logged for logged in self.experiments if logged not in live]

    def stored(self, source: str) -> int:
        """How much of a source the store holds."""
        now = self.last[source]
        return now.journaled if source in self.gone else min(now.stored, now.journaled)


def drain(watch: Watch, console: Console, *, patience_s: float, hopeless: Callable[[], bool]) -> bool:
    """Wait until all is stored. False when nothing more was stored for `patience_s`, or when `hopeless()`."""
    watch.command_ended()
    with _display(console) as display:
        bars: dict[str, TaskID] = {}
        progress_s, reached = time.monotonic(), _reached(watch)
        while watch.waiting:
            _show(display, bars, watch)
            time.sleep(LOOK_S)
            watch.look()
            if _reached(watch) != reached:
                progress_s, reached = time.monotonic(), _reached(watch)
            elif time.monotonic() - progress_s > patience_s or hopeless():
                return False
        _show(display, bars, watch)
    return True


def _reached(watch: Watch) -> tuple[int, int, int]:
    """A value that changes whenever the store has come further."""
    files = sum(now.files for now in watch.last.values())
    return sum(watch.stored(source) for source in watch.last), files, len(watch.gone)


def _show(display: Progress, bars: dict[str, TaskID], watch: Watch) -> None:
    for source, now in watch.last.items():
        if source not in bars:
            bars[source] = display.add_task("", total=None, source=source[:8], role="", files=0)
        display.update(
            bars[source],
            total=max(now.journaled, 1),
            completed=watch.stored(source),
            description=now.short_id or now.experiment[:8],
            role=now.role,
            files=0 if source in watch.gone else now.files,
        )


class _Stored(ProgressColumn):
    """'1.2 MiB of 3.4 MiB stored, 2 files to go'."""

    def render(self, task: Task) -> Text:
        files = task.fields["files"]
        rest = f", {files} file{'s' if files > 1 else ''} to go" if files else ""
        return Text(f"{size(task.completed)} of {size(task.total or 0)} stored{rest}")


def _display(console: Console) -> Progress:
    columns = (
        TextColumn("[bold]{task.description}[/] {task.fields[role]} {task.fields[source]}"),
        BarColumn(),
        _Stored(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, transient=False, disable=not console.is_terminal)
