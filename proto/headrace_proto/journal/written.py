"""A segment that is written, not mapped: on network and copy-on-write file systems (`headrace_proto.filesystem`).

The hot path is the same: it packs events into `map`, here private memory, and stores `committed[0]`, here a write of the new bytes
and then one of the word. That costs two system calls. The file is the same too, byte for byte, and so is its reader: a word that is
written is never seen half (0 of 3.6 M reads of two alternating values, on ext4 and tmpfs).

A write may fail where a store into a map cannot. Then nothing of the event counts: its bytes stay beyond the committed offset and
are written over, and the call gets `NoRoom`, as one without room for a segment does.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable
from contextlib import suppress
from struct import Struct

from headrace_proto.journal.descriptor import Descriptor
from headrace_proto.journal.layout import BASE_AT, CHECKS_AT, CLOSED_AT, COMMITTED_AT, Header, segment_name
from headrace_proto.journal.segment import NoRoom, Segment
from headrace_proto.limits import HEADER_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_WORD: Final = Struct("<Q")
_OFFSET: Final = Struct("<I")
Failed = Callable[[str, int | None], None]
"""What hears of a failed write: the reason, and where the next event goes now, if that has changed."""


class WrittenSegment(Segment):
    """A segment file in which every change is a write. `failed` is called before `NoRoom` is raised.

    `reserve` gives the file blocks of its own: a server says that it is full when it gets the bytes, long after the write that
    brought them, so it gets them now. Where each write takes new blocks anyway that would reserve nothing.
    """

    __slots__ = ("_failed", "_reserve")

    def __init__(
        self, folder: str, number: int, size: int, base: int, header: Header, *, reserve: bool, failed: Failed
    ) -> None:
        self._reserve = reserve
        self._failed = failed
        super().__init__(folder, number, size, base, header)

    def _allocate(self) -> None:
        if self._reserve:
            os.posix_fallocate(self.descriptor.number, 0, self.size)
            os.fdatasync(self.descriptor.number)
        else:
            os.ftruncate(self.descriptor.number, self.size)  # a reader bounds offsets by the file's size

    def _memory(self) -> mmap.mmap:
        return mmap.mmap(-1, self.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    def _fill(self, start: int, end: int) -> None:
        """The map is private memory, and the file is written when there is something to write."""

    def _open_numbers(self) -> None:
        self._page = memoryview(self.map)
        self._base = _Written(self, BASE_AT, _WORD, self._failed)
        self.committed = _Committed(self, self._page, self._failed)
        self._closed = _Written(self, CLOSED_AT, _WORD, self._failed)
        self._checks = _Written(self, CHECKS_AT, _OFFSET, self._failed)

    def _unmap(self) -> None:
        self.map.close()  # of private memory, without a descriptor

    def file(self) -> int:
        """The descriptor to write to, opened again when somebody has closed it. Raises `OSError` when it cannot be."""
        if not self.descriptor.is_ours():
            path = os.path.join(self.folder, segment_name(self.number))
            self.descriptor = Descriptor(os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC))
        return self.descriptor.number


class _Written:
    """Numbers of the header, each stored by a write."""

    __slots__ = ("_at", "_failed", "_format", "_segment")

    def __init__(self, segment: WrittenSegment, at: int, format: Struct, failed: Failed) -> None:  # noqa: A002 - struct's own word
        self._segment = segment
        self._at = at
        self._format = format
        self._failed = failed

    def __setitem__(self, nth: int, value: int) -> None:
        try:
            _write(self._segment.file(), self._format.pack(value), self._at + nth * self._format.size)
        except OSError as error:
            self._failed(error.strerror or "disk", None)
            raise NoRoom from error

    def release(self) -> None:
        """There is nothing to let go."""


class _Committed:
    """The committed word, which is written behind the bytes that it covers."""

    __slots__ = ("_end", "_failed", "_segment", "_view")

    def __init__(self, segment: WrittenSegment, view: memoryview, failed: Failed) -> None:
        self._segment = segment
        self._view = view
        self._failed = failed
        self._end = HEADER_BYTES

    def __setitem__(self, nth: int, end: int) -> None:
        first = self._end
        try:
            file = self._segment.file()
            with self._view[first:end] as data:  # given back even when a traceback keeps this frame
                _write(file, data, first)
            _write(file, _WORD.pack(end), COMMITTED_AT)
        except OSError as error:
            if not self._arrived(end):
                self._failed(error.strerror or "disk", first)
                raise NoRoom from error
        self._end = end

    def _arrived(self, end: int) -> bool:
        """Whether the word is in the file although its write failed: what a reader may have seen is never taken back."""
        with suppress(OSError):
            return os.pread(self._segment.file(), _WORD.size, COMMITTED_AT) == _WORD.pack(end)
        return False

    def release(self) -> None:
        """Give up the view of the memory that is about to be unmapped."""
        self._view.release()


def _write(descriptor: int, data: bytes | memoryview, at: int) -> None:
    """Write all of `data` at the offset `at`, in as many calls as it takes."""
    written = os.pwrite(descriptor, data, at)
    while written < len(data):
        more = os.pwrite(descriptor, bytes(data[written:]), at + written)
        if more == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written += more
