"""The worker: owns one live experiment, from its first frame to the last acknowledgement.

Order of a commit: parts, then `commits/<n>.json` if it is absent (both are `Chain.commit`), then the catalog's row, then the
marks, and only then the acknowledgements. Killed anywhere in between, the messages come again and lie below the watermark.

Life cycle: `run` is its one task. It returns when `drain` was called and nothing waits for a commit any more; cancelling it is
safe at any time. `offer`, `tick` and `drain` are called on the same event loop, and never wait.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Iterable
from typing import Final

from tenacity import AsyncRetrying, RetryCallState, wait_random_exponential

from headrace.service.pausing import comes_within
from headrace_collector.committer import Committer, Stored
from headrace_collector.files import Files
from headrace_collector.gathering import Gap, Gathering
from headrace_collector.intake import FRAME_OVERHEAD, GAP_PATIENCE_S, Arrival, Verdict
from headrace_collector.shared import RETRY_S_FIRST, RETRY_S_MAX, Shared
from headrace_proto.errors import CommitConflict
from headrace_proto.frame import SOURCE_GONE, Frame, FrameKind
from headrace_proto.limits import EXPERIMENT_SOURCES_MAX, MIB
from headrace_proto.messages import Mark, Rewind
from headrace_proto.store.catalog import row_of

_LOG: Final = logging.getLogger(__name__)

COMMIT_RAW_BYTES: Final = 16 * MIB
"""Of events in one commit: half a million points, whose tables take about four times that in memory."""
FAILING_BYTES_MAX: Final = 4 * MIB
"""Held for an experiment that cannot be stored. What comes beyond is given back to the stream and crowds out nobody."""
GIVEN_BACK_S: Final = 15.0


class Worker:
    """Gathers, commits and answers for one experiment."""

    def __init__(self, shared: Shared, project: str, experiment: str) -> None:
        self.active_at = time.monotonic()
        self.waiting_since = math.inf
        """When the oldest frame that waits for a commit came."""
        self._shared: Final = shared
        self._committer: Final = Committer(shared.store, project, experiment)
        self._gathering: Final = Gathering(shared.memory, self._committer.standing)
        self._turn: Final = asyncio.Lock()
        """Held by whoever changes the experiment: a commit, or a file that is put in place."""
        self._files: Final = Files(shared, self._committer, self._turn, self._hurry)
        self._unplaced: list[Arrival] = []  # came before the chain was loaded
        self._tasks = asyncio.TaskGroup()
        self._due = math.inf
        self._wake: Final = asyncio.Event()
        self._placing = False
        """Whether it is known where the store stands, so that arrivals find their places."""
        self._draining = False
        self._failing = False

    # -- Called by the partition ----------------------------------------------------------------------------------------

    def offer(self, arrival: Arrival) -> None:
        """Take a frame over."""
        self.active_at = time.monotonic()
        self.waiting_since = min(self.waiting_since, self.active_at)
        if self._failing and self._held_bytes > FAILING_BYTES_MAX:
            self._shared.answers.give_back(arrival.reply, GIVEN_BACK_S)
        elif self._placing:
            self._place(arrival)
        else:
            self._unplaced.append(arrival)
            self._shared.memory.add(ready=arrival.size)
            self._hurry()

    def tick(self, now: float) -> None:
        """Ask for what is missing."""
        for wanted in self._gathering.rewinds_due(now):
            self._shared.metrics.rewinds.inc()
            self._shared.answers.rewind(wanted.site, Rewind(wanted.source, wanted.position))
        self.close_gaps(GAP_PATIENCE_S)
        if self._shared.crowded and self._gathering.waits:
            self._hurry()

    def touch(self) -> None:
        """Tell the stream that what is held here still waits."""
        for arrival in self._unplaced:
            self._shared.answers.in_progress(arrival.reply)
        for reply in (*self._gathering.replies(), *self._files.replies()):
            self._shared.answers.in_progress(reply)

    def ask_again(self, site: str, source: str) -> None:
        """A frame of the source was not fit to be read: have it sent again."""
        if self._placing:
            self._gathering.suspect(site, source, time.monotonic())
            self._files.ask_again(source)

    @property
    def _held_bytes(self) -> int:
        return self._gathering.bytes + sum(arrival.size for arrival in self._unplaced)

    @property
    def idle(self) -> bool:
        """Whether nothing is held here, so that the worker may be let go."""
        return not (self._unplaced or self._gathering.holds or self._files.holds)

    def close_gaps(self, patience_s: float, source: str = "") -> list[Gap]:
        """Give up what has been missing for longer than that: the next commit says that it is lost, and stores what waits."""
        now_ns, now = time.time_ns(), time.monotonic()
        closed: list[Gap] = []
        while gaps := [gap for gap in self._gathering.gaps(now_ns, now, patience_s, source) if gap not in closed]:
            if not self._placing:
                break
            for gap in gaps:  # the lowest of each source; then those above them
                self._give_up(gap, now_ns, now)
            closed += gaps
        return closed

    def _give_up(self, gap: Gap, now_ns: int, now: float) -> None:
        _LOG.error("nobody has what is missing: it is given up", extra=gap._asdict())
        self._shared.metrics.gaps_closed.inc()
        frame = Frame(
            FrameKind.LOST, self._committer.project, self._committer.experiment, *gap, b"", reason=SOURCE_GONE
        )
        self._place(Arrival(frame, "", self._gathering.site(gap.source), FRAME_OVERHEAD, now_ns, now))

    def has_stored(self, gaps: Iterable[Gap]) -> bool:
        """Whether the store has, or has given up, everything below the ends of `gaps`."""
        return all(self._gathering.stored(gap.source) >= gap.end for gap in gaps)

    @property
    def waiting_above(self) -> int:
        """Messages that wait above gaps."""
        return self._gathering.waiting_above

    def drain(self) -> None:
        """Commit what waits at once, then end."""
        self._draining = True
        self._hurry()

    # -- Placing --------------------------------------------------------------------------------------------------------

    def _place(self, arrival: Arrival) -> None:
        reason = self._strange(arrival.frame.source, arrival.site)
        if reason:
            self._refuse(arrival, reason)
            return
        if arrival.frame.kind is FrameKind.CHUNK:
            self._files.offer(arrival, self._tasks)
            return
        now = time.monotonic()
        verdict = self._gathering.offer(arrival, now)
        if verdict is Verdict.HELD:
            self._schedule(arrival, now)
            return
        source = arrival.frame.source
        self._shared.answers.ack(arrival.reply)
        if verdict is Verdict.STORED:
            self._shared.metrics.duplicates.inc()
            self._mark(source)
        else:
            self._shared.metrics.dropped.inc()

    def _strange(self, source: str, site: str) -> str:
        """Why nothing that comes from `site` as `source` is believed; "" nearly always."""
        bound = self._committer.site(source) or self._gathering.bound(source)
        if bound not in ("", site):
            return "its source is bound to another site"
        if not bound and max(self._committer.sources, self._gathering.count) >= EXPERIMENT_SOURCES_MAX:
            return f"the experiment has {EXPERIMENT_SOURCES_MAX} sources, which is all that it may have"
        return ""

    def _refuse(self, arrival: Arrival, reason: str) -> None:
        """A frame whose bytes are not ours to believe; its site hears no mark."""
        _LOG.error(
            "a frame was refused",
            extra={
                "source": arrival.frame.source,
                "site": arrival.site,
                "first": arrival.frame.first,
                "reason": reason,
            },
        )
        self._shared.metrics.strangers.inc()
        self._shared.answers.ack(arrival.reply)

    def _schedule(self, arrival: Arrival, now: float) -> None:
        frame = arrival.frame
        urgent = frame.flush or frame.kind is not FrameKind.EVENTS or self._committer.number == 0
        if self._gathering.bytes >= COMMIT_RAW_BYTES // 4:  # compressed: about one commit's worth
            self._hurry()
        background = self._committer.is_system(
            frame.source
        )  # hardware is sampled for ever, and would keep everything busy
        self._wake_at(self._shared.pacing.due(now, urgent=urgent, background=background))

    def _hurry(self) -> None:
        self._wake_at(0.0)

    def _wake_at(self, due: float) -> None:
        if due < self._due:
            self._due = due
            self._wake.set()

    def _mark(self, source: str) -> None:
        mark = Mark(
            self._shared.store_id,
            self._committer.experiment,
            source,
            self._gathering.stored(source),
            self._committer.number,
            self._committer.short_id,
            self._shared.pacing.interval_s,
            self._committer.dead(source),
            self._committer.missing(source),
        )
        self._shared.answers.mark(self._gathering.site(source), mark)

    # -- The task -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Commit what is due, until drained."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                while not (self._draining and not self._unplaced and not self._gathering.waits):
                    await self._until_due()
                    self._due = math.inf
                    await self._retrying_step()
                self._files.stop()
        finally:
            self._gathering.clear()
            self._forget(self._unplaced)
            self._shared.weigh()

    async def _until_due(self) -> None:
        while (left := self._due - time.monotonic()) > 0:
            self._wake.clear()
            if not await comes_within(self._wake, None if left == math.inf else left):
                return

    async def _retrying_step(self) -> None:
        retrying = AsyncRetrying(
            wait=wait_random_exponential(RETRY_S_FIRST, RETRY_S_MAX), before_sleep=self._on_failure
        )
        await retrying(self._step)
        self._failing = False

    def _on_failure(self, state: RetryCallState) -> None:
        self._failing = True
        self._shared.count_error(state)

    async def _step(self) -> None:
        """One commit, of what is there when its turn comes."""
        if self._failing or not self._placing:
            await self._shared.call(self._committer.load)
            await self._list()  # whoever made the newest commit may have died, or failed, before this
            self._place_again()
        async with self._turn, self._shared.slots:
            began = time.monotonic()
            taken, reports = self._gathering.take(COMMIT_RAW_BYTES), self._files.reports
            if not taken and not reports:
                self.waiting_since = began if self._gathering.holds else math.inf
                return
            with self._shared.metrics.commit_s.time():
                try:
                    stored = await self._shared.call(self._committer.commit, taken, reports)
                except CommitConflict as conflict:
                    self._lose(conflict)
                    return
        await self._settle(stored)
        self.waiting_since = began if self._gathering.holds else math.inf

    def _place_again(self) -> None:
        """The chain was loaded: place what came before, and once more what was placed by an older view."""
        self._answer_below(self._gathering.rebase(time.monotonic()))
        self._files.committed()
        self._placing = True
        unplaced, self._unplaced = self._unplaced, []
        self._forget(unplaced)
        for arrival in unplaced:
            self._place(arrival)

    def _lose(self, conflict: CommitConflict) -> None:
        """Another collector was first: what it stored is answered, the rest is tried upon its commit."""
        _LOG.warning("a commit was lost", extra={"experiment": self._committer.experiment, "why": str(conflict)})
        self._shared.metrics.conflicts.inc()
        self._answer_below(self._gathering.rebase(time.monotonic()))
        self._files.committed()
        self._hurry()

    async def _settle(self, stored: Stored) -> None:
        """A commit was made: first the catalog, then the marks, then the acknowledgements."""
        now = time.monotonic()
        replies = self._gathering.settle(stored.taken)
        for arrival in stored.refused:
            replies += self._gathering.drop(arrival, now)
            self.ask_again(arrival.site, arrival.frame.source)
        self._shared.weigh()
        if self._gathering.waits:
            self._hurry()
        self._files.committed()
        self._count(stored)
        await self._list()
        for source in stored.taken:
            self._mark(source)
        for reply in replies:
            self._shared.answers.ack(reply)
        if any(arrival.frame.flush for arrivals in stored.taken.values() for arrival in arrivals):
            self._shared.answers.hurry()

    async def _list(self) -> None:
        """Have the newest commit shown in the catalog, and its parts looked after."""
        head, project = self._committer.head, self._committer.project
        if head and not head.blank:
            await self._shared.listing.append(project, row_of(head))
            self._shared.upkeep.consider((project, self._committer.experiment), head)

    def _answer_below(self, replies: list[str]) -> None:
        """Messages that somebody else's commit covers: the marks are repeated, for its own may have been the last."""
        if replies:
            for source in self._gathering.sources:
                self._mark(source)
        for reply in replies:
            self._shared.answers.ack(reply)

    def _count(self, stored: Stored) -> None:
        frames = [arrival.frame for arrivals in stored.taken.values() for arrival in arrivals]
        metrics = self._shared.metrics
        metrics.commits.inc()
        metrics.points.inc(stored.points)
        metrics.bytes.inc(sum(frame.raw_size for frame in frames))
        metrics.lost_ranges.inc(sum(frame.kind is FrameKind.LOST for frame in frames))
        metrics.quarantined.inc(len(stored.refused))

    def _forget(self, unplaced: list[Arrival]) -> None:
        self._shared.memory.add(ready=-sum(arrival.size for arrival in unplaced))
