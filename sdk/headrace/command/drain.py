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
    """The sources that appeared in a home since `since_ns`. Look often: an agent deletes the journals that are stored."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._before = frozenset(sources(home))
        self._others: set[str] = set()
        self.last: dict[str, Position] = {}
        """The newest position of each."""
        self.gone: set[str] = set()
        """Those whose journals the agent has deleted: all of it is stored."""

    def look(self) -> None:
        """See which are there, and how far each is."""
        for source in {*sources(self._home), *self.last} - self._before - self._others - self.gone:
            now = position(self._home, source)
            if now is None and source in self.last:
                self.gone.add(source)
            elif isinstance(now, Position) and now.of_program:
                self.last[source] = now
            elif isinstance(now, Position):
                self._others.add(source)

    @property
    def waiting(self) -> list[Position]:
        """The sources that the store does not hold all of yet."""
        return [now for source, now in self.last.items() if source not in self.gone and not now.done]

    @property
    def experiments(self) -> list[Logged]:
        """What was logged to, in the order of the first event."""
        by_age = sorted(self.last.values(), key=lambda now: now.created_ns)
        return list(dict.fromkeys(Logged(now.project, now.experiment) for now in by_age))

    def stored(self, source: str) -> int:
        """How much of a source the store holds."""
        now = self.last[source]
        return now.journaled if source in self.gone else min(now.stored, now.journaled)


def drain(watch: Watch, console: Console, *, patience_s: float, hopeless: Callable[[], bool]) -> bool:
    """Wait until all is stored. False when nothing more was stored for `patience_s`, or when `hopeless()`."""
    watch.look()
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
    files = sum(now.files for now in watch.waiting)
    return sum(watch.stored(source) for source in watch.last), files, len(watch.gone)


def _show(display: Progress, bars: dict[str, TaskID], watch: Watch) -> None:
    for source, now in watch.last.items():
        if source not in bars:
            bars[source] = display.add_task("", total=None, source=source[:8], files=0)
        display.update(
            bars[source],
            total=max(now.journaled, 1),
            completed=watch.stored(source),
            description=now.short_id or now.experiment[:8],
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
        TextColumn("[bold]{task.description}[/] {task.fields[source]}"),
        BarColumn(),
        _Stored(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, transient=False, disable=not console.is_terminal)
