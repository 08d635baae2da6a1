"""One segment file as its reader sees it: what its header says, and what of that its check events bear out."""

from __future__ import annotations

import os
import stat
from array import array
from bisect import bisect_right
from contextlib import suppress
from struct import Struct

from headrace_proto.errors import Corrupt
from headrace_proto.events import CHECK_WIDTH
from headrace_proto.journal.layout import (
    BASE_AT,
    CHECKS_AT,
    LIVE,
    POSITION_MAX,
    UNSET,
    SegmentHead,
    decode_head,
    segment_name,
)
from headrace_proto.journal.verify import (
    base_by_check,
    closes,
    is_check,
    resembles_check,
    survivors,
)
from headrace_proto.limits import CHECK_BYTES, CHECKS_MAX, EVENT_BYTES_MAX, HEADER_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

BLOCK_MAX: Final = CHECK_BYTES + EVENT_BYTES_MAX + CHECK_WIDTH
"""A block with its check: events of CHECK_BYTES, the last of which may be one of the largest."""
SEGMENT_MAX: Final = 64 * 1024 * 1024
"""A file that is larger is no segment."""
_CHECK: Final = Struct("<I")
_FEW_CHECKS: Final = 64
"""Entries of the index read at a time."""
_LAST_CHECKS: Final = 4
"""Of the index, looked at for the journal's end: the last one may be damaged itself."""


class SegmentFile:
    """One segment file. `end` is the position behind its last committed event; `said` is what its header said last, true or not.

    Its descriptor is opened when it is needed and may be closed in between: a backlog of gigabytes is hundreds of segments.
    """

    __slots__ = (
        "_checks",
        "_checks_read",
        "_descriptor",
        "_live",
        "_path",
        "base",
        "closed",
        "end",
        "head",
        "said",
        "size",
        "synced",
    )

    def __init__(self, folder: str, number: int) -> None:
        self._path = os.path.join(folder, segment_name(number))
        self._descriptor: int | None = None
        self._live = b""  # as last read: an idle journal is looked at ten times a second
        self._checks: array[int] = array("Q")
        self._checks_read = 0  # entries of the index that are in there
        try:
            facts = os.fstat(self.descriptor)
            if not stat.S_ISREG(facts.st_mode) or facts.st_size > SEGMENT_MAX:
                raise Corrupt(f"segment {number} of {folder} is no plain file of a segment's size")
            self.head: SegmentHead = decode_head(os.pread(self.descriptor, HEADER_BYTES, 0))
            if self.head.number != number:
                raise Corrupt(f"segment {number} of {folder} says that it is number {self.head.number}")
        except BaseException:
            self.close()
            raise
        self.size = facts.st_size
        self.base = UNSET
        self.end = self.said = self.synced = 0
        self.closed = False
        self.refresh()
        self._find_end()

    @property
    def descriptor(self) -> int:
        """Of the file, opened if it is not."""
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        return self._descriptor

    @property
    def in_use(self) -> bool:
        """Whether the writer has begun it: until then it was only made ahead."""
        return self.base != UNSET

    @property
    def pulse(self) -> tuple[int, bytes]:
        """As in `JournalReader.pulse`."""
        return self.descriptor, self._live

    def refresh(self) -> None:
        """Read again what changes; a value that cannot be true changes nothing."""
        page = os.pread(self.descriptor, LIVE.size, BASE_AT)
        if page == self._live or len(page) < LIVE.size:
            return
        self._live = page
        base, committed, closed = LIVE.unpack(page)
        if self.base == UNSET and base < POSITION_MAX:
            self.base = self.end = base if self.head.number else 0
        if self.in_use and HEADER_BYTES <= committed <= SEGMENT_MAX:
            self.said = self.base + committed - HEADER_BYTES
            self.end = max(self.end, self.said if committed <= self.size else 0)
        self.closed = self.closed or closed == 1

    def _find_end(self) -> None:
        """Go at least as far as the last check that stands where the index says: the committed word has no checksum."""
        if not self.in_use:
            return
        nonce = self.head.facts.nonce
        for check in reversed(self.checks(self.base + self.size - HEADER_BYTES)[-_LAST_CHECKS:]):
            if is_check(self.read(check, check + CHECK_WIDTH), check, nonce):
                self.end = max(self.end, check + CHECK_WIDTH)
                return

    def begins_block(self, position: int, nonce: float) -> bool:
        """Whether a block begins at the position: behind a check, or what damage left of one, or with the segment."""
        check = position - CHECK_WIDTH
        return position == self.base or resembles_check(self.read(check, position), check, nonce)

    def ends_as_closed(self) -> bool:
        """Whether the last event is a CLOSED one, covered by its check: a bit that flipped must not end a journal."""
        if not self.in_use:
            return False
        first = max(self.base, self.end - BLOCK_MAX - CHECK_WIDTH)
        data = self.read(first, self.end)
        offsets = [check - first for check in self.checks(self.end) if check >= first]
        left = survivors(data, first, self.head.facts.nonce, offsets, from_start=first == self.base)
        return bool(left.blocks) and left.blocks[-1][1] == len(data) and closes(data, left.blocks[-1][0])

    def find_base(self, nonce: float) -> bool:
        """Take the base that the first whole block says, if there is one: the word in the header has no checksum of its own."""
        base = base_by_check(os.pread(self.descriptor, BLOCK_MAX, HEADER_BYTES), nonce)
        if base is not None and self.in_use:
            self.move_base(base)
        return base is not None

    def move_base(self, base: int) -> None:
        """Stand at another base than the header's word says."""
        self.base, self.end = base, base + self.end - self.base
        self._forget_checks()

    def offset(self, position: int) -> int:
        """The file offset of a position."""
        return position - self.base + HEADER_BYTES

    def checks(self, end: int) -> array[int]:
        """The positions where check events should stand, by the index: ascending, and below `end`.

        Of an index that grows only what is new is read: a look at a live journal finds one entry more, or none.
        """
        if end > self.end:  # nothing there is committed: not to be remembered
            return self._read_checks(0, array("Q"), end)[0]
        known = self._checks
        if not known or known[-1] + CHECK_WIDTH <= end:
            known, self._checks_read = self._read_checks(self._checks_read, known, end)
            return known
        return known[: bisect_right(known, end - CHECK_WIDTH)]

    def _read_checks(self, nth: int, positions: array[int], end: int) -> tuple[array[int], int]:
        """Append what the index says from entry `nth` on to `positions`; and the entry at which to go on."""
        while nth < CHECKS_MAX:
            wanted = min(_FEW_CHECKS, CHECKS_MAX - nth) * _CHECK.size
            few = os.pread(self.descriptor, wanted, CHECKS_AT + nth * _CHECK.size)
            if len(few) < wanted:
                break
            for (offset,) in _CHECK.iter_unpack(few):
                position = self.base + offset - HEADER_BYTES
                if offset == 0 or position + CHECK_WIDTH > end:
                    return positions, nth
                if position >= (positions[-1] if positions else self.base):
                    positions.append(position)
                nth += 1
        return positions, nth

    def _forget_checks(self) -> None:
        self._checks, self._checks_read = array("Q"), 0

    def read(self, first: int, end: int) -> bytes:
        """The bytes of [first, end), or fewer when the file has no more."""
        return os.pread(self.descriptor, end - first, self.offset(first))

    def sync(self) -> None:
        """Bring the file to the disk, if it has grown since the last time. Through a descriptor of its own: another thread may
        close ours, or delete the file because the store has it."""
        end = self.end
        if self.synced == end:
            return
        with suppress(FileNotFoundError):
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
        self.synced = end

    def unlink(self) -> None:
        """Delete the file."""
        self.close()
        with suppress(FileNotFoundError):  # another agent, which should not be there, was first
            os.unlink(self._path)

    def close(self) -> None:
        """Give the descriptor back; it is opened again when it is needed."""
        self._forget_checks()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
