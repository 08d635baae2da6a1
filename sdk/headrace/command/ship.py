"""`headrace ship --dead`: a person's word that programs of other hosts are gone, so that the agent here may end their journals.

A journal that was carried here, or that lies on a shared disk, is shipped like any other, as far as it is whole. But from here
nobody can tell a torn end from one that is still being written or copied, nor a program that died from one that lives there. What
is called lost is not read again, so the agent waits until somebody who knows says so.
"""

from __future__ import annotations

import os
import time
from typing import Annotated, NamedTuple

import typer

from headrace.command.console import out, plain, size, table
from headrace.command.options import HomeOption
from headrace.command.positions import Position, position, sources
from headrace.service.settings import ServiceSettings, load_settings
from headrace_proto.errors import ConfigError
from headrace_proto.home import FILE_MODE, Home
from headrace_proto.journal import machine
from headrace_proto.journal.layout import DEATH_NAME

EXPLAINED = (
    "Say so only if these programs are gone and their journals are wholly here: what is torn or damaged in them then becomes a "
    "lost range of the store, and an experiment whose program did not end by itself is shown as failed. What arrives here "
    "later of such a journal is not shipped."
)


class Foreign(NamedTuple):
    """A journal of another host that nobody has declared dead, and that its writer has not closed."""

    position: Position
    marker: str


def ship(
    dead: Annotated[
        bool, typer.Option("--dead", help="Declare the programs of other hosts, whose journals lie here, gone.")
    ] = False,
    home: HomeOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Let the agent of this home end the journals of other hosts: list them, ask, and mark their writers as gone."""
    if not dead:
        raise ConfigError(
            "`headrace ship` does one thing, with --dead: say that programs of other hosts are gone. Shipping is the agent's: "
            "`headrace up`, or `headrace agent --home ...`"
        )
    where = Home(load_settings(ServiceSettings, "agent", None, home=home).home)
    console = out()
    found = foreign(where)
    if not found:
        console.print(f"no open journal of another host lies in {plain(where.root)}: nothing waits for anybody's word")
        return
    rows = [
        (at.project, at.experiment[:8], at.source[:8], at.host, _day(at.created_ns), size(at.journaled), size(at.lag))
        for at, _ in found
    ]
    columns = ("project", "experiment", "source", "written on", "since", "journaled", "not stored")
    console.print(table(columns, rows, numbers=("journaled", "not stored")))
    console.print(EXPLAINED, soft_wrap=True)
    if not yes and not typer.confirm(f"Are all {len(found)} of them gone?"):
        raise typer.Exit(1)
    for _, marker in found:
        _declare(marker)
    console.print(f"{len(found)} declared dead; the agent of this home ends them within seconds, once it runs")


def foreign(home: Home) -> list[Foreign]:
    """The journals that wait for a person's word, the oldest first."""
    found = []
    for source in sources(home):
        at = position(home, source)
        marker = os.path.join(home.journal(source), DEATH_NAME)
        if not isinstance(at, Position) or at.closed or at.boot_id == machine.boot_id():
            continue
        if at.host != machine.host_name() and not os.path.exists(marker):
            found.append(Foreign(at, marker))
    return sorted(found, key=lambda journal: journal.position.created_ns)


def _declare(marker: str) -> None:
    """The agent looks only for the file; what it holds is for people."""
    flags = os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(marker, flags, FILE_MODE)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(f"{machine.user_name()} on {machine.host_name()}, {_day(time.time_ns())}\n")


def _day(time_ns: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(time_ns / 1e9))
