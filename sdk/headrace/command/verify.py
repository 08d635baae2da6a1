"""`headrace verify ID`: proves that all of an experiment is stored, or says what is not."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console

from headrace.command.console import err, out, plain, print_json, size, table, when
from headrace.command.find import find_experiment, open_for_reading
from headrace.command.options import HomeOption, IdArgument, JsonOption, ProjectOption, StoreOption
from headrace_proto.home import Home
from headrace_proto.store.verification import SourceProof, Verification
from headrace_proto.store.verification import verify as verified

_SHOWN = {"complete": "[green]complete[/]", "running": "[yellow]running[/]", "incomplete": "[red]incomplete[/]"}


def verify(
    experiment: IdArgument,
    project: ProjectOption = None,
    store: StoreOption = None,
    home: HomeOption = None,
    fast: Annotated[bool, typer.Option("--fast", help="Look at sizes only: read no bytes, give no digest.")] = False,
    json: JsonOption = False,
) -> None:
    """Prove that an experiment is stored completely: positions of each source, gaps, lost ranges, files, and a digest.

    The exit code is 0 when it is complete, 1 when it still runs or when something is missing.
    """
    where = open_for_reading(store, Home(home))
    found = find_experiment(where, experiment, project)
    with err().status("reading all that is stored") if not fast and not json else err().status("looking"):
        result = verified(where, found.project, found.internal_id, read=not fast)
    if json:
        print_json(_as_data(result))
    else:
        _print(out(), result)
    if result.verdict != "complete":
        raise typer.Exit(1)


def _print(console: Console, result: Verification) -> None:
    console.print(f"[bold]{result.id or result.experiment}[/]  [dim]{plain(result.project)}, commit {result.commit}[/]")
    rows = (
        (
            proof.source[:8],
            proof.record.role,
            "" if proof.record.rank is None else proof.record.rank,
            proof.record.host,
            proof.end if proof.end != "closed" else f"closed, {proof.record.state}",
            f"[0, {proof.stored})",
            size(proof.bytes),
            sum(gap.end - gap.first for gap in proof.lost) or "",
            proof.record.dropped or "",
            when(proof.record.last_seen_at),
        )
        for proof in result.sources
    )
    columns = ("source", "role", "rank", "host", "end", "stored", "bytes", "lost", "dropped", "last seen")
    console.print(table(columns, rows, numbers=("rank", "stored", "bytes", "lost", "dropped")))
    if result.channels:
        shown = ((channel.name, channel.kind, channel.points, channel.digest[:16]) for channel in result.channels)
        console.print(table(("channel", "type", "points", "digest"), shown, numbers=("points",), folded=("channel",)))
    console.print(f"{result.points} points and {result.files} files, {size(result.bytes)}")
    if result.digest:
        console.print(f"digest {result.digest}")
    console.print(f"[bold]{_SHOWN[result.verdict]}[/]{':' if result.reasons else ''}")
    for reason in result.reasons:
        console.print(f"  {plain(reason)}", soft_wrap=True)


def _as_data(result: Verification) -> dict[str, Any]:
    return {
        **result._asdict(),
        "sources": {proof.source: _source(proof) for proof in result.sources},
        "pending": [file.model_dump(mode="json") for file in result.pending],
        "channels": [channel._asdict() for channel in result.channels],
    }


def _source(proof: SourceProof) -> dict[str, Any]:
    record = proof.record
    return {
        "role": record.role,
        "rank": record.rank,
        "label": record.label,
        "host": record.host,
        "pid": record.pid,
        "state": record.state,
        "end": proof.end,
        "stored": [0, proof.stored],
        "bytes": proof.bytes,
        "lost": [gap.model_dump() for gap in proof.lost],
        "dropped": record.dropped,
        "last_seen_at": record.last_seen_at,
    }
