"""Rows of the catalog as a table of columns: a list of 100,000 experiments is filtered and shown in vectors, not row by row.

Each field of `CatalogRow` is a column of the same name. What an experiment has under names of its own choice (parameters,
properties, last values) is a map column, so that any tool asks for `metrics['loss']`; a parameter's value is JSON.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import TypeAdapter
from pydantic_core import from_json, to_json

from headrace_proto.errors import FormatUnknown
from headrace_proto.store.catalog.row import CatalogRow
from headrace_proto.store.times import EPOCH

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

FORMAT: Final = b"2"
_ROWS_AS_JSON: Final = b"1"
"""The format before: a `row` in JSON beside the columns that were filtered by."""
_FORMAT_KEY: Final = b"headrace.catalog"
_ZSTD_LEVEL: Final = 1
_NUMBER: Final = r"^(?:.*-)?([0-9]{1,18})$"
_GROUP_ROWS: Final = 8 * 1024
"""Of a row group: whoever shows a few of many rows decodes one or two of these."""

_TIME: Final = pa.timestamp("us", tz="UTC")
_COLUMNS: Final[list[tuple[str, pa.DataType]]] = [
    ("experiment", pa.string()),
    ("commit", pa.int64()),
    ("id", pa.string()),
    ("name", pa.string()),
    ("state", pa.string()),
    ("owner", pa.string()),
    ("created_at", _TIME),
    ("finished_at", _TIME),
    ("seen_at", _TIME),
    ("description", pa.string()),
    ("hostname", pa.string()),
    ("size", pa.int64()),
    ("tags", pa.list_(pa.string())),
    ("params", pa.map_(pa.string(), pa.string())),
    ("properties", pa.map_(pa.string(), pa.string())),
    ("metrics", pa.map_(pa.string(), pa.float64())),
    ("texts", pa.map_(pa.string(), pa.string())),
]
SCHEMA: Final = pa.schema(_COLUMNS, metadata={_FORMAT_KEY: FORMAT})
_MAPS: Final = frozenset(name for name, kind in _COLUMNS if pa.types.is_map(kind))
_TIMES: Final = frozenset(name for name, kind in _COLUMNS if kind == _TIME)
_REPEATED: Final = [
    "state",
    "owner",
    "hostname",
    "tags.list.element",
    *(f"{name}.key_value.key" for name in sorted(_MAPS)),
]
"""What says the same again and again is written as a dictionary."""

_ROWS: Final = TypeAdapter(list[CatalogRow])


# -- Rows and columns -----------------------------------------------------------------------------------------------------


def table_of(rows: Sequence[CatalogRow]) -> pa.Table:
    """Rows as a table."""
    columns: dict[str, list[Any]] = {name: [getattr(row, name) for row in rows] for name in SCHEMA.names}
    columns["params"] = [{name: _json(value) for name, value in params.items()} for params in columns["params"]]
    for name in _MAPS:
        columns[name] = [list(given.items()) for given in columns[name]]
    return pa.table(columns, schema=SCHEMA)


def _json(value: Any) -> str:
    return to_json(value, inf_nan_mode="strings").decode()


def rows_of(table: pa.Table) -> list[CatalogRow]:
    """The rows of a table."""
    columns = [_values(table, name) for name in SCHEMA.names]
    return _ROWS.validate_python(
        [dict(zip(SCHEMA.names, values, strict=True)) for values in zip(*columns, strict=True)]
    )


def _values(table: pa.Table, name: str) -> Iterable[Any]:
    column = table[name]
    if name in _TIMES:  # three times as fast as what Arrow makes of them
        values: list[Any] = column.cast(pa.int64()).to_pylist()
        return [None if us is None else EPOCH + timedelta(microseconds=us) for us in values]
    values = column.to_pylist()
    if name == "params":
        return [{key: from_json(text) for key, text in items} for items in values]
    return [dict(items) for items in values] if name in _MAPS else values


def by_name(table: pa.Table, field: str) -> dict[str, Any]:
    """A map column taken apart: of each name a column with one value a row, null where an experiment has none."""
    maps: Any = table[field].combine_chunks()
    offsets = maps.offsets.to_numpy()
    begin, end = int(offsets[0]), int(offsets[-1])
    rows, values = np.repeat(np.arange(len(maps)), np.diff(offsets)), maps.items.slice(begin, end - begin)
    coded = maps.keys.slice(begin, end - begin).dictionary_encode()
    codes = coded.indices.to_numpy()
    order, ends = np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes, minlength=len(coded.dictionary)))
    found = {}
    for name, places in zip(coded.dictionary.to_pylist(), np.split(order, ends[:-1]), strict=False):
        at, missing = np.zeros(len(maps), np.int64), np.ones(len(maps), np.bool_)
        at[rows[places]], missing[rows[places]] = places, False
        found[name] = values.take(pa.array(at, mask=missing))
    return found


# -- What a reader makes of several files ---------------------------------------------------------------------------------


def newest(table: pa.Table) -> pa.Table:
    """Of each experiment the row of its highest commit."""
    coded: Any = table["experiment"].combine_chunks().dictionary_encode()
    if len(coded.dictionary) == table.num_rows:
        return table
    codes, commits = coded.indices.to_numpy(), table["commit"].to_numpy()
    order = np.lexsort((np.arange(len(codes))[::-1], commits, codes))
    last = order[np.append(np.diff(codes[order]) != 0, True)]
    return taken(table, np.sort(last))


def in_order(table: pa.Table) -> pa.Table:
    """The rows in the order of their numbers: DIG-9, then DIG-10."""
    numbers = _numbers(table)
    if bool(np.all(np.diff(numbers) > 0)):  # a base is in order already
        return table
    order = np.argsort(numbers, kind="stable")
    if not bool(np.all(np.diff(numbers[order]) > 0)):  # one number of several keys, or experiments without a number
        ids, experiments = (table[name].to_pylist() for name in ("id", "experiment"))
        keys = [(int(numbers[at]), str(ids[at]).rpartition("-")[0], str(experiments[at])) for at in range(len(numbers))]
        order = np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)
    return taken(table, order)


def _numbers(table: pa.Table) -> NDArray[np.int64]:
    """The number in each id, 0 where there is none."""
    ids = table["id"]
    digits: Any = pc.replace_substring_regex(ids, _NUMBER, r"\1")
    known: Any = pc.match_substring_regex(ids, _NUMBER)
    if not pc.all(known, min_count=0).as_py():
        digits = pc.if_else(known, digits, "0")
    numbers: NDArray[np.int64] = digits.cast(pa.int64()).to_numpy()
    return numbers


def taken(table: pa.Table, places: NDArray[np.int64]) -> pa.Table:
    """The rows at these places, in this order; the table itself if that is what it is."""
    if len(places) == table.num_rows and bool(np.all(places == np.arange(len(places)))):
        return table
    return table.take(whole_numbers(places))


def whole_numbers(values: NDArray[np.int64]) -> pa.Int64Array:
    """The same for Arrow, without a copy. `pa.array` would load `numpy.ma` to ask whether these are masked: 10 ms of a start."""
    contiguous = np.ascontiguousarray(values, np.int64)
    return cast(
        "pa.Int64Array", pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(cast("Any", contiguous))])
    )


def experiments_and_commits(table: pa.Table) -> list[tuple[str, int]]:
    """Of each row whose it is, and as of which commit."""
    columns: list[list[Any]] = [table[name].to_pylist() for name in ("experiment", "commit")]
    return list(zip(*columns, strict=True))


# -- Bytes ----------------------------------------------------------------------------------------------------------------


def encoded(table: pa.Table) -> bytes:
    """A table as Parquet."""
    buffer = io.BytesIO()
    pq.write_table(
        table,
        buffer,
        compression="zstd",
        compression_level=_ZSTD_LEVEL,
        row_group_size=_GROUP_ROWS,
        use_dictionary=_REPEATED,  # type: ignore[arg-type]  # the stubs know only bool
        write_page_checksum=True,
    )
    return buffer.getvalue()


def checked(schema: pa.Schema) -> bool:
    """Whether a file's columns are ours; False if it is of the first format. Raises `FormatUnknown`."""
    version = (schema.metadata or {}).get(_FORMAT_KEY)
    if version not in (FORMAT, _ROWS_AS_JSON):
        raise FormatUnknown(f"a catalog file of format {version!r}; this release knows {FORMAT!r}: use a newer one")
    return version == FORMAT


def parquet_of(data: bytes) -> pq.ParquetFile:
    """A file in memory that is Arrow's own. Arrow's threads would let go of Python's when they are done, which may be while the
    interpreter ends: that aborted a process now and then, after it had done all its work (apache/arrow#34314)."""
    memory = pa.BufferOutputStream()
    memory.write(data)
    return pq.ParquetFile(pa.BufferReader(memory.getvalue()), page_checksum_verification=True)


def decoded(data: bytes) -> pa.Table:
    """The table in a file's bytes. Raises `FormatUnknown`, and what Arrow says of bytes that are no Parquet."""
    with parquet_of(data) as file:  # read_table imports pandas
        ours, table = checked(file.schema_arrow), file.read()
    if ours:
        return table.select(SCHEMA.names).cast(SCHEMA)
    texts: list[Any] = table["row"].to_pylist()
    return table_of(_ROWS.validate_json(f"[{','.join(texts)}]"))
