"""`headrace ls`: the projects of a store, or the experiments of a project."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Final

import numpy as np
import pyarrow as pa
import typer
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from headrace.command.console import PIPE_WIDTH, err, lasted, number, out, plain, print_json, table, when
from headrace.command.find import open_for_reading
from headrace.command.options import HomeOption, JsonOption, StoreOption
from headrace.reading import StoredProject
from headrace.reading.silence import silent_ones
from headrace.service.hiding import load_arrow
from headrace_proto.errors import ChannelNotFound
from headrace_proto.home import Home
from headrace_proto.names import SYSTEM_CHANNELS
from headrace_proto.store.backend import Store
from headrace_proto.store.catalog import CatalogRow, Rows, by_name
from headrace_proto.store.claims import projects
from headrace_proto.store.signs import NOT_RESPONDING

SHOWN: Final = 50
"""Experiments that a table shows unless more are asked for: of 100,000 nobody reads all, and a table of them takes minutes."""
METRICS_MAX: Final = 12
"""Metrics that may get a column of their own; `--json` has all."""


def ls(
    project: Annotated[str | None, typer.Argument(help="workspace/name; without it the projects are listed.")] = None,
    state: Annotated[list[str] | None, typer.Option(help="Only experiments in this state; repeat for several.")] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="Only experiments with this tag; repeat for all of several.")
    ] = None,
    sort: Annotated[str | None, typer.Option(help="Sort by this metric, lowest first; -NAME highest first.")] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            help=f"Show only so many: the newest, or with --sort the first. 0 for all; {SHOWN} in a table.", min=0
        ),
    ] = None,
    store: StoreOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """List projects, or the experiments of one with the last values of their metrics."""
    load_arrow()
    where = open_for_reading(store, Home(home))
    if project is None:
        _projects(where, json=json)
        return
    listed = StoredProject(where, project)
    listed.record  # noqa: B018 - raises ProjectNotFound for a name that the store does not have
    found = listed.rows(state=state or None, tag=tag or None)
    most = (0 if json else SHOWN) if limit is None else limit
    rows = _sorted(found, sort)[: most or None] if sort else found[-most:]
    mute = silent_ones(rows, where)
    if json:
        print_json([{**row.model_dump(mode="json"), "responding": row.experiment not in mute} for row in rows])
    elif not rows:
        out().print(
            f"no such experiments in {plain(project)}" if state or tag else f"no experiments in {plain(project)}"
        )
    else:
        console = out()
        console.print(_experiments(rows, mute, console))
        if len(rows) < len(found):
            err().print(f"not shown, {len(found) - len(rows):,} {'more' if sort else 'older'}: --limit 0 shows all")


def _projects(store: Store, *, json: bool) -> None:
    found: list[dict[str, Any]] = []
    for name in projects(store):
        project = StoredProject(store, name)
        found.append({"name": name, "key": project.key, "experiments": len(project)})
    if json:
        print_json(found)
    elif found:
        cells = ((row["name"], row["key"], row["experiments"]) for row in found)
        out().print(table(("project", "key", "experiments"), cells, numbers=("experiments",)))
    else:
        out().print(f"no projects in {plain(store.url)} yet")


def _sorted(rows: Rows, sort: str) -> Rows:
    """By a metric's last value; experiments without one, and those where it is NaN, come last."""
    name, sign = (sort[1:], -1.0) if sort.startswith("-") else (sort, 1.0)
    known = by_name(rows.listing.table(), "metrics")
    if name not in known:
        if not rows:
            return rows
        raise ChannelNotFound(
            f"--sort={sort!r} names no metric of these experiments; they have {', '.join(sorted(known))}"
        )
    values = known[name].to_numpy(zero_copy_only=False)
    order = pa.array(np.argsort(sign * values, kind="stable"), pa.int64())
    return Rows(rows.listing.of(rows.listing.head.take(order)))


def _experiments(rows: Sequence[CatalogRow], mute: set[str], console: Console) -> Table:
    """As many metrics as fit beside what every experiment has, those that most experiments have first."""
    counts = Counter(name for row in rows for name in row.metrics if not name.startswith(SYSTEM_CHANNELS))
    metrics = sorted(counts, key=lambda name: (-counts[name], name))[:METRICS_MAX]
    while True:
        made = _table(rows, mute, metrics)
        if console.width >= PIPE_WIDTH:  # to measure a table costs half as much as to print it
            return made
        wanted = Measurement.get(console, console.options.update(max_width=PIPE_WIDTH), made).maximum
        if not metrics or wanted <= console.width:
            return made
        metrics.pop()


def _table(rows: Sequence[CatalogRow], mute: set[str], metrics: list[str]) -> Table:
    columns = ("id", "name", "state", "created", "time", *metrics, "tags")
    cells = (
        (
            row.id or row.experiment[:8],
            row.name,
            NOT_RESPONDING if row.experiment in mute else row.state,
            when(row.created_at),
            lasted(row.created_at, row.finished_at),
            *(number(row.metrics[name]) if name in row.metrics else "" for name in metrics),
            ", ".join(row.tags),
        )
        for row in rows
    )
    return table(columns, cells, numbers=("time", *metrics), folded=("name", "tags"))
