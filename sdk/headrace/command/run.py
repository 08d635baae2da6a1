"""`headrace run -- COMMAND`: run a program with everything it needs to log around it, and see its events into the store.

The program starts at once: logging needs no other process. If an `up` serves the home it ships the events; else one of our own is
started beside the program and stopped after the drain.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Self

import typer
from rich.console import Console

from headrace.capture import CAPTURE_VARIABLE
from headrace.command import signals
from headrace.command.console import err, plain
from headrace.command.drain import Logged, Watch, drain
from headrace.command.output import Output
from headrace.command.running import log_file, running
from headrace.command.settings import UpSettings
from headrace.command.stores import absolute_store
from headrace.service.settings import load_settings
from headrace_proto.errors import ConfigError, HeadraceError
from headrace_proto.home import HOME_VARIABLE, STORE_VARIABLE, Home


class Capture(StrEnum):
    """Who keeps what a program prints."""

    PYTHON = "python"
    FD = "fd"


CONTEXT: Final = {"allow_interspersed_args": False, "ignore_unknown_options": True}
"""All that follows the program's name is the program's."""
NOT_FOUND: Final = 127
NOT_EXECUTABLE: Final = 126
_LOOK_S: Final = 0.2
_UP_STOP_S: Final = 90.0
_FORWARDED: Final = frozenset(
    {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
)
_TAKEN: Final = _FORWARDED | {signal.SIGCHLD}


def run(
    command: Annotated[list[str], typer.Argument(metavar="COMMAND...", help="The program and its arguments.")],
    home: Annotated[Path | None, typer.Option(help="The folder of the journals.")] = None,
    store: Annotated[str | None, typer.Option(help="Where experiments are kept: a folder, s3://..., gs://...")] = None,
    capture: Annotated[
        Capture,
        typer.Option(help="Who keeps the output: the program's Python, or we, fd: of C code and children, too."),
    ] = Capture.PYTHON,
    patience: Annotated[float, typer.Option(help="Give up when nothing more was stored for so many seconds.")] = 60.0,
    config: Annotated[Path | None, typer.Option(help=r"A settings file; tables \[up], \[agent], \[collector].")] = None,
) -> None:
    """Run a program, see what it logs into the store, and end with the program's exit code."""
    settings = load_settings(UpSettings, "up", config, home=home, store=store)
    served = Home(settings.home)
    served.make()
    if config is not None:
        os.environ["HEADRACE_CONFIG"] = str(config.resolve())
    console = err()
    signals.block(_TAKEN)
    with _Parts(served, absolute_store(settings.store), given=store is not None) as parts:
        watch = Watch(served)
        code = _run(command, watch, parts, console, Output(served) if capture is Capture.FD else None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _TAKEN)
        whole = _drain(watch, parts, console, patience)
    if not whole:
        console.print(
            "[yellow]not everything is in the store yet; nothing is lost: the journals keep it, and the next "
            "`headrace up` stores it.[/] `headrace doctor` looks for the reason; the logs are in "
            f"{plain(os.path.dirname(log_file(served, 'up')))}",
            soft_wrap=True,
        )
    _tell(watch.experiments, parts.store, console)
    raise typer.Exit(code)


def _run(command: list[str], watch: Watch, parts: _Parts, console: Console, output: Output | None) -> int:
    """The program's exit code, 128 + n when signal n ended it. That nothing ships is told while there is time to mend it."""
    try:
        child = subprocess.Popen(
            command,
            env={
                **os.environ,
                HOME_VARIABLE: parts.home.named,
                STORE_VARIABLE: parts.store,
                **({CAPTURE_VARIABLE: Capture.FD.value} if output else {}),
            },
            stdout=output.child_ends[0] if output else None,
            stderr=output.child_ends[1] if output else None,
            preexec_fn=signals.in_child(ends_with_parent=False),  # noqa: PLW1509 - this process has one thread
        )
    except OSError as error:
        print(f"headrace run: {command[0]}: {error.strerror}", file=sys.stderr)
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
    if output:
        output.start()
    while child.poll() is None:
        arrived = signals.take(_TAKEN, _LOOK_S)
        # a key on the terminal (Ctrl-C) has reached the program already
        if arrived is not None and arrived.si_signo in _FORWARDED and arrived.si_code != signals.SI_KERNEL:
            child.send_signal(arrived.si_signo)
        watch.look()
        if output:
            output.keep_in(watch.live, watch.ended)
        parts.tell_once_if_failed(console)
    if output:
        watch.look()
        output.keep_in(watch.live, watch.ended)
        output.finish()
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


class _Parts:
    """The `headrace up` that ships: one that is there already, or our own for the time."""

    def __init__(self, home: Home, store: str, *, given: bool) -> None:
        self.home: Final = home
        self._told = False
        self._own: subprocess.Popen[bytes] | None = None
        there = running(home)
        if there is not None and given and there.store != store:
            raise ConfigError(
                f"--store is {store!r}, but the `headrace up` of {home.root} (process {there.pid}) stores in "
                f"{there.store!r}: leave --store out, or use another --home"
            )
        self.store = there.store if there is not None else store
        self._needed = there is None

    def __enter__(self) -> Self:
        if self._needed:
            with open(log_file(self.home, "up"), "ab") as log:
                self._own = subprocess.Popen(
                    [sys.executable, "-m", "headrace.command", "up", "--home", self.home.named, "--store", self.store],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # a Ctrl-C is for the program; this one is stopped after the drain
                    preexec_fn=signals.in_child(ends_with_parent=True),  # noqa: PLW1509 - this process has one thread
                )
        return self

    def __exit__(self, *_: object) -> None:
        if self._own is not None:
            self._own.terminate()
            with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
                self._own.wait(_UP_STOP_S)
            if self._own.poll() is None:
                self._own.kill()
                self._own.wait()

    def failed(self) -> bool:
        """Whether nothing ships: our own `up` has ended, and no other serves the home."""
        return self._own is not None and self._own.poll() is not None and running(self.home) is None

    def tell_once_if_failed(self, console: Console) -> None:
        """Say why nothing ships, the first time that nothing does."""
        if not self._told and self.failed():
            self._told = True
            console.print(f"[red]nothing ships the events:[/] {plain(self._why())}", soft_wrap=True)

    def _why(self) -> str:
        """The last line of what our own `up` said."""
        with open(log_file(self.home, "up"), encoding="utf-8", errors="replace") as log:
            return (log.read().strip().splitlines() or ["it said nothing"])[-1]


def _drain(watch: Watch, parts: _Parts, console: Console, patience_s: float) -> bool:
    try:
        whole = drain(watch, console, patience_s=patience_s, hopeless=parts.failed)
    except KeyboardInterrupt:
        console.print("[yellow]not waiting any longer[/]")
        return False
    if not whole:
        parts.tell_once_if_failed(console)
    return whole


def _tell(logged: list[Logged], store: str, console: Console) -> None:
    for experiment in logged:
        console.print(_line(experiment, store), soft_wrap=True)


def _line(logged: Logged, store: str) -> str:
    from headrace.reading import StoredExperiment
    from headrace_proto.store.backend import open_store

    try:
        found = StoredExperiment(open_store(store, writable=False), logged.project, logged.experiment)
    except (HeadraceError, OSError):
        return f"{logged.project} {logged.experiment}: not in {plain(store)} yet"
    return f"[bold]{found.id}[/] {plain(found.name)}  {found.state}  {logged.project}  {plain(found.url)}"
