"""Sources that rest: a thousand of them cost two system calls and a comparison, ten times a second, and nearly nothing else.

A proper look costs 10 us of Python, so that a thousand idle sources took a tenth of a core. Of a resting source only its pulse is
compared, the few bytes that every commit changes: see `pulses`.

A source is looked at properly every so many looks all the same, and more often where the kernel will not say that its process has
ended (`exits`): whether its writer lives is not written in its journal.
"""

from __future__ import annotations

from typing import Final

from headrace_agent.lane import SourceLane
from headrace_agent.pulses import Pulses

ROUNDS: Final = 20
"""Looks between two proper looks at a source that has come to rest lately: 2 s."""
LONG_ROUNDS: Final = 3 * ROUNDS
"""6 s. The kernel tells of an end, but not of another program in the same process (`os.execv`): nobody writes that journal then."""
LONG_NS: Final = 10_000_000_000
"""Who logs every second, or every few, is never said to rest for long."""


class Rest:
    """Lanes of sources that rest. Their readers stay open. `mapped` says whether their journals may be watched through maps."""

    def __init__(self, *, mapped: bool) -> None:
        self._pulses: Final = Pulses(mapped=mapped)
        self._rounds: Final = _Rounds(ROUNDS), _Rounds(LONG_ROUNDS)

    def __len__(self) -> int:
        return len(self._pulses)

    def add(self, lane: SourceLane, now_ns: int) -> None:
        """Watch a source from now on. For one that was added before, watch what there is to watch now."""
        source = lane.source
        if source.reader is None:
            self.remove(lane)
            return
        self._pulses.add(lane, source.reader.pulse())
        lately, long = self._rounds
        rests_long = now_ns - source.grew_ns > LONG_NS and source.exit_is_heard
        (lately if rests_long else long).remove(lane)
        (long if rests_long else lately).add(lane)

    def remove(self, lane: SourceLane) -> None:
        """The source does not rest any more, or is gone."""
        self._pulses.remove(lane)
        for rounds in self._rounds:
            rounds.remove(lane)

    def stirred(self, look: int) -> list[SourceLane]:
        """Those that look number `look` finds changed, and those whose turn for a proper look it is."""
        found = {lane.source.id: lane for rounds in self._rounds for lane in rounds.due(look)}
        found.update((lane.source.id, lane) for lane in self._pulses.changed())
        return list(found.values())

    def close(self) -> None:
        """Watch nothing any more."""
        self._pulses.close()

    def all(self) -> list[SourceLane]:
        """Every lane that rests."""
        return self._pulses.lanes()


class _Rounds:
    """Lanes that are due every so many looks, as many of them at each look."""

    def __init__(self, looks: int) -> None:
        self._turns: Final[tuple[dict[str, SourceLane], ...]] = tuple({} for _ in range(looks))

    def add(self, lane: SourceLane) -> None:
        self._turns[lane.source.phase % len(self._turns)][lane.source.id] = lane

    def remove(self, lane: SourceLane) -> None:
        self._turns[lane.source.phase % len(self._turns)].pop(lane.source.id, None)

    def due(self, look: int) -> list[SourceLane]:
        return list(self._turns[look % len(self._turns)].values())
