"""What one experiment's sources have brought: their intakes together. Pure, like `intake`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from headrace_collector.intake import Arrival, Memory, SourceIntake, Standing, Verdict

Taken = dict[str, list[Arrival]]
"""Source -> what a commit is given of it."""


class RewindWanted(NamedTuple):
    """A source that has to be sent again."""

    site: str
    source: str
    position: int


class Gap(NamedTuple):
    """A range that is missing below what has come."""

    source: str
    first: int
    end: int


class Gathering:
    """All sources of one experiment. `standing` says where the store stands with a source."""

    def __init__(self, memory: Memory, standing: Callable[[str], Standing]) -> None:
        self._memory: Final = Memory(memory)
        self._standing: Final = standing
        self._intakes: dict[str, SourceIntake] = {}
        self._sites: dict[str, str] = {}

    def offer(self, arrival: Arrival, now: float) -> Verdict:
        """Find an arrival's place."""
        source = arrival.frame.source
        self._sites[source] = arrival.site
        return self._intake(source).offer(arrival, now)

    def _intake(self, source: str) -> SourceIntake:
        intake = self._intakes.get(source)
        if intake is None:
            intake = self._intakes[source] = SourceIntake(self._standing(source), self._memory)
        return intake

    def site(self, source: str) -> str:
        """Where a source's marks go: to the site that it is bound to."""
        return self._sites[source]

    def bound(self, source: str) -> str:
        """The site that sent a source to this collector, "" if none has yet."""
        return self._sites.get(source, "")

    @property
    def count(self) -> int:
        """How many sources have sent anything."""
        return len(self._sites)

    def stored(self, source: str) -> int:
        """A source's watermark."""
        return self._intake(source).stored

    def suspect(self, site: str, source: str, now: float) -> None:
        """A message of a source could not be read."""
        self._sites.setdefault(source, site)
        self._intake(source).suspect(now)

    @property
    def sources(self) -> list[str]:
        """All sources that have sent anything."""
        return list(self._intakes)

    @property
    def waits(self) -> bool:
        """Whether there is something to commit."""
        return any(intake.waits for intake in self._intakes.values())

    @property
    def bytes(self) -> int:
        """Of frames that are held."""
        return self._memory.ready + self._memory.above

    @property
    def holds(self) -> bool:
        """Whether any message is unanswered."""
        return next(self.replies(), None) is not None

    def take(self, bytes_max: int) -> Taken:
        """What one commit is given: up to `bytes_max` raw bytes, or one batch more, in fair turns of the sources that wait."""
        waiting = [source for source, intake in self._intakes.items() if intake.waits]
        taken: Taken = {}
        left = bytes_max
        for source in waiting:
            if left <= 0:
                break
            intake = self._intakes[source] = self._intakes.pop(source)  # from now on last in turn
            taken[source] = intake.take(bytes_max // len(waiting))
            left -= sum(arrival.frame.raw_size for arrival in taken[source])
        return taken

    def settle(self, taken: Taken) -> list[str]:
        """The store has taken `taken`. Returns the messages to acknowledge."""
        return [
            reply
            for source, batches in taken.items()
            for reply in self._intake(source).advance(self._standing(source), batches)
        ]

    def drop(self, arrival: Arrival, now: float) -> list[str]:
        """Let an arrival go, which is of no use. Returns the messages to acknowledge."""
        return self._intake(arrival.frame.source).drop(arrival, now)

    def rebase(self, now: float) -> list[str]:
        """The store stands elsewhere, by somebody else's doing. Returns the messages to acknowledge."""
        return [
            reply for source, intake in self._intakes.items() for reply in intake.rebase(self._standing(source), now)
        ]

    def rewinds_due(self, now: float) -> list[RewindWanted]:
        """Which sources must be asked to send again; the caller then does ask."""
        due = ((source, intake.rewind_due(now)) for source, intake in self._intakes.items())
        return [RewindWanted(self._sites[source], source, position) for source, position in due if position is not None]

    def gaps(self, now_ns: int, now: float, patience_s: float, source: str = "") -> list[Gap]:
        """What has been missing for longer than `patience_s`, of one source or of all."""
        found = (
            (name, intake.gap(now_ns, now, patience_s))
            for name, intake in self._intakes.items()
            if source in ("", name)
        )
        return [Gap(name, *gap) for name, gap in found if gap is not None]

    @property
    def waiting_above(self) -> int:
        """Messages that wait above gaps."""
        return sum(intake.waiting_above for intake in self._intakes.values())

    def replies(self) -> Iterator[str]:
        """Every message that is held."""
        for intake in self._intakes.values():
            yield from intake.replies()

    def clear(self) -> None:
        """Let go of everything."""
        for intake in self._intakes.values():
            intake.clear()
        self._intakes.clear()
