"""Stretches: the sorted numeric points of a commit, channel by channel, and the part that they become.

Channels that were logged together have one array of steps and one of times. Those are encoded once, however many channels the
part has, so that a value costs little more than its own bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace_proto.store import pages, parts
from headrace_proto.store.pages import Block, Chunk, Group


class Stretch(NamedTuple):
    """One channel's points, sorted by step and time: `rows` of `steps` and `times_us` from `at` on, of `values` from `value_at` on.

    Stretches may share their arrays, wholly or as neighbours.
    """

    channel: str
    rows: int
    steps: NDArray[np.float64]
    times_us: NDArray[np.int64]
    at: int
    values: NDArray[np.float64]
    value_at: int

    def cut(self, begin: int, end: int) -> Stretch:
        """Its points from `begin` to `end`."""
        return self._replace(rows=end - begin, at=self.at + begin, value_at=self.value_at + begin)

    def table(self) -> pa.Table:
        """As a part would hold it."""
        columns = [
            pa.DictionaryArray.from_arrays(np.zeros(self.rows, np.int32), pa.array([self.channel], pa.string())),
            pa.array(self.steps[self.at :][: self.rows]),
            pa.array(self.times_us[self.at :][: self.rows]).cast(parts.NUMERIC.field("time").type),
            pa.array(self.values[self.value_at :][: self.rows]),
        ]
        return pa.table(columns, schema=parts.NUMERIC)


Axis = tuple[tuple[int, int, int], ...]
"""Which steps and times a row group has: pieces of arrays, by identity, begin and end. Equal ones are equal bytes."""


def encoded(stretches: Sequence[Stretch]) -> Iterator[Block]:
    """A part's bytes, block by block. `stretches` are in the order of their channels."""
    channels: parts.ChannelRows = [(stretch.channel, stretch.rows) for stretch in stretches]
    groups = list(_grouped(stretches, parts.row_group_sizes(channels)))
    axes = _axes(groups)
    metadata = {parts.FORMAT_KEY: parts.PART_FORMAT, parts.CHANNELS_KEY: json.dumps(channels)}
    yield from pages.file(parts.NUMERIC, (_group(group, axes) for group in groups), metadata)


def warm_up() -> None:
    """Have everything loaded that a part needs."""
    one = np.zeros(1)
    for _ in encoded([Stretch("", 1, one, one.astype(np.int64), 0, one, 0)]):
        pass


def _grouped(stretches: Sequence[Stretch], sizes: Sequence[int]) -> Iterator[list[Stretch]]:
    """The same rows in row groups of the given sizes."""
    rest = iter(stretches)
    held: Stretch | None = None
    for size in sizes:
        group: list[Stretch] = []
        left = size
        while left:
            stretch = held or next(rest)
            taken = min(left, stretch.rows)
            group.append(stretch.cut(0, taken))
            held = stretch.cut(taken, stretch.rows) if taken < stretch.rows else None
            left -= taken
        yield group


def _axis(group: Sequence[Stretch]) -> Axis:
    return tuple((id(array), begin, end) for array, begin, end in _pieces((s.steps, s.at, s.rows) for s in group))


def _axes(groups: Sequence[Sequence[Stretch]]) -> dict[Axis, tuple[Chunk, Chunk]]:
    """Steps and times of all row groups, each encoded once."""
    members = {_axis(group): group for group in groups}
    steps = [
        pages.floats_chunk(_joined((s.steps, s.at, s.rows) for s in group), bounds=True) for group in members.values()
    ]
    times = pages.times_chunks([_joined((s.times_us, s.at, s.rows) for s in group) for group in members.values()])
    return dict(zip(members, zip(steps, times, strict=True), strict=True))


def _group(group: Sequence[Stretch], axes: dict[Axis, tuple[Chunk, Chunk]]) -> Group:
    names = pages.names_chunk([stretch.channel for stretch in group], [stretch.rows for stretch in group])
    values = pages.floats_chunk(_joined((s.values, s.value_at, s.rows) for s in group), bounds=False)
    return Group(sum(stretch.rows for stretch in group), [names, *axes[_axis(group)], values])


def _pieces(asked: Iterable[tuple[NDArray[Any], int, int]]) -> list[tuple[NDArray[Any], int, int]]:
    """Pieces of arrays, given by begin and length, as begin and end; those that continue one another are one."""
    found: list[tuple[NDArray[Any], int, int]] = []
    for array, begin, rows in asked:
        if found and found[-1][0] is array and found[-1][2] == begin:
            found[-1] = array, found[-1][1], begin + rows
        else:
            found.append((array, begin, begin + rows))
    return found


def _joined(asked: Iterable[tuple[NDArray[Any], int, int]]) -> NDArray[Any]:
    """Pieces of arrays as one, copied only where they are several."""
    slices = [array[begin:end] for array, begin, end in _pieces(asked)]
    return slices[0] if len(slices) == 1 else np.concatenate(slices)
