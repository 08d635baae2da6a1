"""`headrace status`: what is journaled, streamed and stored, source by source, and how the parts are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from headrace.command.console import out, plain, print_json, size, table
from headrace.command.options import HomeOption, JsonOption, NatsOption
from headrace.command.positions import Position, Unreadable, positions
from headrace.command.probes import Broker, access, broker, healthz
from headrace.command.running import Running, running
from headrace.service.settings import ServiceSettings, load_settings
from headrace_proto.home import Home
from headrace_proto.journal import lock


def status(
    home: HomeOption = None,
    nats: NatsOption = None,
    config: Annotated[Path | None, typer.Option(help="A settings file.")] = None,
    json: JsonOption = False,
) -> None:
    """Show per source what is journaled, streamed and stored, and how agent, stream and collector are."""
    settings = load_settings(ServiceSettings, "agent", config, home=home, nats=nats)
    where = Home(settings.home)
    there = running(where)
    asked = broker(access(settings, there, chosen=nats is not None))
    parts = _parts(where, there, asked)
    found, unreadable = positions(where)
    if json:
        print_json(_as_data(where, there, parts, asked, found, unreadable))
        return
    console = out()
    _print_parts(console, where, there, parts)
    _print_streams(console, asked)
    _print_sources(console, found, unreadable)


def _parts(home: Home, there: Running | None, asked: Broker) -> dict[str, dict[str, Any]]:
    """Each part: whether it runs, whether it is well, and what it says."""
    parts: dict[str, dict[str, Any]] = {
        "nats-server": {"running": not asked.problem, "ok": not asked.problem, "reasons": [asked.problem or asked.url]}
    }
    holder = lock.holder(home.agent_lock) if os.path.exists(home.agent_lock) else None
    ports = {"agent": there.agent_port, "collector": there.collector_port} if there is not None else {}
    for name in ("agent", "collector"):
        answer = healthz(ports[name]) if name in ports else None
        if answer is not None:
            facts = {key: value for key, value in answer.facts.items() if key not in ("ok", "reasons")}
            parts[name] = {"running": True, "ok": answer.ok, "reasons": answer.facts.get("reasons", []), **facts}
        elif name == "agent" and holder is not None:
            parts[name] = {"running": True, "ok": None, "reasons": [f"process {holder} serves this home"]}
        else:
            parts[name] = {"running": False, "ok": False, "reasons": [_absent(name, there)]}
    return parts


def _absent(name: str, there: Running | None) -> str:
    if there is not None:
        return "it does not answer; `headrace up` starts it again, its log says why it ended"
    if name == "agent":
        return "none serves this home; what is logged waits in the journals: `headrace up` or `headrace agent`"
    return "none is run by `headrace up` here"


def _as_data(
    home: Home,
    there: Running | None,
    parts: dict[str, dict[str, Any]],
    asked: Broker,
    found: list[Position],
    unreadable: list[Unreadable],
) -> dict[str, Any]:
    return {
        "home": home.root,
        "up": there._asdict() if there is not None else None,
        "parts": parts,
        "streams": [stream._asdict() for stream in asked.streams],
        "sources": [{**position._asdict(), "lag": position.lag} for position in found],
        "unreadable": [journal._asdict() for journal in unreadable],
    }


def _print_parts(console: Console, home: Home, there: Running | None, parts: dict[str, dict[str, Any]]) -> None:
    console.print(
        f"[bold]{plain(home.root)}[/]  " + (f"served by process {there.pid}" if there else "no `headrace up` runs")
    )
    for name, part in parts.items():
        state = {True: "[green]ok[/]", False: "[red]not well[/]", None: "runs"}[part["ok"]]
        if not part["running"]:
            state = "[red]not running[/]"
        console.print(f"  {name:12} {state}  {plain('; '.join(part['reasons']))}", soft_wrap=True)


def _print_streams(console: Console, asked: Broker) -> None:
    rows = [
        (stream.name, max(stream.messages, 0), size(stream.bytes), size(stream.bytes_max), stream.problem)
        for stream in asked.streams
    ]
    if rows:
        columns = ("stream", "messages", "holds", "of at most", "")
        console.print(table(columns, rows, numbers=("messages", "holds", "of at most")))


def _print_sources(console: Console, found: list[Position], unreadable: list[Unreadable]) -> None:
    if not found and not unreadable:
        console.print("no journals: nothing waits for the store")
        return
    rows = (
        (
            position.project,
            position.short_id or position.experiment[:8],
            position.source[:8],
            position.role,
            "closed" if position.closed else f"process {position.pid}" if position.alive else "ended",
            size(position.journaled),
            size(position.streamed),
            size(position.stored),
            size(position.lag),
            position.files,
        )
        for position in found
    )
    numbers = ("journaled", "streamed", "stored", "lag", "files")
    console.print(table(("project", "experiment", "source", "role", "writer", *numbers), rows, numbers=numbers))
    for journal in unreadable:
        console.print(f"[red]journal {journal.source} does not open:[/] {plain(journal.reason)}", soft_wrap=True)
