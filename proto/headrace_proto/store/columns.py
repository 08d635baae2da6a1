"""The raw bytes of a batch as columns: vectors for the kinds of a hot loop, decoded one by one for the rest.

Invariants
1. Every byte is accounted for: the batch is whole events from its first byte to its last, or it is `Poison` as a whole.
2. Every tag byte of a hot kind is compared. Nothing is believed because the byte before it looked right.
3. The columns are in journal order, row values in the order of their schema, so that whoever sorts stably keeps that order.

A run of nothing but points and checks (34 bytes each) is one structured array. Anything else takes one Unpacker over the whole
batch, which finds the events' ends without making objects, and then one strided gather per kind: 15 M events/s, where an
Unpacker an event makes 0.7 M.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgpack
import numpy as np
from numpy.typing import NDArray

from headrace_proto import events
from headrace_proto.errors import Corrupt
from headrace_proto.events import Kind
from headrace_proto.limits import BATCH_EVENTS_MAX, EVENT_BYTES_MAX
from headrace_proto.store.points import Points, Rows, records_at, row_values
from headrace_proto.store.shapes import KNOWN_KINDS, checked_fields
from headrace_proto.store.tables import NUMBERS_MAX, is_schema_number, undefined_row_channel


class Poison(Corrupt):
    """The frame arrived whole, but its bytes are no events: sending it again would change nothing."""


class Crowded(Exception):
    """A batch has more events besides points than there is room for; up to `end`, bytes of it, it has as many as there is."""

    def __init__(self, end: int) -> None:
        super().__init__(f"there is room for its first {end} bytes")
        self.end = end


class BadCut(Corrupt):
    """A batch must be cut at a position that is no boundary between its events."""


OVERSIZED: Final = -1
"""In place of the kind of an event that is larger than any may be: it is not looked at."""


class Event(NamedTuple):
    """An event that is neither a point nor a row."""

    position: int
    kind: int
    fields: list[Any]
    raw: bytes


class Decoded(NamedTuple):
    """What a batch holds."""

    points: Points | Rows  # rows where the batch logs nothing else
    automatic_rows: list[NDArray[np.int32]]  # the channels of each schema whose rows here are automatic
    events: list[Event]  # in order; kinds that this release does not know among them
    schemas: dict[int, NDArray[np.int32]]  # defined here


_HEAD: Final = [("head", "u1"), ("kind", "u1"), ("t0", "u1"), ("number", ">u4")]
_STEP: Final = [("t1", "u1"), ("step", ">f8")]
_TIME: Final = [("t2", "u1"), ("time", ">u8")]
_VALUE: Final = [("t3", "u1"), ("value", ">f8")]
_VALUES: Final = [("t4", "u1"), ("bytes", ">u2")]
_POINT: Final = np.dtype([*_HEAD, *_STEP, *_TIME, *_VALUE])
_AUTO_POINT: Final = np.dtype([*_HEAD, *_TIME, *_VALUE])
_ROW: Final = np.dtype([*_HEAD, *_STEP, *_TIME, *_VALUES])
_AUTO_ROW: Final = np.dtype([*_HEAD, *_TIME, *_VALUES])
_TAGS: Final = {
    "t0": events.TAG_U32[0],
    "t1": events.TAG_F64[0],
    "t2": events.TAG_U64[0],
    "t3": events.TAG_F64[0],
    "t4": events.TAG_BIN16[0],
}
_HOT: Final = {
    Kind.POINT: _POINT,
    Kind.AUTO_POINT: _AUTO_POINT,
    Kind.ROW: _ROW,
    Kind.AUTO_ROW: _AUTO_ROW,
    Kind.CHECK: _POINT,
}
# msgpack's first byte of an array is 0x90 and its length
_HEADS: Final = {kind: 0x94 if dtype in (_AUTO_POINT, _AUTO_ROW) else 0x95 for kind, dtype in _HOT.items()}
_ROW_HEADS: Final = {kind: bytes((_HEADS[kind], kind)) for kind in (Kind.ROW, Kind.AUTO_ROW)}
_CHECK_HEAD: Final = bytes((_HEADS[Kind.CHECK], Kind.CHECK))
assert _POINT.itemsize == events.POINT_WIDTH == events.CHECK_WIDTH  # noqa: S101 - the formats' own words
assert _AUTO_POINT.itemsize == events.AUTO_POINT_WIDTH  # noqa: S101
assert _ROW.itemsize == events.ROW_HEAD_WIDTH  # noqa: S101
assert _AUTO_ROW.itemsize == events.AUTO_ROW_HEAD_WIDTH  # noqa: S101


def decode(raw: bytes, first: int, schemas: Mapping[int, NDArray[np.int32]], room: int = BATCH_EVENTS_MAX) -> Decoded:
    """The events of a batch that begins at position `first`; `schemas` are those that its source has defined before.

    Raises `Poison`, and `Crowded` before it has made objects of more than `room` events.
    """
    run = _pure_run(raw)
    if run is not None:
        return Decoded(_run_points(run, first), [], [], {})
    return _Mixed(raw, first, schemas).decoded(room)


def event_ends(raw: bytes) -> NDArray[np.int64]:
    """Where each event in `raw` ends. Raises `Poison` when `raw` is not whole events."""
    unpacker = msgpack.Unpacker(max_buffer_size=max(len(raw), 1))
    unpacker.feed(raw)
    skip, tell = unpacker.skip, unpacker.tell
    ends: list[int] = []
    append = ends.append
    try:
        while True:
            skip()
            append(tell())
    except msgpack.OutOfData:
        pass
    except Exception as error:  # msgpack raises a handful of unrelated types on hostile bytes
        raise Poison(f"the bytes after event {len(ends)} are no msgpack: {error}") from error
    if (ends[-1] if ends else 0) != len(raw):
        raise Poison(f"the last event ends at byte {ends[-1] if ends else 0} of {len(raw)}")
    found = np.array(ends, np.int64)
    heads = (
        np.frombuffer(raw, np.uint8)[np.concatenate([np.zeros(1, np.int64), found[:-1]])]
        if ends
        else np.empty(0, np.uint8)
    )
    if not (
        (heads & 0xF0 == 0x90) | (heads == 0xDC) | (heads == 0xDD)
    ).all():  # msgpack's arrays: short, 16 and 32 bits
        raise Poison("between the events lies something that is no array")
    return found


def _row_ends(raw: bytes) -> NDArray[np.int64] | None:
    """As `event_ends` if the batch is rows of one width, and checks, else None. Goes from check to check: a row takes an Unpacker
    150 ns. The heads are compared here; with the tags, which whoever reads the rows compares, they prove the rest."""
    begin = events.CHECK_WIDTH if raw.startswith(_CHECK_HEAD) else 0
    kind = Kind.AUTO_ROW if raw.startswith(_ROW_HEADS[Kind.AUTO_ROW], begin) else Kind.ROW
    head, size_at = _ROW_HEADS[kind], _HOT[kind].itemsize - 2
    width = size_at + 2 + int.from_bytes(raw[begin + size_at : begin + size_at + 2])
    counts: list[int] = []
    at = rows = 0
    while at < len(raw):
        end = at + rows * width
        if not raw.startswith(_CHECK_HEAD, end):  # not as many as between the checks before
            end = at
            while raw.startswith(head, end):
                end += width
            rows = (end - at) // width
            if end != len(raw) and not raw.startswith(_CHECK_HEAD, end):
                return None
        counts.append(rows)
        at = end + events.CHECK_WIDTH
    sizes = np.full(sum(counts) + len(counts), width, np.int64)
    checks = np.cumsum(np.array(counts, np.int64) + 1) - 1
    sizes[checks] = events.CHECK_WIDTH
    if at != len(raw):
        sizes, checks = sizes[:-1], checks[:-1]
    ends = np.cumsum(sizes)
    if not len(ends) or ends[-1] != len(raw):
        return None
    octets, starts = np.frombuffer(raw, np.uint8), ends - sizes
    rows_at, checks_at = np.delete(starts, checks), starts[checks]
    for places, begins in ((rows_at, head), (checks_at, _CHECK_HEAD)):
        if not ((octets[places] == begins[0]) & (octets[places + 1] == begins[1])).all():
            return None
    declared = octets[rows_at + size_at].astype(np.int64) << 8 | octets[rows_at + size_at + 1]
    return ends if (declared == width - size_at - 2).all() else None


def cut(raw: bytes, start: int, end: int) -> bytes:
    """`raw[start:end]`, whole events. Raises `BadCut` when either is no event boundary."""
    try:
        ends = event_ends(raw)
    except Poison as error:
        raise BadCut(f"a batch that must be cut is no events: {error}") from error
    if not np.isin([edge for edge in (start, end) if edge != 0], ends).all():
        raise BadCut(f"[{start}, {end}) of a batch of {len(raw)} bytes is not whole events")
    return raw[start:end]


def encoded_points(
    channel: NDArray[np.integer[Any]],
    step: NDArray[np.float64],
    time_ns: NDArray[np.integer[Any]],
    value: NDArray[np.float64],
) -> bytes:
    """Points as the bytes of a journal, what `decode` reads back: for whoever has columns and no journal, such as an import."""
    run = np.empty(len(channel), _POINT)
    run["head"], run["kind"] = _HEADS[Kind.POINT], Kind.POINT
    for tag in ("t0", "t1", "t2", "t3"):
        run[tag] = _TAGS[tag]
    run["number"], run["step"], run["time"], run["value"] = channel, step, time_ns, value
    return run.tobytes()


# -- A run of points ----------------------------------------------------------------------------------------------------


def _pure_run(raw: bytes) -> NDArray[np.void] | None:
    """The batch as one array if it is nothing but points and checks: by induction, when each record's tags are right."""
    if not raw or len(raw) % _POINT.itemsize:
        return None
    run: NDArray[np.void] = np.frombuffer(raw, _POINT)
    if not (run["head"] == _HEADS[Kind.POINT]).all() or _wrong_tags(run):
        return None
    kinds = run["kind"]
    return run if ((kinds == Kind.POINT) | (kinds == Kind.CHECK)).all() else None


def _wrong_tags(records: NDArray[np.void]) -> bool:
    names = records.dtype.names or ()
    return any(not (records[tag] == byte).all() for tag, byte in _TAGS.items() if tag in names)


def _run_points(run: NDArray[np.void], first: int) -> Points:
    position = first + np.arange(len(run), dtype=np.int64) * _POINT.itemsize
    is_point = run["kind"] == Kind.POINT
    if not is_point.all():
        run, position = run[is_point], position[is_point]
    return Points(
        position,
        _numbers(run),
        run["step"].astype(np.float64),
        np.zeros(len(run), np.bool_),
        _time_us(run),
        run["value"].astype(np.float64),
    )


def _numbers(records: NDArray[np.void]) -> NDArray[np.int32]:
    numbers = records["number"].astype(np.uint32)
    if len(numbers) and numbers.max() >= NUMBERS_MAX:
        raise Poison(f"channel number {numbers.max()} is above all that a source may define")
    return numbers.astype(np.int32)


def _time_us(records: NDArray[np.void]) -> NDArray[np.int64]:
    return (records["time"].astype(np.uint64) // np.uint64(1000)).astype(np.int64)


# -- Any other batch ----------------------------------------------------------------------------------------------------


class _Piece(NamedTuple):
    """Events of one kind and width, and the channels of their values."""

    events: NDArray[np.int64]  # which ones of the batch
    records: NDArray[np.void]
    channels: NDArray[np.int32]  # (n,) of points, (k,) of rows
    begin: NDArray[np.int64] | None  # (n,) of rows: where the values of each begin
    automatic: bool

    @property
    def width(self) -> int:
        """Values an event."""
        return 1 if self.begin is None else len(self.channels)


class _Mixed:
    """One batch of any events, while it is decoded."""

    def __init__(self, raw: bytes, first: int, schemas: Mapping[int, NDArray[np.int32]]) -> None:
        self._raw = raw
        self._first = first
        ends = _row_ends(raw)
        self._ends = event_ends(raw) if ends is None else ends
        self._starts = np.concatenate([np.zeros(1, np.int64), self._ends[:-1]]) if len(self._ends) else self._ends
        self._known = schemas
        self._schemas: dict[int, NDArray[np.int32]] = {}
        self._automatic_rows: list[NDArray[np.int32]] = []

    def decoded(self, room: int) -> Decoded:
        octets = np.frombuffer(self._raw, np.uint8)
        heads, kinds = octets[self._starts], octets[np.minimum(self._starts + 1, len(octets) - 1)]
        other = np.ones(len(self._starts), np.bool_)
        hot: dict[Kind, NDArray[np.int64]] = {}
        for kind, head in _HEADS.items():
            is_kind = (kinds == kind) & (heads == head)
            other &= ~is_kind
            hot[kind] = np.flatnonzero(is_kind)
        others = np.flatnonzero(other)
        if len(others) > BATCH_EVENTS_MAX:
            raise Poison(f"a batch has {len(others)} events besides points, of at most {BATCH_EVENTS_MAX}")
        if len(others) > room:
            raise Crowded(int(self._starts[others[room]]))
        rest = [self._event(int(i)) for i in others]
        pieces = [piece for kind, index in hot.items() if len(index) for piece in self._pieces(kind, index)]
        return Decoded(self._grid(pieces) or self._assembled(pieces), self._automatic_rows, rest, self._schemas)

    def _event(self, index: int) -> Event:
        start, end = int(self._starts[index]), int(self._ends[index])
        raw = self._raw[start:end]
        if len(raw) > EVENT_BYTES_MAX:  # decoded it could take seventy times its size
            return Event(self._first + start, OVERSIZED, [], raw)
        if len(raw) > 1 and raw[0] & 0xF0 == 0x90 and raw[1] < 0x80 and raw[1] not in KNOWN_KINDS:
            return Event(self._first + start, raw[1], [], raw)  # a newer release's: its fields are not ours to judge
        try:
            kind, *fields = events.unpack_one(raw)
            checked_fields(kind, fields)
        except ValueError as error:
            raise Poison(f"the event at position {self._first + start}: {error}") from error
        if kind == Kind.SCHEMA:
            self._define(fields[0], np.array(fields[1], np.int32))
        return Event(self._first + start, kind, fields, raw)

    def _define(self, schema: int, channels: NDArray[np.int32]) -> None:
        known = self._schemas.get(schema, self._known.get(schema))
        if known is not None and not np.array_equal(known, channels):
            raise Poison(f"schema {schema} is defined a second time, and differently")
        self._schemas[schema] = channels

    def _pieces(self, kind: Kind, index: NDArray[np.int64]) -> list[_Piece]:
        dtype = _HOT[kind]
        starts = self._starts[index]
        if int(starts[-1]) + dtype.itemsize > len(self._raw):
            raise Poison("the last event is shorter than its kind")
        records = records_at(self._raw, starts, dtype)
        if _wrong_tags(records):
            raise Poison(f"an event of kind {kind.name} has a wrong tag")
        if kind == Kind.CHECK:
            return []
        if kind in (Kind.POINT, Kind.AUTO_POINT):
            return [_Piece(index, records, _numbers(records), None, kind == Kind.AUTO_POINT)]
        return [self._rows(kind, int(schema), index, records) for schema in np.unique(records["number"])]

    def _rows(self, kind: Kind, schema: int, index: NDArray[np.int64], records: NDArray[np.void]) -> _Piece:
        mine = records["number"] == schema
        if not mine.all():
            index, records = index[mine], records[mine]
        channels = self._row_channels(schema, int(records["bytes"][0]))
        if not (records["bytes"] == 8 * len(channels)).all():
            raise Poison(f"a row of schema {schema} has not its {len(channels)} values")
        begin = self._starts[index] + records.dtype.itemsize
        if int(begin[-1]) + 8 * len(channels) > len(self._raw):
            raise Poison("the last event is shorter than its kind")
        automatic = kind == Kind.AUTO_ROW
        if automatic:
            self._automatic_rows.append(channels)
        return _Piece(index, records, channels, begin, automatic)

    def _row_channels(self, schema: int, size: int) -> NDArray[np.int32]:
        if not is_schema_number(schema) or size % 8 or size == 0:
            raise Poison(f"a row of schema {schema} has {size} bytes of values")
        known = self._schemas.get(schema, self._known.get(schema))
        if known is not None:
            return known
        return np.arange(size // 8, dtype=np.int32) + undefined_row_channel(schema, 0)

    def _grid(self, pieces: list[_Piece]) -> Rows | None:
        """The one piece, if it is rows."""
        if len(pieces) != 1:
            return None
        index, records, channels, begin, automatic = pieces[0]
        if begin is None:
            return None
        step = np.zeros(len(index)) if automatic else records["step"].astype(np.float64)
        position = self._first + self._starts[index]
        return Rows(position, channels, step, automatic, _time_us(records), self._raw, begin)

    def _assembled(self, pieces: list[_Piece]) -> Points:
        """All values in journal order: each piece is written to where its events stand, so that nothing need be sorted."""
        counts = np.zeros(len(self._starts), np.int64)
        for piece in pieces:
            counts[piece.events] = piece.width
        places = np.cumsum(counts) - counts
        total = int(counts.sum())
        points = Points(
            np.empty(total, np.int64),
            np.empty(total, np.int32),
            np.zeros(total, np.float64),
            np.empty(total, np.bool_),
            np.empty(total, np.int64),
            np.empty(total, np.float64),
        )
        for piece in pieces:
            self._place(points, piece, places, alone=len(pieces) == 1)
        return points

    def _place(self, points: Points, piece: _Piece, places: NDArray[np.int64], *, alone: bool) -> None:
        width = piece.width
        at: Any = slice(None) if alone else (places[piece.events][:, None] + np.arange(width)).ravel()

        def spread(column: NDArray[Any]) -> NDArray[Any]:
            return column if width == 1 else np.repeat(column, width)

        points.position[at] = spread(self._first + self._starts[piece.events])
        points.channel[at] = piece.channels if piece.begin is None else np.tile(piece.channels, len(piece.events))
        points.automatic[at] = piece.automatic
        points.time_us[at] = spread(_time_us(piece.records))
        if piece.begin is None:
            points.value[at] = piece.records["value"]
        else:
            points.value[at] = row_values(self._raw, piece.begin, width).ravel()
        if not piece.automatic:
            points.step[at] = spread(piece.records["step"].astype(np.float64))
