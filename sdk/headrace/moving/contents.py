"""What a run of an export holds, found by one look at every row group: its single values, its series, and what nobody knows.

The look reads the words of all rows and the values of single ones only; of series it learns which there are.
"""

from __future__ import annotations

import os
from collections import Counter
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headrace.moving.export import Group, Run
from headrace_proto.events import ChannelType

SINGLE: Final = {
    "float": "float_value",
    "int": "int_value",
    "string": "string_value",
    "bool": "bool_value",
    "datetime": "datetime_value",
    "string_set": "string_set_value",
}
"""Each type of single values, and the column that has them."""
NUMBERS: Final = frozenset({"float_series"})
TEXTS: Final = {"string_series": "string_value", "histogram_series": "histogram_value"}
FILES: Final = frozenset({"file", "file_series", "file_set", "artifact"})
"""`file_set`, a folder, and `artifact`, the list of one's files, are what releases for Neptune 2 write."""
KNOWN: Final = frozenset({*SINGLE, *NUMBERS, *TEXTS, *FILES})
IMAGE_SUFFIXES: Final = frozenset({"png", "jpg", "jpeg", "gif", "bmp", "webp", "tif", "tiff", "svg"})
"""A file series of these is a channel of images; other files of series are artifacts."""


class Word(NamedTuple):
    """A channel."""

    name: str
    kind: ChannelType


class Contents(NamedTuple):
    """Of one run."""

    values: dict[str, Any]
    """Single values by path, as Python has them."""
    words: tuple[Word, ...]
    """The channels that its series become, sorted."""
    files: frozenset[str]
    """The paths of attributes that are files."""
    types: dict[Group, frozenset[str]]
    """Which types of attributes a row group has."""
    unknown: dict[str, int]
    """Rows of types that this release does not know."""
    first_us: int | None
    last_us: int | None
    """The earliest and the latest time of a point."""


def contents_of(run: Run) -> Contents:
    """Look at a run. Raises `Corrupt`."""
    values: dict[str, Any] = {}
    words: set[Word] = set()
    files: set[str] = set()
    types: dict[Group, frozenset[str]] = {}
    unknown: Counter[str] = Counter()
    times: list[int] = []
    for group in run.groups:
        table = run.read(group, ["attribute_path", "attribute_type", "timestamp"])
        counted, paths = _types(table)
        types[group] = frozenset(counted)
        unknown.update({kind: count for kind, count in counted.items() if kind not in KNOWN})
        words.update(Word(path, ChannelType.NUMERIC) for kind in NUMBERS for path in paths.get(kind, ()))
        words.update(Word(path, ChannelType.TEXT) for kind in TEXTS for path in paths.get(kind, ()))
        files.update(path for kind in FILES for path in paths.get(kind, ()))
        if "file_series" in counted:
            words.update(_image_channels(run, group))
        if counted.keys() & SINGLE.keys():
            values.update(_single_values(run, group))
        times += _span(table)
    first, last = (min(times), max(times)) if times else (None, None)
    return Contents(values, tuple(sorted(words)), frozenset(files), types, dict(unknown), first, last)


def codes(column: pa.ChunkedArray[Any]) -> tuple[NDArray[np.int64], list[str]]:
    """A column of words as numbers and what they stand for."""
    array: Any = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], pa.string())
    if not isinstance(array, pa.DictionaryArray):
        array = array.cast(pa.string()).dictionary_encode()
    return array.indices.to_numpy(zero_copy_only=False).astype(np.int64), array.dictionary.to_pylist()


def times_us(column: pa.ChunkedArray[Any], absent_us: int) -> NDArray[np.int64]:
    """A column of times as microseconds since 1970; `absent_us` where there is none, 0 for what is earlier."""
    whole: Any = pc.cast(column, pa.timestamp("us", "UTC")).cast(pa.int64())
    times: NDArray[np.int64] = whole.fill_null(absent_us).to_numpy()
    return np.maximum(times, 0)


def is_image(path: str | None) -> bool:
    """Whether a file's name is an image's."""
    return suffix_of(path) in IMAGE_SUFFIXES


def suffix_of(path: str | None) -> str:
    """`png` of `a/b.PNG`; nothing when there is none."""
    return os.path.splitext(path or "")[1][1:].lower()


def _types(table: pa.Table) -> tuple[dict[str, int], dict[str, list[str]]]:
    """How many rows there are of each type, and the paths of each."""
    path_codes, names = codes(table["attribute_path"])
    type_codes, kinds = codes(table["attribute_type"])
    pairs, counts = np.unique(type_codes * max(len(names), 1) + path_codes, return_counts=True)
    counted: Counter[str] = Counter()
    paths: dict[str, list[str]] = {}
    for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
        kind = kinds[pair // max(len(names), 1)]
        counted[kind] += count
        paths.setdefault(kind, []).append(names[pair % max(len(names), 1)])
    return dict(counted), paths


def _single_values(run: Run, group: Group) -> dict[str, Any]:
    table = run.read(group, ["attribute_path", "attribute_type", *SINGLE.values()])
    rows = table.filter(pc.is_in(table["attribute_type"].cast(pa.string()), pa.array(list(SINGLE)))).to_pylist()
    found = {row["attribute_path"]: _plain(row[SINGLE[row["attribute_type"]]]) for row in rows}
    return {path: value for path, value in found.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    return sorted(value) if isinstance(value, list) else value


def _image_channels(run: Run, group: Group) -> set[Word]:
    table = run.read(group, ["attribute_path", "attribute_type", "file_value"])
    series = table.filter(pc.field("attribute_type") == "file_series").to_pylist()
    return {Word(row["attribute_path"], ChannelType.IMAGE) for row in series if is_image(path_of(row))}


def path_of(row: dict[str, Any]) -> str | None:
    """The file that a row names."""
    value = row.get("file_value")
    path = value.get("path") if isinstance(value, dict) else None
    return path if isinstance(path, str) and path else None


def _span(table: pa.Table) -> list[int]:
    times = table["timestamp"].drop_null()
    if not len(times):
        return []
    found = times_us(times, 0)
    return [int(found.min()), int(found.max())]
