"""Compaction: which parts are merged, and how, so that their number stays bounded and rows are rewritten seldom.

The plan is geometric in the manner of binomial coefficients. A commit's part has level 0. When PARTS_MAX parts are live, the
youngest run of parts of one level is merged into one part of the next level. The first merge takes 64 parts, the next 63, and so
on, until 64 parts of level 1 fill the places and become one of level 2. A row's part has level d only after C(64 + d, d) commits:
rows are rewritten at most twice within 2,145 commits, three times within 47,905, four times within 814,385.

When an experiment has ended, what is small becomes one part. Of what is large up to ENDED_PARTS_MAX parts stay: to merge those
would write everything once more, and again whenever the experiment is resumed, and spare a reader milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace_proto.limits import MIB, PARTS_MAX
from headrace_proto.store import parts
from headrace_proto.store.backend import Store
from headrace_proto.store.commits import PartKind, PartRecord
from headrace_proto.store.sorting import series_order

Run = tuple[PartRecord, ...]
"""Parts that follow one another in a commit's list."""

ENDED_PARTS_MAX: Final = 16
ENDED_PART_BYTES: Final = 8 * MIB
"""Of an ended experiment a part stays for each of these: a million points, which take longer to read than a part to open."""

BLOCK_ROWS: Final = 16 * 1024
"""Rows of each part that a merge holds at a time: 64 parts are 25 MiB of points."""


def plan(live: Sequence[PartRecord], *, final: bool = False) -> Run | None:
    """The parts to merge next, None if there is no need. `live` are the parts of one kind, oldest first."""
    if final:
        return _cheapest(live, min(max(sum(part.bytes for part in live) // ENDED_PART_BYTES, 1), ENDED_PARTS_MAX))
    if len(live) < PARTS_MAX:
        return None
    level = live[-1].level
    while True:
        run = tuple(_youngest(live, level))
        if len(run) > 1:
            return run
        level = live[-2].level


def _youngest(live: Sequence[PartRecord], level: int) -> Sequence[PartRecord]:
    first = next((i + 1 for i in reversed(range(len(live))) if live[i].level > level), 0)
    return live[first:]


def _cheapest(live: Sequence[PartRecord], count: int) -> Run | None:
    """The run whose merge leaves `count` parts and writes the fewest bytes."""
    width = len(live) - count + 1
    if width < 2:
        return None
    runs = (tuple(live[first : first + width]) for first in range(count))
    return min(runs, key=lambda run: sum(part.bytes for part in run))


def level(run: Run) -> int:
    """The level of the part that a run becomes."""
    return max(part.level for part in run) + 1


def replaced(live: Sequence[PartRecord], run: Run, merged: PartRecord) -> Run | None:
    """`live` with `merged` in place of `run`; None when another writer has replaced any of it."""
    first = next((i for i, part in enumerate(live) if part == run[0]), None)
    if first is None or tuple(live[first : first + len(run)]) != run:
        return None
    return (*live[:first], merged, *live[first + len(run) :])


def merged(store: Store, kind: PartKind, paths: Sequence[str]) -> Iterator[bytes]:
    """The bytes of one part with all the rows of the parts at `paths`, oldest first. Memory is bounded by BLOCK_ROWS a part."""
    with in_order(store, kind, paths) as (channels, tables):
        yield from parts.encoded_blocks(kind, tables, channels)


@contextmanager
def in_order(
    store: Store, kind: PartKind, paths: Sequence[str]
) -> Iterator[tuple[parts.ChannelRows, Iterator[pa.Table]]]:
    """All the rows of the parts at `paths`, sorted as in one part, table by table; and how many each channel has."""
    with ExitStack() as stack:
        inputs = [stack.enter_context(parts.opened(store, path)) for path in paths]
        counts: dict[str, int] = {}
        for part in inputs:
            for name, count in part.channels:
                counts[name] = counts.get(name, 0) + count
        channels = sorted(counts.items())
        ranks = {name: rank for rank, (name, _) in enumerate(channels)}
        cursors = [_Cursor(index, part, ranks, kind) for index, part in enumerate(inputs)]
        yield channels, _merge(cursors, parts.SCHEMAS[kind], list(ranks))


class _Key(NamedTuple):
    """Where a row stands among the rows of all parts; of rows that tie, the older part's come first."""

    rank: int
    step: float
    time_us: int
    part: int


class _Cursor:
    """One part, read block by block. Its channels are known from its footer, so that their column need not be read."""

    def __init__(self, index: int, part: parts.OpenPart, ranks: dict[str, int], kind: PartKind) -> None:
        self._index = index
        self._blocks = part.blocks(BLOCK_ROWS, [name for name in parts.SCHEMAS[kind].names if name != "channel"])
        self._ranks = np.array([ranks[name] for name, _ in part.channels], np.int32)
        self._ends = np.cumsum([count for _, count in part.channels])
        self._left = int(self._ends[-1]) if part.channels else 0
        self._read = 0
        self._block = pa.table({})
        self._rank = np.empty(0, np.int32)
        self._step = np.empty(0, np.float64)
        self._time_us = np.empty(0, np.int64)
        self._refill()

    @property
    def empty(self) -> bool:
        """Whether all rows were taken."""
        return self._block.num_rows == 0

    def limit(self) -> _Key | None:
        """The last row at hand when there are more to come: rows beyond it must wait for those."""
        if self.empty or not self._left:
            return None
        return _Key(int(self._rank[-1]), float(self._step[-1]), int(self._time_us[-1]), self._index)

    def take(self, limit: _Key | None) -> tuple[NDArray[np.int32], pa.Table]:
        """The rows up to `limit`."""
        count = self._block.num_rows if limit is None else self._up_to(limit)
        rank, table = self._rank[:count], self._block.slice(0, count)
        self._rank, self._step, self._time_us = self._rank[count:], self._step[count:], self._time_us[count:]
        self._block = self._block.slice(count)
        if self.empty:
            self._refill()
        return rank, table

    def _up_to(self, limit: _Key) -> int:
        low, high = (int(np.searchsorted(self._rank, limit.rank, side)) for side in ("left", "right"))
        steps = self._step[low:high]
        low, high = (
            low + int(np.searchsorted(steps, limit.step)),
            low + int(np.searchsorted(steps, limit.step, "right")),
        )
        # of rows that tie with the limit, those of older parts go with it and those of younger ones come later
        side: Literal["left", "right"] = "right" if self._index <= limit.part else "left"
        return low + int(np.searchsorted(self._time_us[low:high], limit.time_us, side))

    def _refill(self) -> None:
        while self.empty and self._left:
            self._block = pa.Table.from_batches([next(self._blocks)])
            rows = self._block.num_rows
            places = np.searchsorted(self._ends, np.arange(self._read, self._read + rows), "right")
            self._rank = self._ranks[places]
            self._step, self._time_us = self._block["step"].to_numpy(), parts.times_us(self._block)
            self._read, self._left = self._read + rows, self._left - rows


def _merge(cursors: Sequence[_Cursor], schema: pa.Schema, names: Sequence[str]) -> Iterator[pa.Table]:
    """The rows of all cursors in order. Each turn takes what no block that is still to be read can come before."""
    dictionary = pa.array(names, pa.string())
    while live := [cursor for cursor in cursors if not cursor.empty]:
        limit = min((limit for cursor in live if (limit := cursor.limit())), default=None)
        taken = [cursor.take(limit) for cursor in live]
        rank = np.concatenate([rank for rank, _ in taken])
        table = pa.concat_tables([table for _, table in taken])
        order = series_order(rank, table["step"].to_numpy(), parts.times_us(table))
        if order is not None:
            rank, table = rank[order], table.take(order)
        channel = pa.DictionaryArray.from_arrays(pa.array(rank), dictionary)
        yield pa.table([channel, *table.columns], schema=schema)
