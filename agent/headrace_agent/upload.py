"""Uploading: the files of the spools, in chunks, beside the events and never in their way.

A source sends one file at a time, oldest first; up to FILES_AT_ONCE sources do, taking turns chunk by chunk. A file that was sent
stays where it is until the collector has verified it as a whole (FileMark.done). Nothing of this is kept on the disk: an agent
that starts again sends the first chunks, hears from the collector how far it is, and goes on there.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import Final

from headrace.service.pausing import comes_within
from headrace_agent.budget import Budget
from headrace_agent.discovery import SAME_STAMP_NS
from headrace_agent.metrics import Metrics
from headrace_agent.report import Reporter, spooled_files
from headrace_agent.ship import Shipper
from headrace_agent.source import Source
from headrace_agent.spoolfile import FileLane
from headrace_agent.tail import Tail
from headrace_agent.ticks import STEADY_S, until_tick
from headrace_agent.trouble import Trouble
from headrace_proto.home import Home
from headrace_proto.messages import UNNAMED, FileMark, Rewind

FILES_AT_ONCE: Final = 16
"""Files with chunks in flight: with four chunks of 512 KiB each they share the budget of a few megabytes."""
log = logging.getLogger(__name__)


class Uploader:
    """Finds spooled files, ships them, and frees them when the store has them."""

    def __init__(
        self,
        home: Home,
        tail: Tail,
        shipper: Shipper,
        budget: Budget,
        reporter: Reporter,
        metrics: Metrics,
        site: str,
        run: str,
    ) -> None:
        self.lanes: dict[tuple[str, str], FileLane] = {}
        self._home = home
        self._tail = tail
        self._shipper = shipper
        self._budget = budget
        self._reporter = reporter
        self._metrics = metrics
        self._site = site
        self._run = run
        self._seen: dict[str, int] = {}
        self._news = asyncio.Event()
        self._trouble = Trouble(log)

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            self._news.clear()
            await self.work(time.monotonic_ns())
            await comes_within(self._news, until_tick(STEADY_S))

    def awaited(self) -> None:
        """A trainer has begun to wait: look now."""
        self._news.set()

    async def work(self, now_ns: int) -> None:
        """One round: settle what the store has, look for new files, offer what is next."""
        for lane in list(self.lanes.values()):
            if lane.verdict is not None:
                await self._settle(lane)
            elif lane.patience.exhausted(now_ns / 1e9, lane.stored, outstanding=lane.outstanding):
                self._metrics.rewinds.labels("silence").inc()
                lane.start_again()
        for name in self._changed_spools():
            source_lane = self._tail.lanes.get(name)
            if source_lane is not None:
                self._find(source_lane.source)
            else:
                self._seen.pop(name, None)  # its journal may be found later
        self._offer_next()

    def _changed_spools(self) -> list[str]:
        """The sources whose spools may hold something new. A folder that changed just now may change again within the same time
        stamp, so it is looked at once more."""
        changed = []
        now_ns = time.time_ns()
        try:
            with os.scandir(self._home.spools) as entries:
                for entry in entries:
                    changed_ns = entry.stat(follow_symlinks=False).st_mtime_ns
                    if self._seen.get(entry.name) != changed_ns:
                        changed.append(entry.name)
                        if abs(now_ns - changed_ns) > SAME_STAMP_NS:
                            self._seen[entry.name] = changed_ns
        except OSError as error:
            self._tell(error)
        return changed

    def _tell(self, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # else somebody clears the home away under us
            self._trouble.tell("files that wait to be sent cannot be looked for, or not be deleted: %s", error)

    def _find(self, source: Source) -> None:
        try:
            names = spooled_files(self._home, source.id)
        except OSError as error:
            self._seen.pop(source.id, None)
            self._tell(error)
            return
        for name in names:
            if (source.id, name) not in self.lanes:
                lane = FileLane(
                    self._home, source.header, name, self._budget, self._site, self._run, on_sent=self._offer_next
                )
                self.lanes[source.id, name] = lane
                self._shipper.add(lane)
                self._reporter.changed(source)

    def _offer_next(self) -> None:
        """The oldest unsent file of each source, as many as may share the budget."""
        now_ns = time.monotonic_ns()
        busy: set[str] = set()
        for lane in self.lanes.values():  # in the order in which they were found: oldest first within a source
            if lane.header.source in busy or lane.sent:
                continue
            if len(busy) == FILES_AT_ONCE:
                return
            busy.add(lane.header.source)
            lane.begun = True
            self._shipper.offer(lane, now_ns)

    # -- The store's word ------------------------------------------------------------------------------------------------

    def marked(self, mark: FileMark) -> None:
        """The collector has moved on with a file, is done with it, or refuses it."""
        lane = self.lanes.get((mark.source, mark.file))
        if lane is not None and lane.header.experiment == mark.experiment and mark.offset >= 0:
            lane.marked(mark)
            if lane.verdict is not None:
                self._news.set()

    def rewind(self, rewind: Rewind) -> None:
        """The collector needs a file again from an offset."""
        lane = self.lanes.get((rewind.source, rewind.file))
        if lane is not None and rewind.position <= lane.window.cut:
            self._metrics.rewinds.labels("asked").inc()
            lane.rewind(rewind.position)

    async def _settle(self, lane: FileLane) -> None:
        """Free a file that the store has. One that it refuses is sent once more if it is still what it was when it was logged."""
        outcome = "stored"
        if lane.verdict == UNNAMED:  # no call that held it has returned
            outcome = "unnamed"
        elif lane.verdict:
            intact = await asyncio.to_thread(lane.intact)
            if intact and not lane.repeated:
                lane.repeat()
                return
            outcome = "refused" if intact else "changed"
            log.error(
                "file %s of source %s is not stored as it was logged: %s", lane.name, lane.header.source, lane.verdict
            )
        self._metrics.files.labels(outcome).inc()
        self._forget(lane)
        try:
            await asyncio.to_thread(lane.set_aside if outcome == "refused" else lane.free)
        except OSError as error:  # it stays, and so does its journal: the next agent sends it again
            self._tell(error)
        source_lane = self._tail.lanes.get(lane.header.source)
        if source_lane is not None:
            self._reporter.changed(source_lane.source)

    def _forget(self, lane: FileLane) -> None:
        self._shipper.remove(lane)
        self.lanes.pop((lane.header.source, lane.name), None)

    def forget(self, source: Source) -> None:
        """The source's journal is not shipped any more."""
        self._seen.pop(source.id, None)
        for lane in [lane for lane in self.lanes.values() if lane.header.source == source.id]:
            self._forget(lane)
