"""Automatic steps: a point logged without a step gets its channel's highest step + 1, in commit order, and never less than 0.

A row shares one step, the highest over its channels + 1, so a schema of automatic rows ties its channels together. Channels tied
together count as one *unit*. With c the number of automatic events of a unit so far, the i-th event's step is

    c_i + max(highest before, max over explicit j < i of (step_j - c_j))

which is a running maximum, so a unit is a few vector operations. Only units in which automatic rows of different channels, or
rows and single points, are mixed depend on themselves channel by channel; those are counted one event after another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

NO_STEP: Final = -1.0
"""Taken as the highest step of a channel that has none, or only negative ones: its first automatic step is 0."""

Ints = NDArray[np.integer[Any]]


def fill_automatic(
    channel: Ints,
    step: NDArray[np.float64],
    automatic: NDArray[np.bool_],
    begins: NDArray[np.bool_],
    rows: Sequence[Ints],
    highest: NDArray[np.float64],
) -> None:
    """Set `step` wherever `automatic`.

    The columns are in commit order; `begins` is True where a new event begins, `rows` are the channels of every schema that has
    automatic rows here, `highest` is by channel, NO_STEP or more.
    """
    if not automatic.any():
        return
    unit = _units(len(highest), rows)
    event_unit = unit[channel]
    # one entry an event is enough for automatic rows: all of a row's values share unit and step
    entries = np.flatnonzero(~automatic | begins)
    tangled = _tangled(channel, automatic, begins, unit, rows)
    if tangled.any():
        loose = ~tangled[event_unit[entries]]
        _count_one_by_one(channel, step, automatic, begins, highest.copy(), np.flatnonzero(tangled[event_unit]))
        entries = entries[loose]
    unit_highest = np.full(len(highest), NO_STEP)
    np.maximum.at(unit_highest, unit, highest)
    _count_units(event_unit[entries], entries, step, automatic, unit_highest)
    # the values of a row after its first: as the first
    first = np.maximum.accumulate(np.where(begins, np.arange(len(step)), 0))
    step[automatic] = step[first[automatic]]


def _units(channels: int, rows: Sequence[Ints]) -> NDArray[np.intp]:
    """For each channel the lowest channel that rows tie it to."""
    unit = np.arange(channels)
    for row in rows:
        roots = np.unique(unit[row])
        if len(roots) > 1:
            unit[np.isin(unit, roots[1:])] = roots[0]
    return unit


def _tangled(
    channel: Ints, automatic: NDArray[np.bool_], begins: NDArray[np.bool_], unit: NDArray[np.intp], rows: Sequence[Ints]
) -> NDArray[np.bool_]:
    """For each unit, whether its automatic events are of more than one set of channels."""
    tangled = np.zeros(len(unit), np.bool_)
    if not rows:
        return tangled
    size = np.bincount(unit, minlength=len(unit))
    auto_unit = unit[channel[automatic]]
    values = np.bincount(auto_unit, minlength=len(unit))
    auto_events = np.bincount(auto_unit[begins[automatic]], minlength=len(unit))
    # if every automatic event covers the whole unit, there are exactly `size` values an event
    np.logical_and(size > 1, values != auto_events * size, out=tangled)
    return tangled


def _count_units(
    unit: NDArray[np.intp],
    entries: NDArray[np.intp],
    step: NDArray[np.float64],
    automatic: NDArray[np.bool_],
    highest: NDArray[np.float64],
) -> None:
    order = np.argsort(unit, kind="stable")
    unit, entries = unit[order], entries[order]
    is_auto = automatic[entries]
    begin = np.flatnonzero(np.concatenate([[True], unit[1:] != unit[:-1]])) if len(unit) else np.empty(0, np.intp)
    end = np.append(begin[1:], len(unit))
    total = np.cumsum(is_auto)
    before: NDArray[np.intp] = total[begin] - is_auto[begin]
    count: NDArray[np.intp] = total - np.repeat(before, end - begin)
    filled = highest[unit] + count
    has_auto = np.add.reduceat(is_auto, begin, dtype=np.int64) if len(begin) else begin
    mixed = (has_auto > 0) & (has_auto < end - begin)
    for a, b in zip(begin[mixed].tolist(), end[mixed].tolist(), strict=True):
        offset = np.where(is_auto[a:b], -np.inf, step[entries[a:b]] - count[a:b])
        filled[a:b] = count[a:b] + np.maximum(highest[unit[a]], np.maximum.accumulate(offset))
    step[entries[is_auto]] = filled[is_auto]


def _count_one_by_one(
    channel: Ints,
    step: NDArray[np.float64],
    automatic: NDArray[np.bool_],
    begins: NDArray[np.bool_],
    highest: NDArray[np.float64],
    values: NDArray[np.intp],
) -> None:
    """The rule itself, an event at a time. `values` are whole events: a row's channels are always in one unit."""
    begin = np.flatnonzero(begins[values] | ~automatic[values]).tolist()
    for a, b in zip(begin, [*begin[1:], len(values)], strict=True):
        mine = values[a:b]
        if automatic[mine[0]]:
            step[mine] = highest[channel[mine]].max() + 1
        np.maximum.at(highest, channel[mine], step[mine])
