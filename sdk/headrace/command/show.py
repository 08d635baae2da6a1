"""`headrace show ID`: one experiment, as the store has it."""

from __future__ import annotations

from typing import Final

from rich.console import Console

from headrace.command.console import lasted, number, out, plain, print_json, size, table, when
from headrace.command.find import find_experiment, open_for_reading
from headrace.command.options import HomeOption, IdArgument, JsonOption, ProjectOption, StoreOption
from headrace.reading import StoredExperiment
from headrace_proto.events import Role
from headrace_proto.home import Home
from headrace_proto.store.commits import CURATION_SOURCE
from headrace_proto.store.documents import ExperimentDocument
from headrace_proto.store.signs import NOT_RESPONDING

TEXT_SHOWN: Final = 60


def show(
    experiment: IdArgument,
    project: ProjectOption = None,
    store: StoreOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Show an experiment: parameters, properties, channels, files, sources, and what is missing."""
    found = find_experiment(open_for_reading(store, Home(home)), experiment, project)
    found.refresh()
    if json:
        print_json({**found.record.model_dump(mode="json"), "url": found.url})
        return
    console = out()
    _head(console, found)
    _pairs(console, "parameters", {name: number(value) for name, value in found.params.items()})
    _pairs(console, "properties", found.properties)
    _channels(console, found)
    _files(console, found.record)
    _sources(console, found.record)
    _missing(console, found.record)


def _head(console: Console, found: StoredExperiment) -> None:
    record = found.record
    shown = found.state if found.responding else f"{NOT_RESPONDING} ({found.state})"
    state = found.state if found.finished_at else f"{shown}, last event {when(found.row.seen_at)}"
    lines = {
        "state": state,
        "because": _why(record),
        "created": f"{when(found.created_at)}  ({lasted(found.created_at, found.finished_at)})",
        "owner": f"{record.owner}@{record.hostname}" if record.hostname else record.owner,
        "tags": ", ".join(found.tags),
        "entry point": record.entrypoint,
        "git": " ".join(str(record.git.get(key, "")) for key in ("branch", "commit")).strip(),
        "description": record.description,
        "files": found.url,
        "internal id": found.internal_id,
    }
    console.print(f"[bold]{found.id or found.internal_id}[/]  {plain(found.name)}  [dim]{found.project}[/]")
    for name, value in lines.items():
        if value:
            console.print(f"  [dim]{name:12}[/]{plain(value)}", soft_wrap=True)


def _why(record: ExperimentDocument) -> str:
    """Why it failed, in a line, the whole traceback stands at the end; or who ended it."""
    if record.state == "aborted":
        ends = [source for source in record.sources.values() if source.state == "aborted" and source.detail]
        return "; ".join(dict.fromkeys((source.detail or "").strip().splitlines()[-1] for source in ends))
    if record.state != "failed":
        return ""
    if record.traceback:
        return record.traceback.strip().splitlines()[-1]
    dead = [
        f"process {source.pid or 'unknown'} on {source.host or 'an unknown host'} ({source.role}) ended without a word: "
        f"killed, out of memory, or lost with its host; last heard {when(source.last_seen_at)}"
        for source in record.sources.values()
        if source.state == "dead" and source.role in (Role.OWNER, Role.RANK)
    ]
    return "; ".join(dead)


def _pairs(console: Console, title: str, pairs: dict[str, str]) -> None:
    if pairs:
        console.print(f"\n[bold]{title}[/]")
        for name, value in sorted(pairs.items()):
            console.print(f"  {plain(name)} = {plain(value)}", soft_wrap=True)


def _channels(console: Console, found: StoredExperiment) -> None:
    rows = []
    for channel in found.channels:
        value = channel.y if channel.y is None or isinstance(channel.y, float) else str(channel.y).strip()
        shown = number(value) if value is not None else ""
        cut = shown if len(shown) <= TEXT_SHOWN else f"{shown[: TEXT_SHOWN - 1]}…"
        rows.append((channel.name, channel.type, channel.points, number(channel.x), cut.replace("\n", "⏎")))
    if rows:
        columns = ("channel", "type", "points", "last step", "last value")
        console.print(table(columns, rows, numbers=("points", "last step")))


def _files(console: Console, record: ExperimentDocument) -> None:
    files = [(path, "artifact", file) for path, file in record.artifacts.items()]
    files += [(path, "source", file) for path, file in record.source_files.items()]
    if files:
        rows = ((path, kind, size(file.size), file.state, file.sha256[:12]) for path, kind, file in files)
        console.print(table(("file", "kind", "size", "state", "sha256"), rows, numbers=("size",)))
    for kind, count in record.elsewhere.items():
        console.print(f"  and {count} {kind} more, listed in the side file")


def _sources(console: Console, record: ExperimentDocument) -> None:
    rows = (
        (
            name[:8],
            *(("edits", "") if name == CURATION_SOURCE else (source.role, source.state)),
            source.host,
            source.pid or "",
            when(source.last_seen_at),
            source.dropped,
        )
        for name, source in record.sources.items()
    )
    columns = ("source", "role", "state", "host", "process", "last seen", "dropped")
    console.print(table(columns, rows, numbers=("process", "dropped")))


def _missing(console: Console, record: ExperimentDocument) -> None:
    """Nothing is missing silently."""
    for reason, count in record.notes.gaps.items():
        console.print(f"[yellow]{count} events were dropped before they were journaled: {plain(reason)}[/]")
    for name, source in record.sources.items():
        for lost in source.lost:
            console.print(f"[red]{lost.end - lost.first} bytes of {name[:8]} are lost: {plain(lost.reason)}[/]")
    for reason, count in record.notes.refused.items():
        console.print(f"[yellow]{count} events are in quarantine: {plain(reason)}[/]")
    if record.traceback:
        console.print(f"\n[bold red]it failed with[/]\n{plain(record.traceback.rstrip())}", soft_wrap=True)
