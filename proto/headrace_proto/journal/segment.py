"""One segment as its writer sees it: allocated, mapped, and committed to by single stores."""

from __future__ import annotations

import mmap
import os
from contextlib import suppress

from headrace_proto.home import FILE_MODE, HIDDEN
from headrace_proto.journal.descriptor import Descriptor
from headrace_proto.journal.layout import (
    BASE_AT,
    CHECKS_AT,
    CLOSED_AT,
    COMMITTED_AT,
    Header,
    encode_head,
    segment_name,
)
from headrace_proto.limits import CHECKS_MAX, HEADER_BYTES, PREFAULT_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, Protocol

    class Numbers(Protocol):
        """Some of the header's numbers: a view of the map, or what writes them to the file."""

        def __setitem__(self, nth: int, value: int, /) -> None:
            """Make the `nth` of them `value`."""
            ...

        def release(self) -> None:
            """Let go."""
            ...


_MADV_POPULATE_WRITE: Final = 23  # linux/mman.h, Linux 5.14; the mmap module does not name it
_ZEROS: Final = bytes(PREFAULT_BYTES)
_left_open: Final[list[mmap.mmap]] = []
"""Maps whose own descriptor is somebody else's by now: collected, they would close it."""


class NoRoom(Exception):
    """There is no room for an event."""


class Segment:
    """A mapped segment file. `map` takes events; `committed[0]` is the one store that makes them true."""

    __slots__ = (
        "_base",
        "_checks",
        "_closed",
        "_page",
        "_prefaulted",
        "committed",
        "descriptor",
        "folder",
        "map",
        "number",
        "size",
    )
    committed: Numbers
    _base: Numbers
    _closed: Numbers
    _checks: Numbers

    def __init__(self, folder: str, number: int, size: int, base: int, header: Header) -> None:
        """Raises `OSError` when the disk has no room; then no file is left behind."""
        path = os.path.join(folder, HIDDEN + segment_name(number))
        self.descriptor = Descriptor(_create(path))
        self.folder = folder  # the first one's gets its name later
        self.number: Final = number
        self.size: Final = size
        self._prefaulted = 0
        try:
            self._allocate()
            os.pwrite(self.descriptor.number, encode_head(number, size, base, header), 0)
            self.map: Any = self._memory()
            self._open_numbers()
            # only now, so that a kill in between leaves no segment without a header
            os.rename(path, os.path.join(folder, segment_name(number)))
        except BaseException:
            self.descriptor.close()
            with suppress(OSError):
                os.unlink(path)
            raise

    def _allocate(self) -> None:
        os.posix_fallocate(self.descriptor.number, 0, self.size)

    def _memory(self) -> mmap.mmap:
        return mmap.mmap(self.descriptor.number, self.size)

    def _open_numbers(self) -> None:
        self._page = memoryview(self.map)
        words = self._page[:HEADER_BYTES].cast("Q")
        self._base = words[BASE_AT // 8 : BASE_AT // 8 + 1]
        self.committed = words[COMMITTED_AT // 8 : COMMITTED_AT // 8 + 1]
        self._closed = words[CLOSED_AT // 8 : CLOSED_AT // 8 + 1]
        self._checks = self._page[CHECKS_AT : CHECKS_AT + 4 * CHECKS_MAX].cast("I")

    def begin(self, base: int) -> None:
        """Put a segment that was made ahead into use: from now on the one before it is finished."""
        self._base[0] = base

    def index_check(self, nth: int, offset: int) -> None:
        """Note where the segment's `nth` check event stands."""
        self._checks[nth] = offset

    def mark_closed(self) -> None:
        """Say that nothing will follow."""
        self._closed[0] = 1

    def prefault(self, offset: int) -> None:
        """Make the pages after `offset`, where the next event goes, present now: not one fault at a time under the caller."""
        if offset + PREFAULT_BYTES // 2 <= self._prefaulted:
            return
        start = max(self._prefaulted, offset // mmap.PAGESIZE * mmap.PAGESIZE)
        length = min(PREFAULT_BYTES, self.size - start)
        self._prefaulted = start + length
        if length > 0:
            try:
                self._fill(max(start, offset), start + length)
                self.map.madvise(_MADV_POPULATE_WRITE, start, length)
            except OSError:
                self._prefaulted = self.size  # an older kernel, a disk that fails: pages come one fault at a time

    def _fill(self, start: int, end: int) -> None:
        """Bring zeros into the page cache by a write, which takes large folios: half the price of faults of single pages.

        And no fault has to read ahead then, which it does as far as the disk's setting says, into memory that nobody reads.
        """
        if self.descriptor.is_ours():
            os.pwrite(self.descriptor.number, _ZEROS[: end - start], start)

    def release(self) -> None:
        """Unmap and close. The file stays for the agent."""
        for numbers in (self._base, self.committed, self._closed, self._checks, self._page):
            numbers.release()
        self._unmap()
        self.descriptor.close()

    def _unmap(self) -> None:
        if self.descriptor.is_ours():
            with suppress(BufferError):  # a traceback keeps a view of it: it goes with that
                self.map.close()
        else:
            _left_open.append(self.map)


def _create(path: str) -> int:
    """A new file's descriptor. One that is there already is of an attempt that an exception from a signal handler ended."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags, FILE_MODE)
    except FileExistsError:
        os.unlink(path)
        return os.open(path, flags, FILE_MODE)


def sync_names(folder: str, above: set[str] | None = None) -> None:
    """Bring the names in a journal's folder to the disk, and its own, up to the home's: a file without a name is lost.

    `above` are folders above whose names are there already: all journals of a home share them. Those that were synced are added.
    """
    sync_file(folder)
    for _ in range(3):
        folder = os.path.dirname(folder)
        if above is not None and folder in above:
            continue
        with suppress(PermissionError):  # above the home we may have no business
            sync_file(folder)
        if above is not None:
            above.add(folder)


def sync_file(path: str) -> None:
    """Bring a file's bytes, or a folder's names, to the disk. One that is gone was trimmed: the store has it."""
    with suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
