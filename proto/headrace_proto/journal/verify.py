"""Which bytes of a segment may be believed: pure functions over bytes, for the reader.

A segment's index says where its check events should stand; a check event says, with its own position and its source's nonce, that
it does stand there, and with its crc32 that the bytes before it are those that were written. So a damaged block costs that block
only: the next check starts afresh. An index that lies, or never reached the disk, costs nothing but a search for the checks' own
bytes.
"""

from __future__ import annotations

from binascii import crc32
from bisect import bisect_right

import msgpack

from headrace_proto.events import (
    AUTO_POINT_WIDTH,
    CHECK,
    CHECK_TAG,
    CHECK_WIDTH,
    POINT_WIDTH,
    TAG_F64,
    TAG_U32,
    TAG_U64,
    Kind,
)
from headrace_proto.journal.layout import POSITION_MAX, SECTOR
from headrace_proto.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

_BEGINNINGS_MAX: Final = 4
"""Places tried as the beginning of one block: an index that lies on purpose cannot make a reader try thousands."""
_POINT_TAGS: Final = (
    (0, b"\x95"),
    (1, bytes((Kind.POINT,))),
    (2, TAG_U32),
    (7, TAG_F64),
    (16, TAG_U64),
    (25, TAG_F64),
)
"""Where a point has which byte, whatever it says."""
_WIDTHS: Final[dict[int, int]] = {Kind.POINT: POINT_WIDTH, Kind.CHECK: CHECK_WIDTH, Kind.AUTO_POINT: AUTO_POINT_WIDTH}


class Damage(Record):
    """[first, end) of a journal cannot be believed."""

    first: int
    end: int
    reason: str


class Survivors(Record):
    """What of a damaged stretch may be believed. Offsets into the stretch."""

    blocks: list[tuple[int, int]]  # [begin, end) of covered bytes, ascending, neighbours joined
    edges: list[int]  # where blocks begin, whole or not, as far as the stretch shows it, ascending
    tail: bool  # whether what is behind the last edge, if no check follows, are bytes that no check covers yet


def verified(data: bytes, position: int, nonce: float, offsets: list[int]) -> int:
    """How many bytes of `data`, which begins at `position` and a block's beginning, are whole blocks that their checks vouch for.

    `offsets`, ascending, are where its check events should stand. Stops at the first that does not fit.
    """
    good = 0
    with memoryview(data) as view:
        for offset in offsets:
            crc = _check_at(data, offset, position, nonce)
            if crc is None or crc != crc32(view[good:offset]):
                break
            good = offset + CHECK_WIDTH
    return good


def survivors(data: bytes, position: int, nonce: float, offsets: list[int], *, from_start: bool) -> Survivors:
    """The blocks of `data` that are whole, found by the check events' own bytes.

    The index (`offsets`) is heard too when it names all of those: what else it names are checks that were destroyed, so a block
    begins behind each, and none of it is an uncovered tail. `from_start`: `data` begins where a block does.
    """
    checks = list(_true_checks(data, position, nonce))
    hints = offsets if set(checks) <= set(offsets) else []
    edges = sorted({offset + CHECK_WIDTH for offset in (*checks, *hints)} | ({0} if from_start else set()))
    blocks: list[tuple[int, int]] = []
    with memoryview(data) as view:
        for offset in checks:
            crc, end = _check_at(data, offset, position, nonce), offset + CHECK_WIDTH
            nth = bisect_right(edges, offset)
            for begin in reversed(edges[max(nth - _BEGINNINGS_MAX, 0) : nth]):
                if crc == crc32(view[begin:offset]):
                    joins = bool(blocks) and blocks[-1][1] == begin
                    blocks.append((blocks.pop()[0] if joins else begin, end))
                    break
    tail = not hints or hints[-1] in checks or resembles_check(data[hints[-1] :], position + hints[-1], nonce)
    return Survivors(blocks, edges, tail)


def base_by_check(data: bytes, nonce: float) -> int | None:
    """The position at which a segment begins whose first events are `data`, by its first whole block; None: none says so."""
    offset = data.find(CHECK_TAG)
    while 0 <= offset <= len(data) - CHECK_WIDTH:
        position = int(CHECK.unpack_from(data, offset)[5])
        crc = _check_at(data, offset, position - offset, nonce)
        if crc is not None and crc == crc32(data[:offset]) and offset <= position < POSITION_MAX:
            return position - offset
        offset = data.find(CHECK_TAG, offset + 1)
    return None


def _check_at(data: bytes, offset: int, position: int, nonce: float) -> int | None:
    """The crc32 in the check event at `offset`, if there stands one that belongs there."""
    if offset < 0 or offset + CHECK_WIDTH > len(data) or not data.startswith(CHECK_TAG, offset):
        return None
    _, crc, tag, its_nonce, tag_2, its_position, tag_3, zero = CHECK.unpack_from(data, offset)
    tags = (tag, tag_2, tag_3) == (TAG_F64, TAG_U64, TAG_F64)
    return int(crc) if tags and its_nonce == nonce and its_position == position + offset and zero == 0.0 else None


def is_check(data: bytes, position: int, nonce: float) -> bool:
    """Whether `data` is the check event that belongs at `position`."""
    return _check_at(data, 0, position, nonce) is not None


def closes(data: bytes, start: int) -> bool:
    """Whether the events of `data` from `start` on, whole ones, end with a CLOSED and its check."""
    unpacker = msgpack.Unpacker(max_buffer_size=len(data) or 1)
    unpacker.feed(memoryview(data)[start:])
    ends = [start]
    try:
        while ends[-1] < len(data):
            unpacker.skip()
            ends.append(start + unpacker.tell())
    except Exception:  # msgpack raises a handful of unrelated types on torn bytes
        return False
    return len(ends) > 2 and data[ends[-3] + 1] == Kind.CLOSED


def resembles_check(data: bytes, position: int, nonce: float) -> bool:
    """Whether `data` begins with a check event that belongs at `position`, or with what damage left of one."""
    if len(data) < CHECK_WIDTH:
        return False
    _, _, _, its_nonce, _, its_position, _, _ = CHECK.unpack_from(data)
    return bool(its_nonce == nonce or its_position == position)


def _true_checks(data: bytes, position: int, nonce: float) -> Iterator[int]:
    """The offsets of bytes that are a check event and say that they stand there."""
    offset = data.find(CHECK_TAG)
    while offset >= 0:
        if _check_at(data, offset, position, nonce) is not None:
            yield offset
        offset = data.find(CHECK_TAG, offset + 1)


def believable(tail: bytes, file_offset: int, start: int) -> int:
    """Of a tail that no check covers and that outlived a crash of its machine: the bytes of whole events that are no torn write.

    Stores reach the disk a sector at a time in any order, so a sector that is all zeros never arrived. Events count up to the
    first such sector; an event that reaches into it does not. (The writer covers at once what has a sector of zeros in itself, so
    only the last bytes of the last event can be taken for ones that did not arrive.) `file_offset` is where the tail begins in its
    file, `start` as in `whole_events`.
    """
    return whole_events(tail[: _arrived(tail, file_offset)], start)


def torn_block(data: bytes, file_offset: int, start: int) -> int:
    """Of a block whose check does not fit after a crash of its machine, what was written before its last sync, as `believable`
    says; 0 unless it breaks off where a sector, or the rest of one, is still zeros: other damage leaves no such trace."""
    arrived = _arrived(data, file_offset)
    whole = whole_events(data[:arrived], 0)
    rest = data[whole : whole + SECTOR - (file_offset + whole) % SECTOR]
    torn = arrived < len(data) or (whole < len(data) and not any(rest))
    return whole_events(data[:whole], start) if torn else 0


def _arrived(data: bytes, file_offset: int) -> int:
    """The bytes before the first sector that is all zeros."""
    sector = -(-file_offset // SECTOR) * SECTOR
    for begin in range(sector - file_offset, len(data), SECTOR):
        if not any(data[begin : begin + SECTOR]):
            return begin
    return len(data)


def _run_of_points(data: bytes) -> int:
    """Bytes of the points that `data` begins with: by induction, when the tags of each are right. 2 us for 4 KiB; walking them
    takes 100, ten times a second for every source that is logged to."""
    count = len(data) // POINT_WIDTH
    for offset, tag in _POINT_TAGS:
        column = data[offset : count * POINT_WIDTH : POINT_WIDTH]
        count = len(column) - len(column.lstrip(tag))
    return count * POINT_WIDTH


def whole_events(data: bytes, start: int) -> int:
    """Bytes of the whole arrays at the beginning of `data`, the kinds of a fixed width in that width; 0 when no event begins at
    `start`."""
    end = _run_of_points(data)
    met = start <= end and start % POINT_WIDTH == 0
    if end == len(data):
        return end if met else 0
    unpacker = msgpack.Unpacker(max_buffer_size=len(data) or 1)
    unpacker.feed(data[end:])
    run = end
    while end + 1 < len(data) and data[end] & 0xF0 == 0x90:
        try:
            unpacker.skip()
        except Exception:  # msgpack raises a handful of unrelated types on torn bytes; all end the walk
            break
        width = run + unpacker.tell() - end
        if width != _WIDTHS.get(data[end + 1], width):
            break
        end += width
        met = met or end == start
    return end if met else 0
