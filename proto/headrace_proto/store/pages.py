"""Parquet files that are put together from pages: what Arrow's writer does for any table, for columns that repeat.

Parquet has no shared columns, but nothing says that equal bytes must be computed twice: the steps of fifty channels that were
logged together are encoded once and stand in the file fifty times. The format's own names and numbers are those of
https://github.com/apache/parquet-format (parquet.thrift and Encodings.md). Only what a numeric part needs is here: required
columns without levels, data pages of version 1.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any, Final, NamedTuple, cast
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from headrace_proto.store.thrift import (
    BINARY,
    I32,
    STRUCT,
    TRUE,
    Field,
    binary,
    i16,
    i32,
    i64,
    integer,
    many,
    record,
    struct,
    text,
    varint,
)

PAGE_ROWS: Final = 64 * 1024
"""Rows of a page at most: 512 KiB, which is what a merge of 64 parts holds of each column."""
ZSTD_LEVEL: Final = -1
"""Of parts that are soon merged: 4 ns a noisy value, where level 3 takes 8 and finds one percent more."""

Block = bytes | memoryview

_MAGIC: Final = b"PAR1"
_DATA_PAGE, _DICTIONARY_PAGE = 0, 2
_PLAIN, _RLE, _DELTA_BINARY_PACKED, _RLE_DICTIONARY, _BYTE_STREAM_SPLIT = 0, 3, 5, 8, 9
_INT64, _DOUBLE, _BYTE_ARRAY = 2, 5, 6
_UNCOMPRESSED, _ZSTD = 0, 6
_REQUIRED: Final = 0
_CREATED_BY: Final = "headrace version 1.0.0"


class Chunk(NamedTuple):
    """One column of one row group: its pages, and what the footer says of them."""

    pages: list[Block]
    size: int
    raw_size: int
    kind: int
    encoding: int
    codec: int
    dictionary_size: int = 0
    """Bytes of the dictionary page, which is the first."""
    low: bytes | None = None
    high: bytes | None = None


class Group(NamedTuple):
    """A row group: a chunk for each column."""

    rows: int
    chunks: Sequence[Chunk]


# -- Chunks -------------------------------------------------------------------------------------------------------------


def names_chunk(names: Sequence[str], rows: Sequence[int]) -> Chunk:
    """Strings in ascending order, each as often as `rows` says."""
    encoded = [name.encode() for name in names]
    width = max(1, (len(names) - 1).bit_length())
    runs = b"".join(varint(count << 1) + index.to_bytes((width + 7) // 8, "little") for index, count in enumerate(rows))
    entries = b"".join(len(name).to_bytes(4, "little") + name for name in encoded)
    dictionary, dictionary_raw = _page(_DICTIONARY_PAGE, entries, len(names), _PLAIN)
    data, data_raw = _page(_DATA_PAGE, bytes([width]) + runs, sum(rows), _RLE_DICTIONARY)
    size = _size(dictionary)
    return Chunk(
        [*dictionary, *data],
        size + _size(data),
        dictionary_raw + data_raw,
        _BYTE_ARRAY,
        _RLE_DICTIONARY,
        _ZSTD,
        size,
        encoded[0],
        encoded[-1],
    )


def floats_chunk(values: NDArray[np.float64], *, bounds: bool) -> Chunk:
    """Numbers, whose bytes are split into streams. `bounds` are for columns without NaN."""
    pages: list[Block] = []
    raw_size = 0
    for begin in range(0, len(values), PAGE_ROWS):
        some = values[begin : begin + PAGE_ROWS]
        streams = np.ascontiguousarray(some.view(np.uint8).reshape(-1, 8).T)
        page, raw = _page(_DATA_PAGE, streams.data, len(some), _BYTE_STREAM_SPLIT)
        pages += page
        raw_size += raw
    chunk = Chunk(pages, _size(pages), raw_size, _DOUBLE, _BYTE_STREAM_SPLIT, _ZSTD)
    if not bounds:
        return chunk
    # zeros compare equal: the bounds must hold whichever of them are there
    low, high = (values.min() or -0.0), (values.max() or 0.0)
    return chunk._replace(low=np.float64(low).tobytes(), high=np.float64(high).tobytes())


def times_chunks(columns: Sequence[NDArray[np.int64]]) -> list[Chunk]:
    """A chunk for each of some columns of integers, packed by their differences. Not compressed once more: zstd finds nothing."""
    if not columns:
        return []
    schema = pa.schema([pa.field("time", pa.int64(), nullable=False)])
    sink = io.BytesIO()
    collected: list[pq.FileMetaData] = []
    with pq.ParquetWriter(
        sink,
        schema,
        compression="none",
        use_dictionary=False,
        column_encoding={"time": "DELTA_BINARY_PACKED"},
        write_batch_size=PAGE_ROWS,
        write_page_checksum=True,
        metadata_collector=collected,
    ) as writer:
        for column in columns:
            writer.write_table(pa.table([pa.array(column)], schema=schema), row_group_size=len(column))
    written = sink.getbuffer()
    return [_times_chunk(written, collected[0].row_group(group).column(0)) for group in range(len(columns))]


def _times_chunk(file: memoryview, column: Any) -> Chunk:
    begin, size = column.data_page_offset, column.total_compressed_size
    low, high = (
        int(bound).to_bytes(8, "little", signed=True) for bound in (column.statistics.min, column.statistics.max)
    )
    pages: list[Block] = [file[begin : begin + size]]
    return Chunk(pages, size, size, _INT64, _DELTA_BINARY_PACKED, _UNCOMPRESSED, low=low, high=high)


def _page(kind: int, data: Any, values: int, encoding: int) -> tuple[list[Block], int]:
    """A page, header and body, and what it would take uncompressed."""
    packed = _zstd().compress(data)
    body = memoryview(packed)[: packed.size]  # Arrow's view is as long as the most that it could have become
    raw = memoryview(data).nbytes
    checksum = crc32(body)
    counted = [i32(1, values), i32(2, encoding)]  # num_values, encoding
    levels = [i32(3, _RLE), i32(4, _RLE)]  # definition_level_encoding and its like, of which there are none
    # dictionary_page_header, data_page_header
    details = record(7, counted) if kind == _DICTIONARY_PAGE else record(5, [*counted, *levels])
    header = struct(
        [
            i32(1, kind),  # type
            i32(2, raw),  # uncompressed_page_size
            i32(3, body.nbytes),  # compressed_page_size
            i32(4, checksum - (checksum >> 31 << 32)),  # crc, which is signed
            details,
        ]
    )
    return [header, body], len(header) + raw


@cache
def _zstd() -> pa.Codec:
    return pa.Codec("zstd", ZSTD_LEVEL)


def _size(blocks: Sequence[Block]) -> int:
    return sum(len(block) for block in blocks)


# -- The file -----------------------------------------------------------------------------------------------------------


def file(schema: pa.Schema, groups: Iterable[Group], metadata: dict[str, str]) -> Iterator[Block]:
    """A file's bytes, block by block. `schema` is of required strings, times in UTC and doubles; `metadata` is for readers."""
    offset = len(_MAGIC)
    rows, records = 0, []
    yield _MAGIC
    for number, group in enumerate(groups):
        rows += group.rows
        records.append(_group_record(schema, group, number, offset))
        for chunk in group.chunks:
            yield from chunk.pages
            offset += chunk.size
    said = {**_arrow_metadata(schema), **metadata}
    pairs = [struct([text(1, key), text(2, value)]) for key, value in said.items()]
    footer = struct(
        [
            i32(1, 2),  # version
            many(2, STRUCT, _schema_records(schema)),  # schema
            i64(3, rows),  # num_rows
            many(4, STRUCT, records),  # row_groups
            many(5, STRUCT, pairs),  # key_value_metadata
            text(6, _CREATED_BY),  # created_by
            many(7, STRUCT, [struct([record(1, [])])] * len(schema)),  # column_orders: each type's own
        ]
    )
    yield footer + len(footer).to_bytes(4, "little") + _MAGIC


def _group_record(schema: pa.Schema, group: Group, number: int, offset: int) -> bytes:
    begin, columns = offset, []
    for name, chunk in zip(schema.names, group.chunks, strict=True):
        details = record(3, _column_fields(name, chunk, group.rows, offset))  # meta_data
        columns.append(struct([i64(2, 0), details]))  # file_offset, which nobody writes any more
        offset += chunk.size
    return struct(
        [
            many(1, STRUCT, columns),  # columns
            i64(2, sum(chunk.raw_size for chunk in group.chunks)),  # total_byte_size
            i64(3, group.rows),  # num_rows
            i64(5, begin),  # file_offset
            i64(6, offset - begin),  # total_compressed_size
            i16(7, number),  # ordinal
        ]
    )


def _column_fields(name: str, chunk: Chunk, rows: int, offset: int) -> Iterator[Field]:
    encodings = [_PLAIN, _RLE, chunk.encoding] if chunk.dictionary_size else [_RLE, chunk.encoding]
    yield i32(1, chunk.kind)  # type
    yield many(2, I32, [integer(encoding) for encoding in encodings])  # encodings
    yield many(3, BINARY, [binary(name.encode())])  # path_in_schema
    yield i32(4, chunk.codec)  # codec
    yield i64(5, rows)  # num_values
    yield i64(6, chunk.raw_size)  # total_uncompressed_size
    yield i64(7, chunk.size)  # total_compressed_size
    yield i64(9, offset + chunk.dictionary_size)  # data_page_offset
    if chunk.dictionary_size:
        yield i64(11, offset)  # dictionary_page_offset
    if chunk.low is not None and chunk.high is not None:
        bounds = [i64(3, 0), text(5, chunk.high), text(6, chunk.low)]  # null_count, max_value, min_value
        yield record(12, bounds)  # statistics


def _schema_records(schema: pa.Schema) -> list[bytes]:
    """The root, then each column."""
    return [struct([text(4, "schema"), i32(5, len(schema))]), *(_field_record(field) for field in schema)]


def _field_record(field: pa.Field[Any]) -> bytes:
    if pa.types.is_dictionary(field.type):
        kind, meaning = _BYTE_ARRAY, [i32(6, 0), record(10, [record(1, [])])]  # converted_type UTF8, logicalType STRING
    elif pa.types.is_timestamp(field.type):
        timestamp = record(8, [(1, TRUE, b""), record(2, [record(2, [])])])  # isAdjustedToUTC, unit MICROS
        kind, meaning = _INT64, [i32(6, 10), record(10, [timestamp])]  # converted_type TIMESTAMP_MICROS, logicalType
    else:
        kind, meaning = _DOUBLE, []
    return struct([i32(1, kind), i32(3, _REQUIRED), text(4, field.name), *meaning])  # type, repetition_type, name


@cache
def _arrow_metadata(schema: pa.Schema) -> dict[str, str]:
    """By which Arrow finds its own types again."""
    sink = io.BytesIO()
    pq.write_table(schema.empty_table(), sink)
    metadata = cast("dict[bytes, bytes]", pq.read_metadata(sink).metadata)
    return {key.decode(): value.decode() for key, value in metadata.items()}
