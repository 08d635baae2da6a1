"""Rows of several files, read as far as they are shown: the same rows whatever is chosen, in whatever order."""

from __future__ import annotations

import io
from contextlib import nullcontext

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_proto.errors import Corrupt
from headrace_proto.store import layout
from headrace_proto.store.backend import open_store
from headrace_proto.store.catalog import Catalog, CatalogRow, Rows
from headrace_proto.store.catalog.segment import Listing, Segment, joined
from headrace_proto.store.catalog.table import rows_of, table_of

PROJECT = "vision/digits"
GROUP_ROWS = 3


def _row(number: int) -> CatalogRow:
    return CatalogRow(
        experiment=f"{number:032x}",
        commit=1,
        id=f"DIG-{number}",
        name=f"run {number}",
        state="running",
        tags=[f"t{number}"] * (number % 3),
        params={"lr": number} if number % 2 else {},
        metrics={f"m{n}": float(n) for n in range(number % 4)},
    )


def _segments(sizes: list[int]) -> tuple[list[CatalogRow], list[Segment]]:
    """Files of so many rows each, every second one in memory and the others in Parquet with small groups of rows."""
    rows = [_row(number) for number in range(sum(sizes))]
    segments, first = [], 0
    for place, size in enumerate(sizes):
        table = table_of(rows[first : first + size])
        first += size
        buffer = io.BytesIO()
        pq.write_table(table, buffer, row_group_size=GROUP_ROWS)
        segments.append(Segment.held(table) if place % 2 else Segment.filed(buffer.getvalue(), nullcontext))
    return rows, segments


@given(st.lists(st.integers(0, 8), max_size=4), st.data())
def test_what_is_chosen_comes_out(sizes: list[int], data: st.DataObject) -> None:
    """Any rows in any order, chosen of what was chosen before, have their own other columns."""
    rows, segments = _segments(sizes)
    listing = Listing(joined(segments), segments)
    for _ in range(3):
        chosen = data.draw(st.lists(st.integers(0, max(len(rows) - 1, 0)), unique=True, max_size=len(rows)))
        part = listing.of(listing.head.take(pa.array(chosen, pa.int64())))
        expected = [rows[place] for place in chosen]
        assert rows_of(part.table()) == expected
        assert list(Rows(part)) == expected
        assert rows_of(part.of(part.head.slice(1)).table()) == expected[1:]
    assert rows_of(listing.table()) == rows


def test_a_few_rows_decode_only_their_groups() -> None:
    """Of a file with many groups of rows, those are decoded that have a row which is shown, and each once."""
    asked: list[list[int]] = []
    table = table_of([_row(number) for number in range(10)])

    def read(groups: list[int]) -> pa.Table:
        asked.append(groups)
        parts = [table.slice(group * GROUP_ROWS, GROUP_ROWS) for group in groups]
        return pa.concat_tables(parts).select(held.rest(np.arange(1)).column_names)

    held = Segment.held(table)
    segment = Segment(held.head, [3, 3, 3, 1], read)
    assert segment.rest(np.array([7, 1]))["name"].to_pylist() == ["run 7", "run 1"]
    assert segment.rest(np.array([9, 0, 6]))["name"].to_pylist() == ["run 9", "run 0", "run 6"]
    assert asked == [[0, 2], [3]]


def test_damage_is_told_when_it_is_met(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A flipped bit in a column that is decoded later names the file then, as one that is met at once does."""
    store = open_store(str(tmp_path_factory.mktemp("store")))
    catalog = Catalog(store, PROJECT)
    catalog.append([_row(number) for number in range(100)])
    folder = layout.catalog_folder(PROJECT, 0)
    (name,) = store.names(folder)
    data = bytearray(store.read(f"{folder}/{name}"))
    group = pq.read_metadata(io.BytesIO(data)).row_group(0)
    columns = [group.column(n) for n in range(group.num_columns)]
    (values,) = [column for column in columns if column.path_in_schema == "metrics.key_value.value"]
    data[values.data_page_offset + values.total_compressed_size // 2] ^= 1
    store.put(f"{folder}/{name}", bytes(data))
    listing = Catalog(store, PROJECT).listing()
    assert len(listing) == 100
    with pytest.raises(Corrupt, match=name):
        listing.table()
