"""Parts that are put together from pages: any Parquet reader takes them for Arrow's, and what repeats is encoded once."""

from __future__ import annotations

import functools
import io
import operator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace_proto.errors import Corrupt
from headrace_proto.limits import ROW_GROUP_POINTS
from headrace_proto.store import pages, parts, stretches
from headrace_proto.store.stretches import Stretch
from tests.proto.store_core.script import NOW_NS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace_proto.store.backend import Store

NOW_US = NOW_NS // 1000
_NOISE = np.random.default_rng(3)


def _grid(names: Sequence[str], rows: int) -> list[Stretch]:
    """Channels of one array of steps, in the order of their names."""
    steps = np.arange(rows, dtype=np.float64) - 2
    times_us = NOW_US + 50_000 * np.arange(rows) + _NOISE.integers(0, 2_000, rows)
    values = _NOISE.normal(size=rows * len(names))
    return [Stretch(name, rows, steps, times_us, 0, values, i * rows) for i, name in enumerate(sorted(names))]


def _neighbours(lengths: Sequence[tuple[str, int]]) -> list[Stretch]:
    """Channels that lie one behind the other in all arrays, as sorting leaves them."""
    rows = sum(count for _, count in lengths)
    steps, values = np.concatenate([np.arange(count, dtype=float) for _, count in lengths]), _NOISE.normal(size=rows)
    times_us, found, at = NOW_US + np.arange(rows), [], 0
    for name, count in sorted(lengths):
        found.append(Stretch(name, count, steps, times_us, at, values, at))
        at += count
    return found


def _bytes(told: Sequence[Stretch]) -> bytes:
    return b"".join(stretches.encoded(told))


def _table(told: Sequence[Stretch]) -> pa.Table:
    return pa.concat_tables([stretch.table() for stretch in told]).unify_dictionaries()


def _rows(table: pa.Table) -> list[bytes]:
    """The columns bit for bit: -0.0 is not 0.0, and a NaN equals itself."""
    channels = repr(table["channel"].cast(pa.string()).to_pylist()).encode()
    numbers = table["step"], table["time"].cast(pa.int64()), table["value"]
    return [channels, *(column.to_numpy().tobytes() for column in numbers)]


def _bounds(group: Any, column: int) -> tuple[str, str, int] | None:
    told = group.column(column).statistics
    return (repr(told.min), repr(told.max), told.null_count) if told else None


_LONG = ROW_GROUP_POINTS + 5
_ODD_NAMES = ["x" * 1024, "é" * 512, "\uffff", "\U00010000", "\ue000", "Z", "z", "a b", "o'q", "a/b", "\u200b", "日本"]
"""As long as may be; in the order of UTF-8, which is not that of UTF-16; and some that need care in other formats."""
_SHAPES = {
    "one point": _neighbours([("a", 1)]),
    "a grid": _grid(["loss", "acc", "größe/Δ", "layer10", "layer2"], 300),
    "a grid of long channels": _grid(["a", "b"], _LONG),
    "a channel of several row groups": _grid(["a"], parts.ROW_GROUP_ROWS_MAX + 3),
    "many short channels": _neighbours([(f"c{i:04d}", 1 + i % 7) for i in range(700)]),
    "long and short ones": _neighbours([("a", 5), ("b", _LONG), ("c", 9), ("d", 70)]),
    "odd names": _grid(_ODD_NAMES, 3),
    "a grid between points": sorted(
        [*_grid(["b", "d", "e"], 400), *_neighbours([("a", 3), ("c", 2), ("f", 1)])],
        key=lambda stretch: stretch.channel,
    ),
}


@pytest.mark.parametrize("shape", _SHAPES)
def test_a_part_is_what_arrow_would_have_written(shape: str) -> None:
    """The same rows, types, row groups, bounds and words in the footer, whatever way it was written."""
    told = _SHAPES[shape]
    ours, arrows = (pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True) for data in (
        _bytes(told), parts.encoded("numeric", _table(told)),
    ))  # fmt: skip
    assert ours.schema.equals(arrows.schema)
    assert ours.schema_arrow.equals(arrows.schema_arrow, check_metadata=True)
    assert _rows(ours.read()) == _rows(arrows.read()) == _rows(_table(told))
    mine, theirs = ours.metadata, arrows.metadata
    words = [
        {key: value for key, value in (file.metadata or {}).items() if key != b"ARROW:schema"}
        for file in (mine, theirs)
    ]
    assert words[0] == words[1]
    assert (mine.num_rows, mine.num_row_groups) == (theirs.num_rows, theirs.num_row_groups)
    for number in range(mine.num_row_groups):
        one, other = mine.row_group(number), theirs.row_group(number)
        assert one.num_rows == other.num_rows
        for column in range(4):
            assert _bounds(one, column) == _bounds(other, column)
            assert one.column(column).compression == other.column(column).compression
            assert set(one.column(column).encodings) <= {*other.column(column).encodings, "RLE"}


_STEP = st.sampled_from([0.0, -0.0, -1.5, 1.0, 1e300])
_VALUE = st.floats(width=64)


@given(st.lists(st.tuples(_STEP, st.integers(0, 3), _VALUE), min_size=1, max_size=40), st.integers(1, 4))
def test_any_points_come_back(points: list[tuple[float, int, float]], channels: int) -> None:
    """Bit for bit, with bounds that hold either zero."""
    steps, times, values = (np.array(column) for column in zip(*points, strict=True))
    rows, flat = len(points), np.tile(values, channels)
    told = [Stretch(f"c{i}", rows, steps, NOW_US + times.astype(np.int64), 0, flat, i * rows) for i in range(channels)]
    data = _bytes(told)
    assert _rows(pq.read_table(io.BytesIO(data), read_dictionary=["channel"])) == _rows(_table(told))
    low, high = steps.min().item(), steps.max().item()
    expected = repr(low or -0.0), repr(high or 0.0), 0
    assert _bounds(pq.read_metadata(io.BytesIO(data)).row_group(0), 1) == expected


def test_what_channels_share_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of twenty channels with a row group each, steps and times are encoded once and stand there twenty times."""
    encoded: list[int] = []
    floats, times = pages.floats_chunk, pages.times_chunks

    def counted_floats(values: Any, *, bounds: bool) -> pages.Chunk:
        encoded.append(len(values))
        return floats(values, bounds=bounds)

    def counted_times(columns: Any) -> list[pages.Chunk]:
        encoded.extend(map(len, columns))
        return times(columns)

    monkeypatch.setattr(pages, "floats_chunk", counted_floats)
    monkeypatch.setattr(pages, "times_chunks", counted_times)
    data = _bytes(_grid([f"c{i:02d}" for i in range(20)], _LONG))
    assert encoded == [_LONG] * 22
    metadata = pq.read_metadata(io.BytesIO(data))
    for column in (1, 2):
        chunks = [metadata.row_group(group).column(column) for group in range(20)]
        bodies = {data[chunk.data_page_offset :][: chunk.total_compressed_size] for chunk in chunks}
        assert len(bodies) == 1


@pytest.mark.parametrize("shape", _SHAPES)
def test_duckdb_reads_what_arrow_reads(shape: str, tmp_path: Path) -> None:
    """Bit for bit, whatever the shape: a reader that knows nothing of Arrow's own words."""
    told = _SHAPES[shape]
    path = tmp_path / "part.parquet"
    path.write_bytes(_bytes(told))
    with duckdb.connect() as connection:
        asked = f"SELECT channel, step, epoch_us(time) AS time, value FROM '{path}'"
        found = connection.execute(asked).fetchnumpy()
    channels = repr(found["channel"].tolist()).encode()
    assert [channels, *(np.asarray(found[name]).tobytes() for name in ("step", "time", "value"))] == _rows(_table(told))


_BITS = st.one_of(
    st.integers(0, 2**64 - 1),
    st.sampled_from([0, 1 << 63, 1, 0x7FF0000000000000, 0xFFF0000000000000, 0x7FF8000000000001, 0xFFF8DEADBEEF0001]),
)
"""Of a value: zeros, infinities and NaN of any payload among them."""
_STEPS = st.one_of(st.sampled_from([0.0, -0.0, 1.0, 5e-324]), st.floats(allow_nan=False, allow_infinity=False))
_TIMES = st.integers(0, 2**64 // 1000)
_POINTS = st.lists(st.tuples(_STEPS, _TIMES, _BITS), min_size=1, max_size=30)
_Points = list[tuple[float, int, int]]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row groups and pages of a few rows."""
    monkeypatch.setattr(parts, "ROW_GROUP_POINTS", 4)
    monkeypatch.setattr(parts, "ROW_GROUP_ROWS_MAX", 8)
    monkeypatch.setattr(pages, "PAGE_ROWS", 3)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    channels=st.dictionaries(st.sampled_from(["a", "b", "é", "\uffff", "\U00010000"]), _POINTS, min_size=1),
    data=st.data(),
)
@pytest.mark.usefixtures("tiny")
def test_no_reader_loses_rows_by_the_bounds(channels: dict[str, _Points], data: st.DataObject, tmp_path: Path) -> None:
    """Arrow, with threads, and DuckDB skip row groups by their bounds: they find what a look at each row finds."""
    told, every = [], list[tuple[str, float, int, int]]()
    for name in sorted(channels):
        points = sorted(channels[name], key=lambda point: point[:2])
        steps, times, bits = zip(*points, strict=True)
        values = np.array(bits, np.uint64).view(np.float64)
        told.append(Stretch(name, len(points), np.array(steps), np.array(times, np.int64), 0, values, 0))
        every += [(name, *point) for point in points]
    path = tmp_path / "part.parquet"
    path.write_bytes(_bytes(told))
    wanted, begin, end = (data.draw(st.sampled_from(every)) for _ in range(3))
    low, high = sorted([begin[1], end[1]])
    since, until = sorted([begin[2], end[2]])
    step, time = pc.field("step"), pc.field("time")
    chosen = data.draw(st.sets(st.sampled_from([0, 1, 2]), min_size=1))
    conditions: list[tuple[str, list[Any], pc.Expression, list[bool]]] = [
        ("channel = ?", [wanted[0]], pc.field("channel") == wanted[0], [row[0] == wanted[0] for row in every]),
        ("step BETWEEN ? AND ?", [low, high], (step >= low) & (step <= high), [low <= row[1] <= high for row in every]),
        (
            "epoch_us(time) BETWEEN ? AND ?",
            [since, until],
            (time >= _at(since)) & (time <= _at(until)),
            [since <= row[2] <= until for row in every],
        ),
    ]
    words, arguments, filters, found = zip(*(conditions[index] for index in chosen), strict=True)
    expected = [row[3] for row, *is_wanted in zip(every, *found, strict=True) if all(is_wanted)]
    arrow = pq.read_table(path, filters=functools.reduce(operator.and_, filters), use_threads=True)
    assert arrow["value"].to_numpy().view(np.uint64).tolist() == expected
    asked = f"SELECT value FROM '{path}' WHERE {' AND '.join(words)}"
    duck = duckdb.execute(asked, [argument for some in arguments for argument in some]).fetchnumpy()
    assert np.asarray(duck["value"]).view(np.uint64).tolist() == expected


def _at(time_us: int) -> pa.Scalar[Any]:
    return pa.scalar(time_us, pa.timestamp("us", "UTC"))


def test_duckdb_finds_channels_and_steps(tmp_path: Path) -> None:
    """Another reader than Arrow prunes by the bounds, and gives the same answers."""
    told = _SHAPES["a grid between points"]
    path = tmp_path / "part.parquet"
    path.write_bytes(_bytes(told))
    with duckdb.connect() as connection:
        asked = f"SELECT count(*), sum(value), min(epoch_us(time)) FROM '{path}' WHERE channel = 'd' AND step >= 100"
        count, total, first = connection.execute(asked).fetchall()[0]
        everything = connection.execute(f"SELECT channel, count(*) FROM '{path}' GROUP BY 1 ORDER BY 1").fetchall()
    grid = next(stretch for stretch in told if stretch.channel == "d")
    values = grid.values[grid.value_at :][: grid.rows]
    assert (count, first) == (298, grid.times_us[102])
    assert total == pytest.approx(values[102:].sum())
    assert everything == [(stretch.channel, stretch.rows) for stretch in told]


def test_a_damaged_page_is_found(files: Store) -> None:
    """Every page of every column has its checksum: a bit that is turned is Corrupt, never a wrong value."""
    told = _grid(["a", "b"], 3_000)
    data = _bytes(told)
    group = pq.read_metadata(io.BytesIO(data)).row_group(0)
    for column in range(4):
        chunk = group.column(column)
        damaged = bytearray(data)
        damaged[chunk.data_page_offset + chunk.total_compressed_size - 10 - (column == 0)] ^= 4
        files.put("part.parquet", bytes(damaged))
        with pytest.raises(Corrupt):
            parts.read(files, "numeric", ["part.parquet"])
