"""The numeric points of a commit: automatic steps, the order of a part, stretches.

Two ways lead there. Points come value by value, and are sorted. Rows whose channels nothing else in the commit logs to stay
grids: a column of one is a channel, in order as soon as the steps are, and its steps and times are the same arrays for all of the
row's channels. Which way was taken cannot be seen in the points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace_proto.store.apply import latest
from headrace_proto.store.apply.draft import Columns, Draft, RowColumns
from headrace_proto.store.apply.latest import Point
from headrace_proto.store.plain import plain_float
from headrace_proto.store.sorting import series_order
from headrace_proto.store.steps import NO_STEP, fill_automatic
from headrace_proto.store.stretches import Stretch

GRID_ROWS_MIN: Final = 256
"""Fewer rows are sorted with the rest: as a grid they cost some microseconds a channel."""


class _Series(NamedTuple):
    """One channel's points in this commit, sorted."""

    stretch: Stretch
    point: Callable[[int], Point]


def fold(draft: Draft) -> list[Stretch] | None:
    """Give steps, sort, and bring the document's channels up to date."""
    if not draft.points:
        return None
    grids, rest = _apart(draft.points, len(draft.names))
    draft.points = []  # half of what a commit holds: it goes as soon as it stands in longer columns
    series = _sorted(draft, rest) if rest else []
    for grid in grids:
        series += _columns(draft, grid)
    series.sort(key=lambda one: one.stretch.channel)
    for (channel, rows, step, time_us, at, _, _), point in series:
        latest.update(draft, "numeric", channel, time_us[at : at + rows], step[at + rows - 1].item(), point)
    return [one.stretch for one in series]


# -- Grids --------------------------------------------------------------------------------------------------------------


def _apart(entries: Sequence[Columns | RowColumns], channels: int) -> tuple[list[list[RowColumns]], list[Columns]]:
    """Those rows, by their channels, that can stay grids, and everything else in its order."""
    rows: dict[bytes, list[RowColumns]] = {}
    users = np.zeros(channels, np.int64)  # of each channel: kinds of rows, or points
    for entry in entries:
        if isinstance(entry, RowColumns):
            rows.setdefault(entry.code.tobytes(), []).append(entry)
        else:
            users += 2 * (np.bincount(entry.code, minlength=channels) > 0)
    for members in rows.values():
        users += np.bincount(members[0].code, minlength=channels)
    grids = {
        key: members
        for key, members in rows.items()
        if (users[members[0].code] == 1).all() and sum(len(member.points.step) for member in members) >= GRID_ROWS_MIN
    }
    rest = [entry.flat() for entry in entries if isinstance(entry, Columns) or entry.code.tobytes() not in grids]
    return list(grids.values()), rest


def _columns(draft: Draft, members: Sequence[RowColumns]) -> list[_Series]:
    """The channels of one grid, whose rows are in commit order."""
    step = np.concatenate([member.points.step for member in members])
    time_us = np.concatenate([member.points.time_us for member in members])
    position = np.concatenate([member.points.position for member in members])
    rows = [len(member.points.step) for member in members]
    ends = np.cumsum(rows)
    automatic = np.repeat([member.points.automatic for member in members], rows)
    if automatic.any():  # the channels of a grid rise together, as one
        highest = _highest(draft, members[0].code).max(keepdims=True)
        fill_automatic(np.zeros(len(step), np.int32), step, automatic, np.ones(len(step), np.bool_), (), highest)
    names = [draft.names[code] for code in members[0].code.tolist()]
    place = np.empty(len(names), np.intp)  # of each column among the channels in order
    place[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    count = len(step)
    values = np.empty((len(names), count))
    for member, end in zip(members, ends.tolist(), strict=True):
        values[place, end - len(member.points.step) : end] = member.points.values().T
    order = series_order(np.zeros(count, np.int32), step, time_us)
    if order is not None:
        step, time_us, values = step[order], time_us[order], values[:, order]
    flat = values.ravel()

    def last(begin: int, i: int) -> Point:
        original = i if order is None else int(order[i])
        source = members[int(np.searchsorted(ends, original, side="right"))].source
        value = plain_float(flat[begin + i].item())
        return Point(step[i].item(), int(time_us[i]), source, int(position[original]), value)

    return [
        _Series(Stretch(name, count, step, time_us, 0, flat, begin), partial(last, begin))
        for name, begin in zip(sorted(names), range(0, len(flat), count), strict=True)
    ]


# -- Value by value -----------------------------------------------------------------------------------------------------


def _sorted(draft: Draft, entries: list[Columns]) -> list[_Series]:
    """The channels of points, given in commit order. Takes them out of the list."""
    sources = [columns.source for columns in entries]
    code = np.concatenate([columns.code for columns in entries])
    position, _, step, automatic, time_us, value = (
        np.concatenate(columns) for columns in zip(*(columns.points for columns in entries), strict=True)
    )
    source_ends = np.cumsum([len(columns.code) for columns in entries])
    entries.clear()
    _fill_steps(draft, source_ends, code, position, step, automatic)
    used = np.flatnonzero(np.bincount(code, minlength=len(draft.names))).tolist()
    used.sort(key=draft.names.__getitem__)
    rank = np.zeros(len(draft.names), np.int32)
    rank[used] = np.arange(len(used))
    local = rank[code]
    order = series_order(local, step, time_us)
    if order is not None:
        local, position = local[order], position[order]
        step, time_us = step[order], time_us[order]
        value = value[order]
    bounds = np.searchsorted(local, np.arange(len(used) + 1)).tolist()

    def point(begin: int, nth: int) -> Point:
        i = begin + nth
        original = i if order is None else int(order[i])
        source = sources[int(np.searchsorted(source_ends, original, side="right"))]
        return Point(step[i].item(), int(time_us[i]), source, int(position[i]), plain_float(value[i].item()))

    return [
        _Series(Stretch(draft.names[code], end - begin, step, time_us, begin, value, begin), partial(point, begin))
        for code, begin, end in zip(used, bounds[:-1], bounds[1:], strict=True)
    ]


def _fill_steps(
    draft: Draft,
    source_ends: NDArray[np.int64],
    code: NDArray[np.int32],
    position: NDArray[np.int64],
    step: NDArray[np.float64],
    automatic: NDArray[np.bool_],
) -> None:
    if not automatic.any():
        return
    begins = np.ones(len(code), np.bool_)
    np.not_equal(position[1:], position[:-1], out=begins[1:])
    begins[source_ends[:-1]] = True  # equal positions of two sources
    highest = np.full(len(draft.names), NO_STEP)
    rows = list({row.tobytes(): row for row in draft.automatic_rows}.values())
    concerned = np.unique(np.concatenate([code[automatic], *rows]))
    highest[concerned] = _highest(draft, concerned)
    fill_automatic(code, step, automatic, begins, rows, highest)


def _highest(draft: Draft, codes: NDArray[np.int32]) -> NDArray[np.float64]:
    """The highest step of each of some channels before this commit."""
    records = (draft.channels["numeric"].get(draft.names[code]) for code in codes.tolist())
    told = [record.max_step if record else None for record in records]
    return np.array([NO_STEP if step is None else max(NO_STEP, step) for step in told])
