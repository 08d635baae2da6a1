"""Which bytes of a segment may be believed: pure functions over bytes, for the reader.

A segment's index says where its check events should stand; a check event says, with its own position and its source's nonce, that
it does stand there, and with its crc32 that the bytes before it are those that were written. So a damaged block costs that block
only: the next check starts afresh. An index that lies costs nothing but a search for the check's own bytes.
"""

from __future__ import annotations

from binascii import crc32
from collections.abc import Iterator
from typing import Final, NamedTuple

import msgpack

from headrace_proto.events import (
    AUTO_POINT_WIDTH,
    CHECK,
    CHECK_TAG,
    CHECK_WIDTH,
    POINT_WIDTH,
    TAG_F64,
    TAG_U64,
    Kind,
)

_PAGE: Final = 4096
_WIDTHS: Final[dict[int, int]] = {Kind.POINT: POINT_WIDTH, Kind.CHECK: CHECK_WIDTH, Kind.AUTO_POINT: AUTO_POINT_WIDTH}


class Damage(NamedTuple):
    """[first, end) of a journal cannot be believed."""

    first: int
    end: int
    reason: str


class Verified(NamedTuple):
    """What was found in a stretch of a segment that begins where a check's cover begins."""

    good: int  # bytes from the beginning that are whole, covered blocks
    bad: int  # bytes after them that are damaged, 0 if none was found


def verify(data: bytes, position: int, nonce: float, offsets: list[int]) -> Verified:
    """Check the blocks of `data`, which begins at `position`, against its check events at `offsets` (into `data`, ascending).

    Stops at the first damage. Bytes after the last check are neither good nor bad.
    """
    good = 0
    with memoryview(data) as view:
        for nth, offset in enumerate(offsets):
            crc = _check_at(data, offset, position, nonce)
            if crc is not None and crc == crc32(view[good:offset]):
                good = offset + CHECK_WIDTH
                continue
            return Verified(good, _damaged_until(data, good, position, nonce, offsets[nth:]) - good)
    return Verified(good, 0)


def _check_at(data: bytes, offset: int, position: int, nonce: float) -> int | None:
    """The crc32 in the check event at `offset`, if there stands one that belongs there."""
    if offset < 0 or offset + CHECK_WIDTH > len(data) or not data.startswith(CHECK_TAG, offset):
        return None
    _, crc, tag, its_nonce, tag_2, its_position, tag_3, zero = CHECK.unpack_from(data, offset)
    tags = (tag, tag_2, tag_3) == (TAG_F64, TAG_U64, TAG_F64)
    return int(crc) if tags and its_nonce == nonce and its_position == position + offset and zero == 0.0 else None


def _damaged_until(data: bytes, start: int, position: int, nonce: float, offsets: list[int]) -> int:
    """Where the first block after the damage at `start` begins that its own check vouches for, or the last check's end."""
    last = start
    for offset in _true_checks(data, start, position, nonce):
        last = offset + CHECK_WIDTH
        crc = _check_at(data, offset, position, nonce)
        for begin in (other + CHECK_WIDTH for other in offsets):
            if start < begin <= offset and crc == crc32(data[begin:offset]):
                return begin
        return last
    return max(last, offsets[-1] + CHECK_WIDTH)


def _true_checks(data: bytes, start: int, position: int, nonce: float) -> Iterator[int]:
    """The offsets, from `start` on, of bytes that are a check event and say that they stand there."""
    offset = data.find(CHECK_TAG, start)
    while offset >= 0:
        if _check_at(data, offset, position, nonce) is not None:
            yield offset
        offset = data.find(CHECK_TAG, offset + 1)


def believable(tail: bytes, file_offset: int) -> int:
    """Of a tail that no check covers and that outlived a crash of its machine: the bytes of whole events that are no torn write.

    Stores reach the disk a page at a time in any order, so a page that is all zeros never arrived. Events count up to the first
    such page; an event that reaches into it does not. `file_offset` is where the tail begins in its file.
    """
    limit = len(tail)
    page = -(-file_offset // _PAGE) * _PAGE
    while page < file_offset + len(tail):
        begin = page - file_offset
        if not any(tail[begin : begin + _PAGE]):
            limit = begin
            break
        page += _PAGE
    return _whole_events(tail[:limit])


def _whole_events(data: bytes) -> int:
    """Bytes of the whole arrays at the beginning of `data`, the kinds of a fixed width in that width."""
    unpacker = msgpack.Unpacker(max_buffer_size=len(data) or 1)
    unpacker.feed(data)
    end = 0
    while end + 1 < len(data) and data[end] & 0xF0 == 0x90:
        try:
            unpacker.skip()
        except Exception:  # msgpack raises a handful of unrelated types on torn bytes; all end the walk
            break
        width = unpacker.tell() - end
        if width != _WIDTHS.get(data[end + 1], width):
            break
        end += width
    return end
