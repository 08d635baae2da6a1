"""Intake: the order of one source's batches, by arithmetic alone. No I/O, no clock of its own.

Invariants
1. `stored <= expected`. Below `stored` everything is in the store but for the ranges in `lost`, which good bytes may still
   fill; `ready` covers `[stored, expected)` without a hole.
2. What begins above `expected` waits in `above`, within bounds; what finds no room there is dropped: the journal has it still.
3. Each message that was offered and not refused is held in exactly one place until it is answered: in `fills`, in `ready`, in
   `above`, or as a rider, whose bytes are not kept because another message brought them, until the store reaches its end.
4. Nothing moves `stored` but `advance` and `rebase`, and both are told by a commit.

LOST and DEAD frames are batches like any other. An empty EVENTS frame carries nothing: it asks for a commit of what stands
before it, so it is a rider from the beginning.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator, Sequence
from enum import Enum, auto
from typing import Final, NamedTuple

from headrace_proto.frame import Frame, FrameKind
from headrace_proto.limits import MIB

SOURCE_ABOVE_BYTES_MAX: Final = 8 * MIB
"""Held above a gap, one source: two dozen full frames, more than an agent has in flight."""
ABOVE_BYTES_MAX: Final = 64 * MIB
"""Held above gaps, all sources of one process. What is dropped beyond is only sent again."""
REORDER_S: Final = 1.0
"""A gap that lasts this long is no reordering: the source is asked to send again from it."""
REWIND_PAUSE_S: Final = 5.0
"""Between two such requests to one source, so that what is sent again has time to arrive."""
GAP_PATIENCE_S: Final = 24 * 3600.0
"""A gap that nobody has filled for so long is given up, by the age of what waits above it in the stream: the node and its journal
are gone, or away for longer than anyone should wait. What comes after all is stored all the same."""
GAP_WATCHED_PART: Final = 1 / 144
"""Of that time this process must have waited itself, by a clock that nobody sets: 10 minutes of 24 hours. A host's clock that jumps
ahead makes everything in the stream a day old at once."""
FRAME_OVERHEAD: Final = 1024
"""Bytes that a held message costs besides its data: many tiny frames must not hide from the bounds."""


class Arrival(NamedTuple):
    """A frame and the message that brought it."""

    frame: Frame
    reply: str  # where the message is acknowledged
    site: str  # where its source's marks go
    size: int  # bytes that it holds in memory
    at_ns: int  # when the stream took it, by the broker's clock
    came_s: float  # when it came here, by any monotonic clock


class Standing(NamedTuple):
    """Where the store stands with a source."""

    position: int = 0
    lost: tuple[tuple[int, int], ...] = ()  # ranges below it that the store does not have


class Verdict(Enum):
    """What became of an arrival."""

    HELD = auto()  # it waits here, unacknowledged
    STORED = auto()  # the store has it: acknowledge it and repeat the mark
    DROPPED = auto()  # no room above the gap: acknowledge it, a rewind will be due


class Memory:
    """Bytes held by all intakes that share it; those of one experiment count into those of the process."""

    __slots__ = ("_whole", "above", "ready")

    def __init__(self, whole: Memory | None = None) -> None:
        self.ready = 0
        self.above = 0
        self._whole = whole

    def add(self, *, ready: int = 0, above: int = 0) -> None:
        """Count bytes that came, or, below zero, that went."""
        self.ready += ready
        self.above += above
        if self._whole:
            self._whole.add(ready=ready, above=above)

    def has_room(self, size: int) -> bool:
        """Whether `size` more bytes may be held above gaps."""
        return (self._whole.above if self._whole else self.above) + size <= ABOVE_BYTES_MAX


class _Waiting(NamedTuple):
    """Sorted by place; the number keeps arrivals themselves from being compared."""

    first: int
    end: int
    number: int
    arrival: Arrival


class SourceIntake:
    """One source's batches between the queue and the store."""

    __slots__ = (
        "_above", "_above_bytes", "_asked_at", "_fills", "_gap_since", "_lost", "_memory", "_number", "_ready", "_riders",
        "expected", "stored",
    )  # fmt: skip

    def __init__(self, standing: Standing, memory: Memory) -> None:
        self.stored, self._lost = standing
        self.expected = self.stored
        self._fills: list[Arrival] = []
        self._ready: list[Arrival] = []
        self._riders: list[tuple[int, str]] = []  # (end, reply)
        self._above: list[_Waiting] = []
        self._above_bytes = 0
        self._memory = memory
        self._number = 0
        self._gap_since: float | None = None
        self._asked_at = float("-inf")

    # -- Arriving -------------------------------------------------------------------------------------------------------

    def offer(self, arrival: Arrival, now: float) -> Verdict:
        """Find an arrival's place. `now` is any monotonic clock, in seconds."""
        if _is_below(arrival.frame, self.stored):
            return self._offer_below(arrival)
        if arrival.frame.first > self.expected:
            return self._offer_above(arrival, now)
        self._append(arrival)
        self._close_gap(now)
        return Verdict.HELD

    def _offer_below(self, arrival: Arrival) -> Verdict:
        if not self._may_fill(arrival.frame):
            return Verdict.STORED
        self._fills.append(arrival)
        self._memory.add(ready=arrival.size)
        return Verdict.HELD

    def _may_fill(self, frame: Frame) -> bool:
        """Whether the frame has bytes of a range that was given up."""
        return frame.kind is FrameKind.EVENTS and any(a < frame.end and frame.first < b for a, b in self._lost)

    def _append(self, arrival: Arrival) -> None:
        if _is_below(arrival.frame, self.expected):
            self._riders.append((arrival.frame.end, arrival.reply))
            return
        self._ready.append(arrival)
        self._memory.add(ready=arrival.size)
        self.expected = arrival.frame.end

    def _offer_above(self, arrival: Arrival, now: float) -> Verdict:
        if self._gap_since is None:
            self._gap_since = now
        if self._above_bytes + arrival.size > SOURCE_ABOVE_BYTES_MAX or not self._memory.has_room(arrival.size):
            self._gap_since = now - REORDER_S  # what is dropped comes by a rewind only: nothing to wait for
            return Verdict.DROPPED
        self._number += 1
        insort(self._above, _Waiting(arrival.frame.first, arrival.frame.end, self._number, arrival))
        self._count_above(arrival.size)
        return Verdict.HELD

    def _close_gap(self, now: float) -> None:
        reached = 0
        while reached < len(self._above) and self._above[reached].first <= self.expected:
            arrival = self._above[reached].arrival
            self._count_above(-arrival.size)
            self._append(arrival)
            reached += 1
        del self._above[:reached]
        if reached or not self._above:
            self._gap_since = now if self._above else None

    def _count_above(self, size: int) -> None:
        self._above_bytes += size
        self._memory.add(above=size)

    def suspect(self, now: float) -> None:
        """A message of this source could not be read: ask for it without patience, unless it comes by itself."""
        self._gap_since = now - REORDER_S

    def rewind_due(self, now: float) -> int | None:
        """From where the source must send again, if it is time to ask it; the caller then does ask."""
        if self._gap_since is None or now - self._gap_since < REORDER_S or now - self._asked_at < REWIND_PAUSE_S:
            return None
        self._asked_at = now
        if not self._above:
            self._gap_since = None  # nothing here proves that anything is missing: once is enough
        return self.expected

    def gap(self, now_ns: int, now: float, patience_s: float) -> tuple[int, int] | None:
        """The range that is missing below what has waited in the stream for `patience_s`, and here for a part of that.

        `now_ns` is this host's time, `now` that of the arrivals' monotonic clock.
        """
        for _, _, _, arrival in self._above:
            aged = now_ns - arrival.at_ns >= patience_s * 1e9
            if aged and now - arrival.came_s >= patience_s * GAP_WATCHED_PART:
                return self.expected, self._above[0].first
        return None

    @property
    def waiting_above(self) -> int:
        """Messages that wait above a gap."""
        return len(self._above)

    # -- Storing --------------------------------------------------------------------------------------------------------

    @property
    def waits(self) -> bool:
        """Whether there is something to commit."""
        return bool(self._fills or self._ready)

    def take(self, bytes_max: int) -> list[Arrival]:
        """What stands next for a commit, in order and without a hole: up to `bytes_max` raw bytes, or one batch."""
        waiting = [*self._fills, *self._ready]
        taken, raw = 0, 0
        while taken < len(waiting) and (not taken or raw + waiting[taken].frame.raw_size <= bytes_max):
            raw += waiting[taken].frame.raw_size
            taken += 1
        return waiting[:taken]

    def advance(self, standing: Standing, taken: Sequence[Arrival] = ()) -> list[str]:
        """A commit that was given `taken` brought the store to `standing`. Returns the messages to acknowledge."""
        fills = sum(_is_below(arrival.frame, self.stored) for arrival in taken)
        rest = [*self._fills[fills:], *self._ready[len(taken) - fills :]]
        self.stored, self._lost = standing
        self.expected = max(self.expected, self.stored)
        below = [arrival for arrival in rest if _is_below(arrival.frame, self.stored)]
        self._fills = [arrival for arrival in below if self._may_fill(arrival.frame)]
        self._ready = [arrival for arrival in rest if not _is_below(arrival.frame, self.stored)]
        done = [*taken, *(arrival for arrival in below if not self._may_fill(arrival.frame))]
        self._memory.add(ready=-sum(arrival.size for arrival in done))
        return [arrival.reply for arrival in done] + self._riders_below(self.stored)

    def _riders_below(self, stored: int) -> list[str]:
        riders, self._riders = self._riders, []
        self._riders = [rider for rider in riders if rider[0] > stored]
        return [reply for end, reply in riders if end <= stored]

    def rebase(self, standing: Standing, now: float) -> list[str]:
        """The store stands at `standing`, by somebody else's doing: place all that is held once more.

        Returns the messages to acknowledge.
        """
        held = [*self._fills, *self._ready, *(waiting.arrival for waiting in self._above)]
        self.clear()
        self.stored, self._lost = standing
        self.expected = self.stored
        held.sort(key=lambda arrival: (arrival.frame.first, arrival.frame.end))
        answered = [arrival.reply for arrival in held if self.offer(arrival, now) is not Verdict.HELD]
        return answered + self._riders_below(self.stored)

    def drop(self, arrival: Arrival, now: float) -> list[str]:
        """Let a waiting arrival go, which is of no use; what followed it may stand above a gap now.

        Returns the messages to acknowledge.
        """
        for waiting in (self._fills, self._ready):
            if arrival in waiting:
                waiting.remove(arrival)
                self._memory.add(ready=-arrival.size)
        return [arrival.reply, *self.rebase(Standing(self.stored, self._lost), now)]

    def clear(self) -> None:
        """Let go of all bytes. Riders stay: what they wait for is still to come."""
        self._memory.add(ready=-sum(arrival.size for arrival in (*self._fills, *self._ready)))
        self._count_above(-self._above_bytes)
        self._fills, self._ready, self._above = [], [], []

    def replies(self) -> Iterator[str]:
        """Every message that is held."""
        yield from (arrival.reply for arrival in (*self._fills, *self._ready))
        yield from (waiting.arrival.reply for waiting in self._above)
        yield from (reply for _, reply in self._riders)


def _is_below(frame: Frame, position: int) -> bool:
    """Whether everything that the frame says is said already at `position`. A DEAD frame says something *at* its end."""
    return frame.end < position or (frame.end == position and frame.kind is not FrameKind.DEAD)
