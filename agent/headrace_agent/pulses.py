"""Pulses: the words of many journals that change with each commit, compared all at once.

A `pread` of each costs 1.8 us between two naps of the processor, most of it the system call. So their pages are mapped, and one
`pwritev` has the kernel copy all the words into a file in memory, 0.5 us each. The agent itself never loads from such a map: a
journal that was cut short would be a SIGBUS; to the kernel it is a copy that ends there.

Journals that are not written through a map either (`filesystem.can_be_mapped`) are read.
"""

from __future__ import annotations

import os
from mmap import ACCESS_READ, PAGESIZE, mmap
from typing import Final, NamedTuple

from headrace_agent.lane import SourceLane
from headrace_proto.journal import PULSE_AT, PULSE_BYTES

AT_ONCE: Final = 1024
"""As many as one call may name: IOV_MAX of every Linux."""


class _Word(NamedTuple):
    """One word that is watched, and what it is while nothing happens."""

    lane: SourceLane
    descriptor: int
    page: bytes
    view: memoryview | None  # None: it is read


class Pulses:
    """Lanes, each with the pulse of its journal. `mapped` says whether journals may be mapped here."""

    def __init__(self, *, mapped: bool) -> None:
        self._words: dict[str, tuple[_Word, ...]] = {}
        self._copied: _Copied | None = None  # made anew when another lane is watched, or one no more
        self._read: list[_Word] = []
        self._scratch: Final = os.fdopen(os.memfd_create("pulses", os.MFD_CLOEXEC), "r+b", 0) if mapped else None

    def __len__(self) -> int:
        return len(self._words)

    def lanes(self) -> list[SourceLane]:
        """Every lane that is watched."""
        return [words[0].lane for words in self._words.values()]

    def add(self, lane: SourceLane, pulse: tuple[tuple[int, bytes], ...]) -> None:
        """Watch a lane for a change of its pulse, which is as `JournalReader.pulse` gave it just now."""
        before = self._words.get(lane.source.id, ())
        if tuple((word.descriptor, word.page) for word in before) != pulse:
            self._words[lane.source.id] = tuple(self._word(lane, descriptor, page) for descriptor, page in pulse)
            self._copied = None

    def _word(self, lane: SourceLane, descriptor: int, page: bytes) -> _Word:
        view = None
        if self._scratch is not None:
            try:
                header = mmap(descriptor, PAGESIZE, access=ACCESS_READ)
            except (OSError, ValueError):  # too many maps; a file without a page, which a proper look will tell
                pass
            else:
                view = memoryview(header)[PULSE_AT : PULSE_AT + PULSE_BYTES]
        return _Word(lane, descriptor, page, view)

    def remove(self, lane: SourceLane) -> None:
        """Watch a lane no more."""
        if self._words.pop(lane.source.id, None):
            self._copied = None

    def changed(self) -> list[SourceLane]:
        """The lanes whose pulses are others by now, or cannot be had: those want a proper look."""
        if self._copied is None:
            words = [word for words in self._words.values() for word in words]
            self._read = [word for word in words if word.view is None]
            self._copied = _Copied([word for word in words if word.view is not None])
        found = [word.lane for word in self._read if _read(word.descriptor) != word.page]
        if self._scratch is not None:
            found += self._copied.changed(self._scratch.fileno())
        return found

    def close(self) -> None:
        """Watch nothing any more."""
        self._words.clear()
        self._copied = None
        if self._scratch is not None:
            self._scratch.close()


def _read(descriptor: int) -> bytes:
    try:
        return os.pread(descriptor, PULSE_BYTES, PULSE_AT)
    except OSError:
        return b""


class _Copied:
    """Words that are copied together."""

    def __init__(self, words: list[_Word]) -> None:
        self._words: Final = words
        self._views: Final = [word.view for word in words if word.view is not None]
        self._pages: Final = b"".join(word.page for word in words)

    def changed(self, scratch: int) -> list[SourceLane]:
        """The lanes whose words are others by now, or cannot be copied."""
        found: list[SourceLane] = []
        at = 0
        while at < len(self._views):
            views = self._views[at : at + AT_ONCE]
            try:
                copied = os.pread(scratch, os.pwritev(scratch, views, 0), 0)
            except OSError:  # not even the first
                copied = b""
            whole = len(copied) // PULSE_BYTES
            expected = self._pages[at * PULSE_BYTES : (at + whole) * PULSE_BYTES]
            if copied[: len(expected)] != expected:
                found += [
                    word.lane
                    for nth, word in enumerate(self._words[at : at + whole])
                    if copied[nth * PULSE_BYTES : (nth + 1) * PULSE_BYTES] != word.page
                ]
            at += whole
            if whole < len(views):  # the next one's page is gone
                found.append(self._words[at].lane)
                at += 1
        return found
