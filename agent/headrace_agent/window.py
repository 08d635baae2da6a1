"""Go-back-N: the frames of one source (or of one file) between being cut and being acknowledged by the stream.

Invariants
1. Frames are contiguous: each begins where the one before it ends. `acked` <= every frame < `cut`.
2. A frame's bytes never change, so that sending it again is the same message and the stream's duplicate window can drop it.
3. After a failure nothing is sent until every frame in flight is answered; then sending goes on from the first that failed. Retries
   that overtake each other would reach the collector above a gap.
4. An unknown outcome (a timeout, a lost link) is a failure here and may still have landed: the collector's arithmetic drops it.
5. A frame that was acknowledged although one before it failed lies in the stream above a gap. It is sent again under a new
   epoch, because under its old identity the stream would swallow it.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from typing import Final

from headrace_agent.budget import Budget

FLIGHTS_MAX: Final = 16
"""Of one source: 16 batches of 200 KiB in flight were as fast as any number, over a 20 ms link too."""


class State(Enum):
    """Where a frame is."""

    WAITING = auto()
    SENT = auto()
    ACKED = auto()
    FAILED = auto()
    FORGOTTEN = auto()  # a rewind has replaced it: its answer says nothing any more


class Flight:
    """One frame on its way."""

    __slots__ = ("data", "end", "epoch", "first", "label", "state")

    def __init__(self, first: int, end: int, data: bytes, epoch: int, label: str = "") -> None:
        self.first: Final = first
        self.end: Final = end
        self.data: Final = data
        self.epoch = epoch
        self.label: Final = label  # tells frames without length at one place apart
        self.state = State.WAITING


class Window:
    """What of a source is on its way. Starts at a position; `add` what is cut, `send` what it gives, tell it the answers."""

    def __init__(self, position: int, budget: Budget, flights_max: int = FLIGHTS_MAX) -> None:
        self.acked = position
        self.cut = position
        self.epoch = 0
        self._budget = budget
        self._flights_max = flights_max
        self._flights: deque[Flight] = deque()
        self._unanswered = 0
        self._recovering = False

    def __len__(self) -> int:
        return len(self._flights)

    @property
    def room(self) -> bool:
        """Whether another frame may be cut now."""
        return len(self._flights) < self._flights_max and not self._recovering and self._budget.room

    @property
    def waits(self) -> bool:
        """Whether a frame could be sent now."""
        if self._recovering:
            return not self._unanswered
        return bool(self._flights) and self._flights[-1].state is State.WAITING

    def add(self, first: int, end: int, data: bytes, label: str = "") -> None:
        """Take in a frame that was just cut."""
        if first != self.cut or end < first:
            raise ValueError(f"a frame [{first}, {end}) was cut where {self.cut} is next")
        self._flights.append(Flight(first, end, data, self.epoch, label))
        self._budget.take(len(data))
        self.cut = end

    def send(self) -> Flight | None:
        """The next frame to send, which counts as in flight from now on."""
        if self._recovering:
            if self._unanswered:
                return None
            self._go_back()
        for flight in self._flights:
            if flight.state is State.WAITING:
                flight.state = State.SENT
                self._unanswered += 1
                return flight
        return None

    def _go_back(self) -> None:
        self._recovering = False
        if any(flight.state is State.ACKED for flight in self._flights):
            self.epoch += 1
        for flight in self._flights:
            if flight.state is State.ACKED:
                flight.epoch = self.epoch
            flight.state = State.WAITING

    def acknowledged(self, flight: Flight) -> bool:
        """The stream has `flight`. Whether `acked` moved, or a frame without length was confirmed."""
        if flight.state is not State.SENT:
            return False
        flight.state = State.ACKED
        self._unanswered -= 1
        moved = False
        while self._flights and self._flights[0].state is State.ACKED:
            done = self._flights.popleft()
            self._budget.give(len(done.data))
            self.acked = done.end
            moved = True
        if not self._flights:
            self._recovering = False
        return moved

    def failed(self, flight: Flight) -> None:
        """`flight` was refused, or nothing is known of it."""
        if flight.state is State.SENT:
            flight.state = State.FAILED
            self._unanswered -= 1
            self._recovering = True

    def rewind(self, position: int) -> None:
        """Forget every frame and cut again from `position`, under a new epoch."""
        for flight in self._flights:
            flight.state = State.FORGOTTEN
            self._budget.give(len(flight.data))
        self._flights.clear()
        self._unanswered = 0
        self._recovering = False
        self.acked = self.cut = position
        self.epoch += 1
