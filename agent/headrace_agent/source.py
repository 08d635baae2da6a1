"""One source on this node: its journal, what of it is on its way, and how far the store has it.

Invariants
1. stored <= acked <= cut <= end, except after a store or a stream went back, which a rewind puts right.
2. `cut` is always an event's boundary: it moves by what the reader hands out, by the marks of the store that this home is bound to
   (which may free the journal, so they are believed), and a rewind goes only to a position that is known to be one.
3. A source is over only when its writer has said so (CLOSED) or is proven gone and the store has confirmed that, and the store
   has every byte.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import deque
from enum import Enum, auto
from typing import Final

from headrace_agent.budget import Budget
from headrace_agent.patience import CURIOSITY_S, PATIENCE_S, Patience
from headrace_agent.window import Flight, Window
from headrace_proto import abort
from headrace_proto.events import Role
from headrace_proto.journal import Header, JournalReader, machine
from headrace_proto.limits import BATCH_RAW_TARGET
from headrace_proto.messages import Mark

BATCH_AGE_NS: Final = 50_000_000
"""After a pause, what a look finds is sent by the next one."""
STEADY_AGE_NS: Final = 400_000_000
"""Between two frames of what comes again and again, so that each steady look (`ticks.STEADY_S`) makes one: a frame costs the node
half a millisecond of CPU however small it is, and the quickest collector commits twice a second."""
SYSTEM_AGE_NS: Final = 1_900_000_000
"""The same of the agent's own readings of the hardware, one of every few looks: nobody waits for the newest."""
PAUSE_NS: Final = 700_000_000
"""Who logs once a second is sent at once each time."""
BUSY_NS: Final = 1_000_000_000
"""Since the last frame that was filled: such a source is looked at often, so that its frames leave evenly."""
AWAITED_NS: Final = 3_000_000_000
"""Who waits asks once a second."""
BOUNDARIES_MAX: Final = 1024
"""Batch ends remembered for rewinds. An older one costs at most sending again from the store's own mark."""
DEAD_LABEL: Final = "dead"


class Death(Enum):
    """What is known of a writer that is gone without a closing event."""

    UNPROVEN = auto()
    PROVEN = auto()
    TELLING = auto()  # a DEAD frame is on its way
    TOLD = auto()  # the stream has it


class Due(Enum):
    """What a source has to send now."""

    NOTHING = auto()
    LIVE = auto()
    BACKLOG = auto()


class Source:
    """A journal that is being shipped. Plain state and arithmetic; whoever moves it is in `tail`, `ship` and `marks`."""

    def __init__(self, reader: JournalReader, budget: Budget, mark: Mark | None, now_ns: int) -> None:
        self.header: Final[Header] = reader.header
        self.id: Final = reader.header.source
        self.is_system: Final = reader.header.role == Role.SYSTEM
        self.phase: Final = hash(self.id)  # spreads what is done now and then over the sources
        self.folder: Final = reader.folder
        # A machine has booted since it was written: its end may be lost with the power although the store has it.
        self.outlived: Final = reader.header.boot_id != machine.boot_id()
        self.reader: JournalReader | None = reader
        self.mark = mark
        self.stored = mark.position if mark else 0
        """The position below which the store has everything."""
        self.kept: Mark | None = None  # the mark by which segments were deleted last
        self.settled = self.end = self.oldest = reader.oldest  # settled: may be read; end: is committed
        self.closed = reader.closed
        self.window = Window(max(self.stored, self.oldest), budget)
        self._age_min_ns: Final = SYSTEM_AGE_NS if self.is_system else STEADY_AGE_NS
        self.batch_age_ns = self._age_min_ns
        # Since when something waits to be cut. What a journal holds when it is found has waited for long enough.
        self.pending_ns: int | None = 0 if reader.end > self.window.cut else None
        self._cut_ns = self._asked_ns = self._filled_ns = now_ns - AWAITED_NS - 1
        self.grew_ns = now_ns
        self.death = Death.UNPROVEN
        request = abort.asked(reader.folder)
        self.aborted = str(request) if request else ""  # why its end, be it a death, was asked for
        self.exited = False  # its process has ended, as the kernel says
        self.exit_is_heard = False  # the kernel will say so
        self.flush_to: int | None = None
        self.curiosity = Patience(now_ns / 1e9, CURIOSITY_S, PATIENCE_S)
        self.patience = Patience(now_ns / 1e9)
        self.obstacle = ""  # why the journal cannot be read to its end, as it was last told
        self._boundaries: deque[int] = deque([self.window.cut], maxlen=BOUNDARIES_MAX)

    @property
    def is_written_here(self) -> bool:
        """Whether a process of this machine logs to it, as far as anybody knows; what the agent itself logs does not count."""
        unended = not self.closed and self.death is Death.UNPROVEN
        return unended and not self.outlived and not self.is_system

    @property
    def over(self) -> bool:
        """Whether nothing will follow, and the store knows that and has it all."""
        if self.end == 0 and not (self.outlived and self.stored):
            return self.death is not Death.UNPROVEN  # killed before its first event: there is nothing to store
        said = self.closed or (self.death is not Death.UNPROVEN and self._death_known)
        return said and self.stored >= self.end and not len(self.window)

    @property
    def outstanding(self) -> bool:
        """Whether the store still owes a word on what the stream has."""
        return self.window.acked > self.stored or (self.death is Death.TOLD and not self._death_known)

    @property
    def shipped(self) -> bool:
        """Whether the stream has everything that was committed."""
        return self.window.cut >= self.end and not len(self.window)

    # -- Looking ---------------------------------------------------------------------------------------------------------

    def poll(self, now_ns: int) -> None:
        """See how far the writer is. Raises what the reader raises on segments that it cannot believe."""
        if self.reader is None:
            return
        self.settled = max(self.settled, self.reader.poll(now_ns))
        if self.reader.end > self.end:
            self.end = self.reader.end
            self.grew_ns = now_ns
        self.closed = self.reader.closed
        if self.pending_ns is None and self.end > self.window.cut:
            self.pending_ns = now_ns

    def settle(self, now_ns: int) -> None:
        """What the last `poll` saw may be read by now."""
        if self.reader is not None:
            self.settled = max(self.settled, self.reader.settle(now_ns))

    def due(self, now_ns: int, *, hurry: bool = False) -> Due:
        """Whether it is worth a turn, and whether that is about new data or about old."""
        pending = self.settled - self.window.cut
        if not pending and self.flush_to is None and self.death is Death.UNPROVEN and not len(self.window):
            return Due.NOTHING  # the state of a thousand idle sources, ten times a second
        if self.window.waits:
            return Due.LIVE
        if pending >= BATCH_RAW_TARGET:
            return Due.LIVE if hurry else Due.BACKLOG
        if pending > 0:
            aged = self.pending_ns is not None and self._has_aged(self.pending_ns, now_ns)
            return Due.LIVE if aged or hurry or self.closed or self.flush_to is not None else Due.NOTHING
        return Due.LIVE if self.owes_flush or self.owes_death else Due.NOTHING

    def _has_aged(self, since_ns: int, now_ns: int) -> bool:
        """Whether what waits since then has waited for company long enough."""
        if self._came_after_a_pause(since_ns):
            return now_ns - since_ns >= BATCH_AGE_NS
        return now_ns - self._cut_ns >= self.batch_age_ns

    def _came_after_a_pause(self, since_ns: int) -> bool:
        return not self.is_system and since_ns - self._cut_ns > PAUSE_NS

    def is_steady(self, now_ns: int) -> bool:
        """Whether it does, if anything, a little again and again, and nobody minds if that is seen half a second later."""
        fresh = self.pending_ns is not None and self._came_after_a_pause(self.pending_ns)
        return not fresh and now_ns - self._filled_ns > BUSY_NS

    def awaited(self, now_ns: int) -> bool:
        """Whether a trainer waits for the store's word."""
        return now_ns - self._asked_ns <= AWAITED_NS

    # -- Cutting ---------------------------------------------------------------------------------------------------------

    @property
    def owes_flush(self) -> bool:
        """Whether somebody waits for what is on its way already."""
        return self.flush_to is not None and self.window.cut >= self.flush_to

    @property
    def owes_death(self) -> bool:
        """Whether the store is to be told now that the writer is gone: behind all that it wrote, be it stored only."""
        proven = self.death is Death.PROVEN and not self.closed and not self._death_known
        end = max(self.end, self.stored)
        return proven and 0 < end <= self.window.cut

    @property
    def _death_known(self) -> bool:
        """Whether the store has said that the writer is gone and wrote no more than it has; or that it went on elsewhere: then
        this is a copy that ends in the middle."""
        if self.mark is not None and self.mark.dead and self.stored >= self.end:
            return True
        return self.stored > self.end and not self.outlived

    def was_cut(self, first: int, end: int, data: bytes, now_ns: int, label: str = "") -> None:
        """[first, end) has become a frame."""
        self.window.add(first, end, data, label)
        if label == DEAD_LABEL:
            self.death = Death.TELLING
        if end > first:
            self._boundaries.append(end)
        self.pending_ns = now_ns if self.end > end else None
        self._cut_ns = now_ns
        if end - first >= BATCH_RAW_TARGET // 2:
            self._filled_ns = now_ns

    def asked_to_flush(self) -> None:
        """A trainer waits for everything that is committed now."""
        self._asked_ns = time.monotonic_ns()
        self.flush_to = self.end if self.stored < self.end else None

    def doubt(self) -> bool:
        """The stream may have lost what it had acknowledged. Whether there is something to ask the store about.

        Asking is a frame without bytes behind all that was sent: it stands above a gap if any of that is gone, and is answered
        with the newest mark if all of it is stored.
        """
        if not self.outstanding:
            return False
        self.asked_to_flush()
        if self.death is Death.TOLD:
            self.death = Death.PROVEN
        return True

    def acknowledged(self, flight: Flight) -> bool:
        """The stream has a frame. Whether what it has without a gap grew."""
        if flight.label == DEAD_LABEL and self.death is Death.TELLING:
            self.death = Death.TOLD
        return self.window.acknowledged(flight)

    # -- The store's word ------------------------------------------------------------------------------------------------

    def marked(self, mark: Mark) -> None:
        """The store moved on, went back, or went on without bytes that are here, which are sent again. The caller has judged it."""
        went_back = self.mark is not None and mark.position < self.mark.position
        wanted = mark.position == mark.missing < self.window.cut and (self.mark is None or self.mark.missing < 0)
        self.mark, self.stored = mark, mark.position
        self.batch_age_ns = max(self._age_min_ns, int(mark.interval_s * 1e8))
        if went_back or wanted:
            self.rewind(mark.position)  # which may lie below all that is left: the difference is given up
        elif mark.position > self.window.cut and (mark.position <= self.end or self.outlived):
            self._skip_to(mark.position)

    def _skip_to(self, position: int) -> None:
        """The store is ahead of what was sent since a restart: begin there. Its watermark is the end of a batch of ours."""
        self.window.rewind(position)
        self._boundaries.append(position)
        self.pending_ns = None

    def rewind(self, position: int) -> None:
        """Send again from `position`, or from the last known event boundary before it."""
        target = position
        if position >= self.oldest:
            known = sorted({self.oldest, min(max(self.stored, self.oldest), self.window.cut), *self._boundaries})
            target = known[max(bisect_right(known, position) - 1, 0)]
        self.window.rewind(target)
        self._boundaries.clear()
        self._boundaries.append(target)
        self.pending_ns = self.grew_ns
        if self.death in (Death.TELLING, Death.TOLD):
            self.death = Death.PROVEN

    def start_again(self) -> None:
        """Send again all that the store is not known to have."""
        self.rewind(max(self.stored, self.oldest))

    # -- Sleeping --------------------------------------------------------------------------------------------------------

    def sleep(self) -> None:
        """Close the files of an idle source; `wake` opens them again."""
        if self.reader is not None:
            self.reader.close()
            self.reader = None

    def wake(self) -> JournalReader:
        """The reader, opened again if need be. Raises what `JournalReader` raises."""
        if self.reader is None:
            self.reader = JournalReader(self.folder)
        return self.reader

    def trim(self, kept: Mark) -> None:
        """Delete the segments that the store has, by a mark that is on the disk."""
        self.wake().trim(min(kept.position, self.window.cut))
        self.oldest = self.wake().oldest
