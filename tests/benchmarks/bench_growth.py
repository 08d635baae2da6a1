"""How the cost of an event grows: with what its experiment holds, with how many experiments are live, with how many there are.

Everything is CPU time of this process, of what a collector's store side does: commits, compaction, catalog. The files lie in
memory, because a disk's own time says nothing about growth. `--write` adds growth.svg.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from headrace_proto.ids import random_id
from headrace_proto.store.backend import open_store
from headrace_proto.store.catalog import DELTAS_MAX, Catalog, CatalogRow, row_of
from tests.benchmarks.rows import Row
from tests.benchmarks.series import Series

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from headrace_proto.store.backend import Store

CHANNELS, COMMIT_STEPS = 10, 100
COMMIT_EVENTS: Final = CHANNELS * COMMIT_STEPS
"""Points of a commit: a second of an experiment that logs a thousand."""
EVENTS_MAX: Final = 3_200_000
"""Compaction rewrites a point once from 64 commits on and twice from 2,145 on: this is past both."""
SLOPE_FROM: Final = 1e4
"""Before that the first commits of a process cost more, and would make the slope look better than it is."""
LIVE: Final = (1, 100, 1_000)
LISTED: Final = (1_000, 10_000, 100_000)
TICKS: Final = 2 * DELTAS_MAX
"""Appends to the catalog in a measured stretch: two folds."""


class Curve(NamedTuple):
    """CPU time by size: one panel of the plot."""

    title: str
    x: str
    y: str
    points: list[tuple[float, float]]
    beyond: Sequence[tuple[float, float]] = ()
    """Where the measured slope leads."""


curves: Final[list[Curve]] = []
"""Of the last run."""


def run() -> list[Row]:
    """Every figure of growth."""
    curves.clear()
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="headrace-bench-", dir=memory) as folder:
        store = open_store(folder)
        return [*_by_events(store), *_by_live(store), *_by_listed(store)]


def plot(folder: Path) -> None:
    """Draw what the last run measured."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(curves), 3.6), layout="constrained")
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for panel, curve in zip(panels, curves, strict=True):
        panel.plot(*zip(*curve.points, strict=True), "o-", label="measured")
        if curve.beyond:
            panel.plot(*zip(*curve.beyond, strict=True), "o--", label="by the measured slope")
            panel.legend()
        panel.set(title=curve.title, xlabel=curve.x, ylabel=curve.y, xscale="log")
        panel.set_ylim(0, 2 * max(y for _, y in [*curve.points, *curve.beyond]))
        panel.grid(alpha=0.3)
    figure.savefig(folder / "growth.svg")


# -- What an experiment holds ---------------------------------------------------------------------------------------------


def _by_events(store: Store) -> Iterator[Row]:
    series = Series(store, "bench/events", CHANNELS)
    series.commit(COMMIT_STEPS)  # which makes the experiment: not an event's cost
    points: list[tuple[float, float]] = []
    begin, events = COMMIT_EVENTS, COMMIT_EVENTS
    spent = time.process_time()
    while events < EVENTS_MAX:
        series.commit(COMMIT_STEPS)
        events += COMMIT_EVENTS
        if events >= 2 * begin:
            now = time.process_time()
            points.append((math.sqrt(begin * events), (now - spent) / (events - begin) * 1e6))
            begin, spent = events, now
    steady = [(n, cost) for n, cost in points if n >= SLOPE_FROM]
    slope, level = np.polyfit(np.log10([n for n, _ in steady]), [cost for _, cost in steady], 1)
    far = [(n, float(level + slope * math.log10(n))) for n in (1e6, 1e7, 1e8, 1e9)]
    first, last = _about(points, 1e3), _about(points, 1e6)
    curves.append(Curve("Commit and compaction", "events in the experiment", "µs of CPU an event", points, far))
    yield Row("an event at 10^3 events in an experiment: commit and compaction", first, "us")
    yield Row("  at 10^6", last, "us")
    yield Row("  at 10^6, of what it costs at 10^3", last / first, "x", at_most=1.5)
    yield Row(
        "  at 10^9, by the slope from 10^4 to 3 · 10^6, of what it costs at 10^3", far[-1][1] / first, "x", at_most=1.5
    )


def _about(points: list[tuple[float, float]], events: float) -> float:
    """The cost near so many events: the mean of the three nearest stretches, of which one may have a merge more than another."""
    nearest = sorted(points, key=lambda point: abs(math.log10(point[0] / events)))[:3]
    return sum(cost for _, cost in nearest) / len(nearest)


# -- How many experiments are live ----------------------------------------------------------------------------------------


def _by_live(store: Store) -> Iterator[Row]:
    points = [(float(live), _tick_us(store, live)) for live in LIVE]
    curves.append(Curve("Commit and catalog", "live experiments", "µs of CPU an event", points))
    for live, cost in points:
        worst = 1.5 * points[0][1] if live > 1 else None
        yield Row(f"an event of {live:,.0f} live experiments: commit and catalog", cost, "us", at_most=worst)


def _tick_us(store: Store, live: int) -> float:
    """CPU of an event when each of `live` experiments commits, and the catalog hears of all of them at once."""
    project, catalog = f"bench/live-{live}", Catalog(store, f"bench/live-{live}")
    series = [Series(store, project, CHANNELS) for _ in range(live)]
    for each in series:
        each.commit(COMMIT_STEPS)
    ticks = max(2, 200 // live)
    begin = time.process_time()
    for _ in range(ticks):
        for each in series:
            each.commit(COMMIT_STEPS)
    commits = (time.process_time() - begin) / ticks
    rows = [row_of(each.chain.head) for each in series if each.chain.head is not None]
    listed = _updates_s(catalog, rows) / TICKS
    return (commits + listed) / (live * COMMIT_EVENTS) * 1e6


def _updates_s(catalog: Catalog, rows: list[CatalogRow]) -> float:
    """CPU seconds of TICKS appends of these rows, each of a newer commit, and of the folds that they make due."""
    begin = time.process_time()
    for tick in range(TICKS):
        catalog.append([row.model_copy(update={"commit": row.commit + tick}) for row in rows])
        catalog.fold(DELTAS_MAX)
    return time.process_time() - begin


# -- How many experiments there are ---------------------------------------------------------------------------------------


def _by_listed(store: Store) -> Iterator[Row]:
    series = Series(store, "bench/template", CHANNELS)
    series.commit(COMMIT_STEPS)
    assert series.chain.head is not None
    row, catalog, points = row_of(series.chain.head), Catalog(store, "bench/listed"), []
    listed = 0
    for size in LISTED:
        while listed < size:
            catalog.append([row.model_copy(update={"experiment": random_id()}) for _ in range(500)])
            catalog.fold(DELTAS_MAX)
            listed += 500
        live = [row.model_copy(update={"experiment": random_id()}) for _ in range(10)]
        points.append((float(size), _updates_s(catalog, live) / (TICKS * len(live)) * 1e6))
    curves.append(Curve("Catalog, 10 live experiments", "experiments in the catalog", "µs of CPU a commit", points))
    for listed_before, cost in points:
        worst = 1.5 * points[0][1] if listed_before > LISTED[0] else None
        yield Row(f"a commit's row in a catalog of {listed_before:,.0f} experiments", cost, "us", at_most=worst)
