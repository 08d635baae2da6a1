"""Rows of the catalog as a reader has them: what filters need is there, the rest is decoded for the rows that are shown.

A file is fetched whole, by one request. Of 100,000 rows the columns that filters need are decoded in a tenth of the time of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, overload

import numpy as np
import pyarrow as pa

from headrace_proto.store.catalog.row import CatalogRow
from headrace_proto.store.catalog.table import SCHEMA, checked, decoded, parquet_of, rows_of, taken, whole_numbers

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

HEAD: Final = ("experiment", "commit", "id", "state", "owner", "created_at", "finished_at", "seen_at", "tags")
"""What criteria, order and the newest commit are told by."""
REST: Final = tuple(name for name in SCHEMA.names if name not in HEAD)
_PLACE: Final = "place"
"""A row's place among the rows of all segments."""

_BLOCK_ROWS: Final = 256
"""Rows made at a time: one alone costs as much as fifty, and who looks at one looks at its neighbours."""

_HEAD_SCHEMA: Final = pa.schema([SCHEMA.field(name) for name in HEAD])
_REST_SCHEMA: Final = pa.schema([SCHEMA.field(name) for name in REST])


class Segment:
    """The rows of one file."""

    def __init__(self, head: pa.Table, groups: Sequence[int], read: Callable[[list[int]], pa.Table]) -> None:
        """`read` gives the other columns of some of the groups of rows that the file consists of."""
        self.head: Final = head
        self._sizes: Final = np.array(groups, np.int64)
        self._ends: Final = np.cumsum(self._sizes)
        self._read: Final = read
        self._kept: Final[dict[int, pa.Table]] = {}

    @classmethod
    def held(cls, table: pa.Table) -> Segment:
        """Of a table that is in memory."""
        return cls(table.select(list(HEAD)).cast(_HEAD_SCHEMA), [table.num_rows], lambda _: table.select(list(REST)))

    @classmethod
    def filed(cls, data: bytes, damage_told: Callable[[], AbstractContextManager[None]]) -> Segment:
        """Of a file's bytes. Raises what `decoded` does; what Arrow says later goes through `damage_told`."""
        file = parquet_of(data)
        if not checked(file.schema_arrow):
            return cls.held(decoded(data))
        metadata = file.metadata
        groups = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        head = file.read(columns=list(HEAD)).select(list(HEAD)).cast(_HEAD_SCHEMA)

        def read(wanted: list[int]) -> pa.Table:
            with damage_told():
                return file.read_row_groups(wanted, columns=list(REST)).select(list(REST))

        return cls(head, groups, read)

    def rest(self, rows: NDArray[np.int64]) -> pa.Table:
        """The other columns of some rows."""
        groups = np.searchsorted(self._ends, rows, "right")
        wanted = _which(groups)
        missing = [int(group) for group in wanted if group not in self._kept]
        if missing:
            table, first = self._read(missing).cast(_REST_SCHEMA), 0
            for group in missing:
                self._kept[group] = table.slice(first, int(self._sizes[group]))
                first += int(self._sizes[group])
        before = np.cumsum(self._sizes[wanted]) - self._sizes[wanted]  # rows of the groups at hand that precede each
        begins = self._ends - self._sizes
        places = rows - begins[groups] + before[np.searchsorted(wanted, groups)]
        return taken(pa.concat_tables([self._kept[int(group)] for group in wanted]), places)


class Listing:
    """Rows of several segments, each experiment's newest. It stays what it is, whatever becomes of the catalog."""

    def __init__(self, head: pa.Table, segments: Sequence[Segment]) -> None:
        self.head: Final = head
        """The columns HEAD of each row, to be filtered and put into order; and where the row is."""
        self._segments: Final = segments
        self._begins: Final = np.cumsum([0, *(segment.head.num_rows for segment in segments)])
        self._table: pa.Table | None = None

    def __len__(self) -> int:
        return self.head.num_rows

    def of(self, head: pa.Table) -> Listing:
        """The rows of `head`, which was made of this listing's by filters, slices and order."""
        return Listing(head, self._segments)

    def table(self) -> pa.Table:
        """These rows with all columns."""
        if self._table is None:
            places = self.head[_PLACE].to_numpy()
            segment = np.searchsorted(self._begins, places, "right") - 1
            order = np.argsort(segment, kind="stable")
            parts = [
                self._segments[at].rest(places[segment == at] - self._begins[at]) for at in _which(segment).tolist()
            ]
            back = np.empty_like(order)
            back[order] = np.arange(len(order))
            rest = taken(pa.concat_tables(parts or [_REST_SCHEMA.empty_table()]), back)
            columns = [(self.head if name in HEAD else rest)[name] for name in SCHEMA.names]
            self._table = pa.table(columns, schema=SCHEMA)
        return self._table


class Rows(Sequence[CatalogRow]):
    """The rows of a listing, each made when it is asked for: most of a long list are only counted, or passed over."""

    def __init__(self, listing: Listing) -> None:
        self.listing: Final = listing
        self._blocks: Final[dict[int, list[CatalogRow]]] = {}

    def __len__(self) -> int:
        return len(self.listing)

    @overload
    def __getitem__(self, index: int) -> CatalogRow: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[CatalogRow]: ...
    def __getitem__(self, index: int | slice) -> CatalogRow | Sequence[CatalogRow]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        block, within = divmod(range(len(self))[index], _BLOCK_ROWS)
        if block not in self._blocks:
            head = self.listing.head.slice(block * _BLOCK_ROWS, _BLOCK_ROWS)
            self._blocks[block] = rows_of(self.listing.of(head).table())
        return self._blocks[block][within]


def joined(segments: Sequence[Segment]) -> pa.Table:
    """The heads of all segments, with each row's place."""
    table = pa.concat_tables([_HEAD_SCHEMA.empty_table(), *(segment.head for segment in segments)])
    return table.append_column(_PLACE, whole_numbers(np.arange(table.num_rows)))


def _which(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers that occur, ascending."""
    return np.flatnonzero(np.bincount(numbers))
