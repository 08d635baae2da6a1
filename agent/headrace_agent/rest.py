"""Sources that rest: a thousand of them cost one small system call each, a few times a second, and nearly nothing else.

A proper look costs 10 us of Python, so that a thousand idle sources took a tenth of a core. Here a resting source is a descriptor
and the bytes that are to be found there, and a loop that does nothing but compare them: 1.5 us, most of it the system call.

A source is looked at properly every so many looks all the same: whether its writer lives is not written in its journal.
"""

from __future__ import annotations

import os
from typing import Final

from headrace_agent.lane import SourceLane
from headrace_proto.journal import PULSE_AT, PULSE_BYTES

LONG_NS: Final = 10_000_000_000
"""Who logs every second, or every few, is never said to rest for long."""


class _Wheel:
    """Lanes of which each look watches one in `every`, and one in `rounds` is due for a proper look."""

    def __init__(self, every: int, rounds: int) -> None:
        self.watched: list[dict[str, tuple[SourceLane, tuple[tuple[int, bytes], ...]]]] = [{} for _ in range(every)]
        self.rounds: list[dict[str, SourceLane]] = [{} for _ in range(rounds)]

    def add(self, lane: SourceLane, pulse: tuple[tuple[int, bytes], ...]) -> None:
        source = lane.source
        self.watched[source.phase % len(self.watched)][source.id] = lane, pulse
        self.rounds[source.phase % len(self.rounds)][source.id] = lane

    def remove(self, lane: SourceLane) -> None:
        source = lane.source
        self.watched[source.phase % len(self.watched)].pop(source.id, None)
        self.rounds[source.phase % len(self.rounds)].pop(source.id, None)

    def stirred(self, look: int) -> dict[str, SourceLane]:
        pread, size, at = os.pread, PULSE_BYTES, PULSE_AT
        found = self.rounds[look % len(self.rounds)].copy()
        for name, (lane, pulse) in self.watched[look % len(self.watched)].items():
            for descriptor, page in pulse:
                try:
                    if pread(descriptor, size, at) != page:
                        found[name] = lane
                except OSError:  # what is wrong is told by a proper look
                    found[name] = lane
        return found


ROUNDS: Final = 40
"""Between two proper looks at a source that has come to rest, with a look each 50 ms: 2 s."""


class Rest:
    """Lanes of sources that rest. Their readers stay open."""

    def __init__(self) -> None:
        self._wheels: Final = (_Wheel(2, ROUNDS), _Wheel(4, 3 * ROUNDS))  # of those that came lately, and of the others

    def __len__(self) -> int:
        return len(self.all())

    def add(self, lane: SourceLane, now_ns: int) -> None:
        """Watch a source from now on. One that was added before is watched anew."""
        self.remove(lane)
        if lane.source.reader is not None:
            self._wheels[now_ns - lane.source.grew_ns > LONG_NS].add(lane, lane.source.reader.pulse())

    def remove(self, lane: SourceLane) -> None:
        """The source does not rest any more, or is gone."""
        for wheel in self._wheels:
            wheel.remove(lane)

    def stirred(self, look: int) -> list[SourceLane]:
        """Those that look number `look` finds changed, and those whose turn for a proper look it is."""
        return [lane for wheel in self._wheels for lane in wheel.stirred(look).values()]

    def all(self) -> list[SourceLane]:
        """Every lane that rests."""
        return [lane for wheel in self._wheels for watched in wheel.watched for lane, _ in watched.values()]
