"""Events: what a journal holds, one msgpack array `[kind, ...]` after another.

Any msgpack library reads them. The kinds that a hot loop writes have a fixed width and fixed tag bytes, so that one
`struct.pack_into` writes an event and NumPy reads a run of them as a structured array. All numbers are big-endian, as
msgpack has them. Times are whole nanoseconds since 1970-01-01 UTC, steps and values float64.

| kind | name       | array                                                  | width     |
|------|------------|--------------------------------------------------------|-----------|
| 1    | POINT      | [1, channel u32, step f64, time u64, value f64]        | 34        |
| 2    | AUTO_POINT | [2, channel u32, time u64, value f64]                  | 25        |
| 3    | ROW        | [3, schema u32, step f64, time u64, values bin16]      | 28 + 8 k  |
| 4    | AUTO_ROW   | [4, schema u32, time u64, values bin16]                | 19 + 8 k  |
| 5    | CHANNEL    | [5, channel, name, type]                               |           |
| 6    | SCHEMA     | [6, schema, [channel, ...]]                            |           |
| 7    | TEXT       | [7, channel, step or nil, time, payload]               |           |
| 8    | IMAGE      | [8, channel, step or nil, time, payload, facts]        |           |
| 9    | CHECK      | [9, crc32 u32, nonce f64, position u64, 0.0]           | 34        |
| 10   | OPEN       | [10, time, facts]          a source's first event      |           |
| 11   | CREATE     | [11, time, facts]          the experiment's definition |           |
| 12   | CLOSED     | [12, time, outcome, detail or nil]  its last event     |           |
| 13   | PARAMETERS | [13, time, {name: value}]                              |           |
| 14   | PROPERTY   | [14, time, name, text or nil]       nil removes        |           |
| 15   | TAGS       | [15, time, [added], [removed]]                         |           |
| 16   | FACTS      | [16, time, {name: value}]  host, git, entry point ...  |           |
| 17   | ARTIFACT   | [17, time, path, payload, facts]                       |           |
| 18   | UNLINK     | [18, time, [path, ...]]    artifacts deleted           |           |
| 19   | RESET      | [19, time, channel name]   hides points up to `time`   |           |
| 20   | GAP        | [20, time, dropped, reason]                            |           |

A *row* is several channels at one step: the tuple of names is defined once as a schema, the values are one `bin` of k
big-endian doubles. An AUTO_ kind, or a nil step, has no step: `apply` gives it the channel's highest step + 1 (a row: the
highest over its channels + 1) in commit order, so that it is unique over ranks and restarts.

A *payload* is the value itself (str or bin, up to INLINE_BYTES_MAX) or, for a larger one, a map that names a file of the
source's spool: {"file": name, "size": bytes, "sha256": hex}.

A CHECK covers every byte since the check before it. It has a POINT's width and tags, so that a run of points stays one
structured array, masked by kind. Its `position` is its own place in the journal: a reader that meets damage searches for the
next check whose position is where it stands.

Version: a journal's header names it. A kind that a reader does not know is skipped, counted in the document and kept in the
store's quarantine: a newer writer never blocks an older collector. The meaning of a kind never changes; a change is a new kind.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct

import msgpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

JOURNAL_VERSION: Final = 1


class Kind(IntEnum):
    """The first element of an event."""

    POINT = 1
    AUTO_POINT = 2
    ROW = 3
    AUTO_ROW = 4
    CHANNEL = 5
    SCHEMA = 6
    TEXT = 7
    IMAGE = 8
    CHECK = 9
    OPEN = 10
    CREATE = 11
    CLOSED = 12
    PARAMETERS = 13
    PROPERTY = 14
    TAGS = 15
    FACTS = 16
    ARTIFACT = 17
    UNLINK = 18
    RESET = 19
    GAP = 20


class ChannelType(IntEnum):
    """What the points of a channel are."""

    NUMERIC = 1
    TEXT = 2
    IMAGE = 3


class Role:
    """What a source is to its experiment (OPEN's fact `role`). Only OWNER and RANK decide the experiment's state."""

    OWNER: Final = "owner"  # created the experiment, or took it over
    RANK: Final = "rank"  # one of the processes of a distributed run
    WORKER: Final = "worker"  # forked or attached: it may come and go
    SYSTEM: Final = "system"  # an agent, which logs the node's hardware


class Outcome:
    """How a source ended (CLOSED's outcome)."""

    SUCCEEDED: Final = "succeeded"
    FAILED: Final = "failed"  # detail is the traceback
    ABORTED: Final = "aborted"


# -- The hot kinds: prefix + fixed layout -------------------------------------------------------------------------------

POINT: Final = Struct(">8sdcQcd")
"""point_prefix(channel), step, TAG_U64, time, TAG_F64, value."""
AUTO_POINT: Final = Struct(">7scQcd")
"""auto_point_prefix(channel), TAG_U64, time, TAG_F64, value."""
ROW_HEAD: Final = Struct(">8sdcQcH")
"""row_prefix(schema), step, TAG_U64, time, TAG_BIN16, bytes of values; then the values."""
AUTO_ROW_HEAD: Final = Struct(">7scQcH")
"""auto_row_prefix(schema), TAG_U64, time, TAG_BIN16, bytes of values; then the values."""
CHECK: Final = Struct(">3sIcdcQcd")
"""CHECK_TAG, crc32, TAG_F64, nonce, TAG_U64, position, TAG_F64, 0.0."""

TAG_U32: Final = b"\xce"
TAG_U64: Final = b"\xcf"
TAG_F64: Final = b"\xcb"
TAG_BIN16: Final = b"\xc5"
CHECK_TAG: Final = bytes((0x95, Kind.CHECK, 0xCE))

POINT_WIDTH: Final = POINT.size
AUTO_POINT_WIDTH: Final = AUTO_POINT.size
ROW_HEAD_WIDTH: Final = ROW_HEAD.size
AUTO_ROW_HEAD_WIDTH: Final = AUTO_ROW_HEAD.size
CHECK_WIDTH: Final = CHECK.size

_U32: Final = Struct(">I")


def _prefix(elements: int, kind: Kind, number: int) -> bytes:
    return bytes((0x90 | elements, kind)) + TAG_U32 + _U32.pack(number)


def point_prefix(channel: int) -> bytes:
    """A point's bytes up to its step's value."""
    return _prefix(5, Kind.POINT, channel) + TAG_F64


def auto_point_prefix(channel: int) -> bytes:
    """An automatic point's bytes up to its time."""
    return _prefix(4, Kind.AUTO_POINT, channel)


def row_prefix(schema: int) -> bytes:
    """A row's bytes up to its step's value."""
    return _prefix(5, Kind.ROW, schema) + TAG_F64


def auto_row_prefix(schema: int) -> bytes:
    """An automatic row's bytes up to its time."""
    return _prefix(4, Kind.AUTO_ROW, schema)


def pack_point(channel: int, step: float | None, time_ns: int, value: float) -> bytes:
    """A point of the channel with that number; an automatic one if `step` is None."""
    if step is None:
        return AUTO_POINT.pack(auto_point_prefix(channel), TAG_U64, time_ns, TAG_F64, value)
    return POINT.pack(point_prefix(channel), step, TAG_U64, time_ns, TAG_F64, value)


def pack_check(crc: int, nonce: float, position: int) -> bytes:
    """A check event that stands at `position` and covers, with `crc`, all bytes since the check before it."""
    return CHECK.pack(CHECK_TAG, crc, TAG_F64, nonce, TAG_U64, position, TAG_F64, 0.0)


# -- The other kinds ----------------------------------------------------------------------------------------------------

_pack = msgpack.Packer(use_bin_type=True).pack


def pack(kind: Kind, *fields: Any) -> bytes:
    """One event of a kind without a fixed layout. Raises what msgpack raises for values that it does not know."""
    packed: bytes = _pack((int(kind), *fields))
    return packed


def unpack_one(raw: bytes | memoryview) -> list[Any]:
    """The one event in `raw`, bounded by the length of `raw` itself. Raises `ValueError` on anything else."""
    size = len(raw)
    try:
        event = msgpack.unpackb(
            raw,
            use_list=True,
            raw=False,
            strict_map_key=False,
            max_str_len=size,
            max_bin_len=size,
            max_array_len=size,
            max_map_len=size,
            max_ext_len=0,
        )
    except Exception as error:  # msgpack raises a handful of unrelated types on hostile bytes
        raise ValueError(f"an event of {size} bytes does not decode: {error}") from error
    if not isinstance(event, list) or not event or not isinstance(event[0], int):
        raise ValueError(f"an event of {size} bytes is no array that starts with its kind")
    return event
