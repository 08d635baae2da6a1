"""Digests: what an experiment says as one number, whatever way it came into whatever store.

A digest is a function of the content alone, not of parts, commits, compaction, sources or machines: two stores that hold the
same experiment give the same one. FORMAT.md says how to recompute it with pandas and hashlib; the rules are these.

1. The visible points of a channel (those with a time after `reset_at`), every one of them, in ascending order of (step, time,
   rest). Each becomes bytes, little-endian: the step as float64 (-0.0 as 0.0), the time as int64 microseconds since 1970, and
   the rest:
       numeric   the value's 64 bits, compared as an unsigned integer (so that NaN, and -0.0, have their place)
       text      sha256 of the text in UTF-8, whether it lies in the row or in a file
       image     sha256 of the image, then sha256 of the JSON list [name, description]
   The channel's digest is the sha256 of them all. A channel without a visible point has none.
2. The experiment's digest is the sha256 of one JSON text, keys sorted, without spaces, in ASCII:
       {"artifacts": {path: sha256}, "channels": {"image": {name: digest}, "numeric": {...}, "text": {...}},
        "params": {...}, "properties": {...}, "source_files": {path: sha256}, "tags": [...]}
   Channels that begin with `system/` are not in it: what the hardware did is of the machine, not of the program.

Memory is bounded by BLOCK_ROWS a part, as in a merge, and by the points of one channel that share a step and a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace_proto.limits import MIB
from headrace_proto.names import SYSTEM_CHANNELS
from headrace_proto.store import compaction, parts
from headrace_proto.store.backend import Store
from headrace_proto.store.commits import PART_KINDS, Commit, PartKind
from headrace_proto.store.documents import ExperimentDocument, FileRecord
from headrace_proto.store.times import us_of

ABSENT: Final = bytes(32)
"""Stands for a long text whose file is not there (yet)."""

_REST: Final[dict[PartKind, str]] = {"numeric": "<u8", "text": "V32", "image": "V64"}


class ChannelDigest(NamedTuple):
    """A channel's visible points."""

    kind: PartKind
    name: str
    points: int
    digest: str


def channel_digests(store: Store, folder: str, commit: Commit, kind: PartKind) -> Iterator[ChannelDigest]:
    """Each channel of a kind that has visible points, by name. Raises what reading the parts raises."""
    paths = [f"{folder}/{part.path}" for part in commit.parts.of(kind)]
    known = getattr(commit.document.channels, kind)
    with compaction.in_order(store, kind, paths) as (_, tables):
        series: _Series | None = None
        for name, table in _by_channel(tables):
            if series is None or series.name != name:
                if series is not None and series.points:
                    yield series.finished(kind)
                series = _Series(name, known[name].reset_at if name in known else None, np.dtype(_row(kind)))
            series.add(table["step"].to_numpy(), parts.times_us(table), _rest(store, folder, kind, table))
        if series is not None and series.points:
            yield series.finished(kind)


def experiment_digest(
    document: ExperimentDocument,
    artifacts: Mapping[str, FileRecord],
    source_files: Mapping[str, FileRecord],
    channels: list[ChannelDigest],
) -> str:
    """The digest of all that an experiment says. `artifacts` and `source_files` are all of them, archived ones too."""
    said: dict[str, Any] = {
        "artifacts": {path: record.sha256 for path, record in artifacts.items()},
        "channels": {kind: {} for kind in PART_KINDS},
        "params": document.params,
        "properties": document.properties,
        "source_files": {path: record.sha256 for path, record in source_files.items()},
        "tags": sorted(document.tags),
    }
    for channel in channels:
        if not channel.name.startswith(SYSTEM_CHANNELS):
            said["channels"][channel.kind][channel.name] = channel.digest
    return sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def file_digest(store: Store, path: str) -> str:
    """The sha256 of an object, read in blocks. Raises `FileNotFoundError`."""
    digest = sha256()
    with store.open(path) as file:
        while block := file.read(MIB):
            digest.update(block)
    return digest.hexdigest()


def _row(kind: PartKind) -> list[tuple[str, str]]:
    return [("step", "<f8"), ("time", "<i8"), ("rest", _REST[kind])]


class _Series:
    """The points of one channel while they come in, sorted by step and time. The last run of equal ones waits for its end."""

    def __init__(self, name: str, reset_at: datetime | None, row: np.dtype[Any]) -> None:
        self.name: Final = name
        self.points = 0
        self._reset_us = None if reset_at is None else us_of(reset_at)
        self._digest = sha256()
        self._held: Any = np.empty(0, row)

    def add(self, step: NDArray[np.float64], time_us: NDArray[np.int64], rest: NDArray[Any]) -> None:
        rows: Any = np.empty(len(step), self._held.dtype)
        rows["step"], rows["time"], rows["rest"] = step + 0.0, time_us, rest
        if self._reset_us is not None:
            rows = rows[rows["time"] > self._reset_us]
        if not len(rows):
            return
        self.points += len(rows)
        rows = np.concatenate([self._held, rows])
        last = np.flatnonzero((rows["step"] == rows["step"][-1]) & (rows["time"] == rows["time"][-1]))[0]
        self._digest.update(_in_total_order(rows[:last]).tobytes())
        self._held = rows[last:]

    def finished(self, kind: PartKind) -> ChannelDigest:
        self._digest.update(_in_total_order(self._held).tobytes())
        return ChannelDigest(kind, self.name, self.points, self._digest.hexdigest())


def _in_total_order(rows: Any) -> Any:
    """Rows sorted by step and time, with those that tie sorted by the rest, too."""
    ties = (rows["step"][1:] == rows["step"][:-1]) & (rows["time"][1:] == rows["time"][:-1])
    if not ties.any():
        return rows
    rest = rows["rest"]
    if rest.dtype.kind == "V":  # lexsort knows no bytes: four or eight big-endian words sort as they do
        words = rest.reshape(-1, 1).view(">u8").reshape(len(rows), -1)
        keys = [words[:, index] for index in reversed(range(words.shape[1]))]
    else:
        keys = [rest]
    return rows[np.lexsort((*keys, rows["time"], rows["step"]))]


def _by_channel(tables: Iterator[pa.Table]) -> Iterator[tuple[str, pa.Table]]:
    for table in tables:
        first = 0
        for name, rows in parts.channel_rows(table):
            yield name, table.slice(first, rows)
            first += rows


def _rest(store: Store, folder: str, kind: PartKind, table: pa.Table) -> NDArray[Any]:
    """What a point has besides step and time, as fixed bytes."""
    if kind == "numeric":
        values: NDArray[Any] = table["value"].to_numpy().view("<u8")
        return values
    columns: list[list[Any]]
    if kind == "text":
        columns = [table["value"].to_pylist(), table["file"].to_pylist()]
        rest = [_text(store, folder, value, file) for value, file in zip(*columns, strict=True)]
    else:
        columns = [table[name].to_pylist() for name in ("sha256", "name", "description")]
        rest = [_image(*row) for row in zip(*columns, strict=True)]
    return np.array(rest, _REST[kind])


def _text(store: Store, folder: str, value: str | None, file: str | None) -> bytes:
    if value is not None or file is None:
        return sha256((value or "").encode()).digest()
    try:
        return bytes.fromhex(file_digest(store, f"{folder}/{file}"))
    except FileNotFoundError:
        return ABSENT


def _image(digest: str | None, name: str | None, description: str | None) -> bytes:
    about = json.dumps([name, description], separators=(",", ":")).encode()
    return bytes.fromhex(digest or "00" * 32) + sha256(about).digest()
