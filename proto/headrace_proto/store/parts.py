"""Parts: the Parquet files that hold an experiment's points. Any tool reads them; ours reads only what it needs.

numeric   channel, step, time, value
text      channel, step, time, value, file        value is null where the text is too long for a row and lies in `file`
image     channel, step, time, name, description, file, size, sha256

Invariants
1. A part never changes once a commit names it.
2. Its rows are sorted by channel (as UTF-8 bytes), step and time; those that tie keep the order of their commits.
3. A channel with ROW_GROUP_POINTS points or more has row groups of its own; smaller ones share. The footer's statistics find
   them for any tool, and its entry `headrace.channels` lists each channel with its number of rows.

Encodings, as measured on noisy float64 values at 20 Hz: BYTE_STREAM_SPLIT for step and value and DELTA_BINARY_PACKED for
microseconds under zstd-3 take 8.6 bytes a point; a writer's defaults take 16.4. Times are not compressed once more: they are packed
bit by bit, zstd finds nothing there (1.55 bytes either way) and takes 5 ns a point.

Merges, texts and images are written here. The numbers of a commit are written by `stretches`, to the same effect.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, BinaryIO, Final, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from headrace_proto.errors import Corrupt, FormatUnknown
from headrace_proto.limits import ROW_GROUP_POINTS
from headrace_proto.store.backend import Store
from headrace_proto.store.commits import PartKind
from headrace_proto.store.sorting import series_order

PART_FORMAT: Final = "1"
ROW_GROUP_ROWS_MAX: Final = 8 * ROW_GROUP_POINTS
"""A longer channel has several row groups: what a merge holds of one stays near 15 MiB."""
ZSTD_LEVEL: Final = 3
WRITE_ROWS: Final = 64 * 1024
"""Handed to Arrow's encoders at a time: with its own 1,024 a part takes a tenth longer."""
READ_BYTES: Final = 64 * 1024
"""Read at a time: a column chunk passes through as a stream, else a merge of 64 parts would hold 64 of them."""

_CHANNEL: Final = pa.field("channel", pa.dictionary(pa.int32(), pa.string()), nullable=False)
_STEP: Final = pa.field("step", pa.float64(), nullable=False)
_TIME: Final = pa.field("time", pa.timestamp("us", "UTC"), nullable=False)
_FILE: Final = pa.field("file", pa.string())

NUMERIC: Final = pa.schema([_CHANNEL, _STEP, _TIME, pa.field("value", pa.float64(), nullable=False)])
TEXT: Final = pa.schema([_CHANNEL, _STEP, _TIME, pa.field("value", pa.string()), _FILE])
IMAGE: Final = pa.schema(
    [
        _CHANNEL,
        _STEP,
        _TIME,
        pa.field("name", pa.string()),
        pa.field("description", pa.string()),
        _FILE,
        pa.field("size", pa.int64()),
        pa.field("sha256", pa.string()),
    ]
)
SCHEMAS: Final[dict[PartKind, pa.Schema]] = {"numeric": NUMERIC, "text": TEXT, "image": IMAGE}

FORMAT_KEY: Final = "headrace.format"
CHANNELS_KEY: Final = "headrace.channels"
_ENCODINGS: Final = {"step": "BYTE_STREAM_SPLIT", "time": "DELTA_BINARY_PACKED", "value": "BYTE_STREAM_SPLIT"}

ChannelRows = list[tuple[str, int]]
"""Each channel of a part with its number of rows, in order."""


# -- Writing ------------------------------------------------------------------------------------------------------------


def channel_rows(table: pa.Table) -> ChannelRows:
    """The channels of a sorted table with their numbers of rows."""
    counts: Counter[str] = Counter()
    for names, codes in _dictionaries(table):
        counts.update({names[code]: count for code, count in enumerate(np.bincount(codes).tolist()) if count})
    return sorted(counts.items())


def _dictionaries(table: pa.Table) -> Iterator[tuple[list[str], NDArray[np.int32]]]:
    """Of each chunk of the channel column: the names, and which one each row has."""
    for chunk in table["channel"].chunks:
        column = cast("pa.DictionaryArray[Any, Any]", chunk)
        yield cast("list[str]", column.dictionary.to_pylist()), column.indices.to_numpy()


def row_group_sizes(channels: ChannelRows) -> list[int]:
    """Rows of each row group: long channels have their own, short ones share.

    >>> row_group_sizes([("a", 10), ("b", 70_000), ("c", 5)])
    [10, 70000, 5]
    """
    sizes: list[int] = []
    shared = 0
    for _, rows in channels:
        if rows < ROW_GROUP_POINTS and shared + rows <= 2 * ROW_GROUP_POINTS:
            shared += rows
            continue
        sizes += [shared] if shared else []
        shared = rows if rows < ROW_GROUP_POINTS else 0
        if not shared:
            sizes += [ROW_GROUP_ROWS_MAX] * (rows // ROW_GROUP_ROWS_MAX)
            sizes += [rows % ROW_GROUP_ROWS_MAX] if rows % ROW_GROUP_ROWS_MAX else []
    return sizes + ([shared] if shared else [])


def encoded(kind: PartKind, table: pa.Table) -> bytes:
    """A sorted table as a part's bytes."""
    return b"".join(encoded_blocks(kind, [table], channel_rows(table)))


def encoded_blocks(kind: PartKind, tables: Iterable[pa.Table], channels: ChannelRows) -> Iterator[bytes]:
    """A part's bytes, block by block, from tables that together are sorted. Holds one row group at a time."""
    sink = io.BytesIO()
    with _writer(kind, sink) as writer:
        for group in _regrouped(tables, row_group_sizes(channels)):
            writer.write_table(group, row_group_size=max(group.num_rows, 1))
            yield _drained(sink)
        writer.add_key_value_metadata({FORMAT_KEY: PART_FORMAT, CHANNELS_KEY: json.dumps(channels)})
    yield _drained(sink)


def _writer(kind: PartKind, sink: IO[bytes]) -> pq.ParquetWriter:
    schema = SCHEMAS[kind]
    encodings = {
        name: way for name, way in _ENCODINGS.items() if name in schema.names and schema.field(name).type != pa.string()
    }
    packed = [name for name in schema.names if name != "time"]
    return pq.ParquetWriter(
        sink,
        schema,
        compression={"time": "none", **dict.fromkeys(packed, "zstd")},
        compression_level=dict.fromkeys(packed, ZSTD_LEVEL),
        use_dictionary=["channel"],  # type: ignore[arg-type]  # the stubs know only bool
        column_encoding=encodings,
        write_statistics=["channel", "step", "time"],  # by which one looks for rows; a value's cost 3 ns a point
        write_batch_size=WRITE_ROWS,
        write_page_checksum=True,
    )


def _drained(sink: io.BytesIO) -> bytes:
    """What was written since the last call. The writer never goes back, so it need not be kept."""
    block = sink.getvalue()
    sink.seek(0)
    sink.truncate()
    return block


def _regrouped(tables: Iterable[pa.Table], sizes: Sequence[int]) -> Iterator[pa.Table]:
    """The same rows in tables of the given sizes."""
    source = iter(tables)
    held: list[pa.Table] = []
    rows = 0
    for size in sizes:
        while rows < size:
            table = next(source)
            held.append(table)
            rows += table.num_rows
        joined = pa.concat_tables(held)
        yield joined.slice(0, size)
        held, rows = [joined.slice(size)], rows - size


# -- Reading ------------------------------------------------------------------------------------------------------------


class OpenPart:
    """A part that is being read, by the caller's thread alone. One of Arrow's that calls a Python file may do so while the
    interpreter ends, which aborts it (apache/arrow#34314, #50482); and two threads read 1 M points no faster.

    What Arrow says of bytes that are no part is `Corrupt` or `FormatUnknown`; what the store says when it fails comes out as it is.
    Arrow hands both on, and only the file knows which it was.
    """

    def __init__(self, path: str, file: BinaryIO) -> None:
        self._path = path
        self._file = _Watched(file)
        with self._damage_told():
            self._parquet = pq.ParquetFile(
                cast("BinaryIO", self._file),
                read_dictionary=["channel"],
                pre_buffer=False,
                buffer_size=READ_BYTES,
                page_checksum_verification=True,
            )
            metadata = self._parquet.metadata
            facts = metadata.metadata or {}
            if facts.get(FORMAT_KEY.encode()) != PART_FORMAT.encode():
                raise FormatUnknown(
                    f"{path} has format {facts.get(FORMAT_KEY.encode())!r}; this release knows {PART_FORMAT}"
                )
            self.channels: ChannelRows = [
                (str(name), int(rows)) for name, rows in json.loads(facts[CHANNELS_KEY.encode()])
            ]
            self.schema = self._parquet.schema_arrow
            self.rows: int = metadata.num_rows
            self.group_rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
            if sum(count for _, count in self.channels) != self.rows or any(count < 1 for _, count in self.channels):
                raise Corrupt(f"{path} is damaged: it has {self.rows} rows, and its list of channels says otherwise")

    def read(self, schema: pa.Schema) -> pa.Table:
        """All rows, of the columns that `schema` names."""
        with self._damage_told():
            return self._parquet.read(columns=schema.names, use_threads=False).cast(schema)

    def read_group(self, group: int, schema: pa.Schema) -> pa.Table:
        """The rows of one row group."""
        with self._damage_told():
            return self._parquet.read_row_group(group, columns=schema.names, use_threads=False).cast(schema)

    def blocks(self, rows: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows, `rows` at a time at most, in bounded memory."""
        with self._damage_told():
            batches = self._parquet.iter_batches(rows, columns=list(columns), use_threads=False)
        while True:
            with self._damage_told():
                block = next(batches, None)
            if block is None:
                return
            yield block

    def close(self) -> None:
        """Let go of what Arrow holds. The file is its opener's."""
        self._parquet.close()

    @contextmanager
    def _damage_told(self) -> Iterator[None]:
        try:
            yield
        except (Corrupt, FormatUnknown):
            raise
        except (OSError, pa.ArrowException, ValueError, TypeError, KeyError, RecursionError) as error:
            if self._file.failure is not None:
                raise self._file.failure from None
            raise Corrupt(f"{self._path} is damaged: {error}") from error


class _Watched:
    """A file as Arrow reads it, and what its store failed with."""

    def __init__(self, file: BinaryIO) -> None:
        self.failure: OSError | None = None
        self._file = file

    def read(self, size: int = -1) -> bytes:
        with self._noted():
            return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        with self._noted():
            return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    @property
    def closed(self) -> bool:
        return self._file.closed

    def close(self) -> None:
        """The file is its opener's."""

    @contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failure = error
            raise


@contextmanager
def opened(store: Store, path: str) -> Iterator[OpenPart]:
    """A part, to be read from. Raises `FormatUnknown`, `Corrupt`, or `OSError` when the store fails."""
    with store.open(path) as file:
        part = OpenPart(path, file)
        try:
            yield part
        finally:
            part.close()


def read(store: Store, kind: PartKind, paths: Iterable[str], channels: Collection[str] | None = None) -> pa.Table:
    """The points of some channels (all, if None) in parts, given oldest first; sorted as a part is."""
    tables: list[pa.Table] = []
    for path in paths:
        with opened(store, path) as part:
            if channels is None:
                tables.append(part.read(SCHEMAS[kind]))
            else:
                tables += [table for _, table in _slices(part, SCHEMAS[kind], channels)]
    joined = pa.concat_tables([SCHEMAS[kind].empty_table(), *tables]).unify_dictionaries()
    if len(tables) < 2:
        return joined
    order = series_order(_channel_ranks(joined), joined["step"].to_numpy(), times_us(joined))
    return joined if order is None else joined.take(order)


def files(store: Store, paths: Iterable[str]) -> set[str]:
    """The files that rows of text or image parts name, from the experiment's folder."""
    found: set[str] = set()
    for path in paths:
        with opened(store, path) as part:
            found.update(file for file in part.read(pa.schema([_FILE]))["file"].to_pylist() if file is not None)
    return found


def series(store: Store, kind: PartKind, paths: Iterable[str], channels: Collection[str]) -> dict[str, pa.Table]:
    """The points of each of some channels in parts, given oldest first, in order; without the column that names the channel.

    A channel of one part is in order, and one that several parts continue mostly is: no row is looked at for its channel.
    """
    schema = SCHEMAS[kind].remove(SCHEMAS[kind].get_field_index("channel"))
    found: dict[str, list[pa.Table]] = {name: [schema.empty_table()] for name in channels}
    for path in paths:
        with opened(store, path) as part:
            for name, table in _slices(part, schema, channels):
                found[name].append(table)
    return {name: _in_order(pa.concat_tables(tables)) for name, tables in found.items()}


def _in_order(table: pa.Table) -> pa.Table:
    order = series_order(np.zeros(table.num_rows, np.uint8), table["step"].to_numpy(), times_us(table))
    return table if order is None else table.take(order)


def _slices(part: OpenPart, schema: pa.Schema, channels: Collection[str]) -> Iterator[tuple[str, pa.Table]]:
    """The rows of some channels, each channel's in order, of the row groups that have any of them."""
    first, ranges = 0, []
    for name, count in part.channels:
        if name in channels:
            ranges.append((name, first, first + count))
        first += count
    first = 0
    for group, rows in enumerate(part.group_rows):
        end = first + rows
        mine = [(name, max(a, first), min(b, end)) for name, a, b in ranges if a < end and first < b]
        if mine:
            table = part.read_group(group, schema)
            yield from ((name, table.slice(a - first, b - a)) for name, a, b in mine)
        first = end


def _channel_ranks(table: pa.Table) -> NDArray[np.int32]:
    """For each row the place of its channel among the sorted names."""
    chunks = list(_dictionaries(table))
    place = {name: rank for rank, name in enumerate(sorted({name for names, _ in chunks for name in names}))}
    return np.concatenate(
        [np.array([place[name] for name in names], np.int32)[codes] for names, codes in chunks if len(codes)]
    )


def times_us(table: pa.Table) -> NDArray[np.int64]:
    """The times as microseconds since 1970."""
    times: NDArray[np.int64] = table["time"].cast(pa.int64()).to_numpy()
    return times
