"""How the journal's tests read a journal back: all that is settled, decoded by msgpack alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack

from headrace_proto.events import Kind
from headrace_proto.home import Home
from headrace_proto.journal import Damage, JournalReader, machine

READS_MAX = 4_000
"""No journal of these tests needs as many reads: more is a reader that does not move."""

SECOND_NS = 1_000_000_000
Lost = list[tuple[int, int]]
"""Ranges of positions that a reader gave up."""


def lies_on(kind: str) -> Callable[[str], str]:
    """`filesystem.kind_of`, for a machine on which every folder lies on a file system of this kind."""
    return lambda path: kind


def script_on(kind: str, script: str) -> str:
    """`script`, for a process on such a machine."""
    return f"from headrace_proto import filesystem\nfilesystem.kind_of = lambda path: {kind!r}\n{script}"


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_ns = 0

    def later(self, seconds: float = 10.0) -> int:
        self.now_ns += int(seconds * SECOND_NS)
        return self.now_ns


def settle(reader: JournalReader, clock: Clock | None = None) -> int:
    """Poll twice, so that all that is committed now may be read."""
    clock = clock or Clock()
    reader.poll(clock.later())
    return reader.poll(clock.later())


def read_at(reader: JournalReader, position: int, bytes_max: int, clock: Clock) -> bytes | Damage:
    """What there is at a position. Damage counts only when it lasts, so whatever is not believed at once is looked at again."""
    found = reader.read(position, bytes_max)
    if found is None:
        reader.poll(clock.later())
        found = reader.read(position, bytes_max)
    assert found is not None
    return found


def read_all(reader: JournalReader, bytes_max: int = 64 * 1024) -> tuple[bytes, list[Damage]]:
    """Every believed byte in order, and every damage between them."""
    clock = Clock()
    end = settle(reader, clock)
    position, parts, damages = reader.oldest, [], []
    while position < end:
        found = read_at(reader, position, bytes_max, clock)
        if isinstance(found, Damage):
            damages.append(found)
            position = found.end
        else:
            parts.append(found)
            position += len(found)
    return b"".join(parts), damages


def decode(raw: bytes, *, checks: bool = False) -> list[list[Any]]:
    """The events in `raw`, check events left out unless wanted."""
    unpacker = msgpack.Unpacker(max_buffer_size=len(raw) or 1, strict_map_key=False)
    unpacker.feed(raw)
    return [event for event in unpacker if checks or event[0] != Kind.CHECK]


def events_of(home: Home, source: str) -> list[list[Any]]:
    """Every event of an undamaged journal."""
    reader = JournalReader(home.journal(source))
    try:
        raw, damages = read_all(reader)
    finally:
        reader.close()
    assert not damages
    return decode(raw)


def points_of(home: Home, source: str) -> list[tuple[float, float]]:
    """(step, value) of every point of an undamaged journal."""
    return [(event[2], event[4]) for event in events_of(home, source) if event[0] == Kind.POINT]


def sources(home: Home) -> list[str]:
    """The ids of the sources that have a journal."""
    return sorted(path.name for path in Path(home.journals).iterdir() if not path.name.startswith("."))


class Reading:
    """What one reader made of a journal: bytes at positions, and ranges that it gave up."""

    def __init__(self, folder: str, bytes_max: int, *, dead: bool = True) -> None:
        self.parts: list[tuple[int, bytes]] = []
        self.lost: Lost = []
        reader, clock = JournalReader(folder), Clock()
        if dead:  # our own process is no proof of a writer's life here
            reader.header = reader.header._replace(pid=0)  # type: ignore[misc]
        try:
            reader.poll(clock.later())
            self.end = reader.poll(clock.later())
            self.oldest = position = reader.oldest
            for _ in range(READS_MAX):
                if position >= self.end:
                    break
                found = read_at(reader, position, bytes_max, clock)
                if isinstance(found, Damage):
                    assert found.first == position < found.end
                    self._lose(found.first, found.end)
                    position = found.end
                else:
                    assert found
                    self.parts.append((position, found))
                    position += len(found)
            assert position == self.end
            self.closed, self.obstacle = reader.closed, reader.obstacle
            self.gone = reader.writer_gone(machine.host_name(), machine.boot_id())
        finally:
            reader.close()

    def _lose(self, first: int, end: int) -> None:
        if self.lost and self.lost[-1][1] == first:
            first = self.lost.pop()[0]
        self.lost.append((first, end))

    @property
    def raw(self) -> bytes:
        return b"".join(part for _, part in self.parts)

    def assert_true(self, written: bytes) -> None:
        """Everything shown is what was written at its place, and whole events."""
        for position, part in self.parts:
            assert part == written[position : position + len(part)]
            decode(part)
