"""Freeing the disk: only what the store has vouched for, and in an order that survives a kill between any two steps.

1. The mark is synced to the disk.  2. Segments wholly below it are deleted.  3. A journal whose every byte is stored, whose writer
has closed it (or is gone, and the store knows), and whose spool is empty, is renamed to a hidden name and then deleted.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable
from threading import Lock
from typing import Final, NamedTuple, TypeVar

from headrace_agent.aside import NoThread, aside
from headrace_agent.lane import SourceLane
from headrace_agent.leftovers import Leftovers, clear_spool
from headrace_agent.marks import StoreBinding, write_mark
from headrace_agent.metrics import Metrics
from headrace_agent.report import Reporter, spooled_files
from headrace_agent.source import Death, Source
from headrace_agent.tail import Tail
from headrace_agent.ticks import tick
from headrace_agent.trouble import Trouble
from headrace_proto.errors import HeadraceError
from headrace_proto.home import GONE, Home
from headrace_proto.limits import SEGMENT_BYTES_FIRST
from headrace_proto.messages import Mark

REST_PERIOD_S: Final = 2.0
"""The others have a round each tick."""
KEEP_NS: Final = 30_000_000_000
"""A mark is kept when it frees a segment, and this often in any case: an agent that starts again begins at the mark kept last."""
LEFTOVERS_PERIOD_S: Final = 30.0
STATUS_PERIOD_S: Final = 3600.0
log = logging.getLogger(__name__)
_Work = TypeVar("_Work")


class _Kept(NamedTuple):
    mark: Mark | None
    at_ns: int


class Retention:
    """Keeps marks, trims, and deletes what is finished."""

    def __init__(
        self,
        home: Home,
        tail: Tail,
        reporter: Reporter,
        metrics: Metrics,
        binding: StoreBinding,
        on_finished: Callable[[Source], None],
    ) -> None:
        self._home = home
        self._tail = tail
        self._reporter = reporter
        self._metrics = metrics
        self._on_finished = on_finished
        self._kept: dict[str, _Kept] = {}
        self._binding = binding
        self._leftovers = Leftovers(home, metrics)
        self._unfreed, self._unkept = Trouble(log), Trouble(log)
        self._turn = Lock()  # what a cancelled round began ends before the next

    async def run(self) -> None:
        """Work until cancelled."""
        statuses_s = leftovers_s = all_s = 0.0
        while True:
            if time.monotonic() - all_s > REST_PERIOD_S:
                all_s = time.monotonic()
                await self.work(time.monotonic_ns())
            else:
                await self._work(self._tail.awake, time.monotonic_ns())
            if time.monotonic() - leftovers_s > LEFTOVERS_PERIOD_S:
                leftovers_s = time.monotonic()
                await self._on_disk(self._sweep, frozenset(self._tail.lanes))
            if time.monotonic() - statuses_s > STATUS_PERIOD_S:
                statuses_s = time.monotonic()
                self._reporter.remove_old(time.time())
            await tick()

    def _sweep(self, shipped: frozenset[str]) -> None:
        self._leftovers.sweep(shipped, time.monotonic_ns())

    async def work(self, now_ns: int, *, keep_all: bool = False) -> None:
        """A round over every source. `keep_all` keeps every mark that changed: an agent that stops in peace sends nothing twice."""
        await self._work(list(self._tail.lanes.values()), now_ns, keep_all=keep_all)

    async def _work(self, lanes: list[SourceLane], now_ns: int, *, keep_all: bool = False) -> None:
        sources = [
            lane.source
            for lane in lanes
            if lane.source.mark is not lane.source.kept or lane.source.closed or lane.source.death is not Death.UNPROVEN
        ]
        over = [source for source in sources if source.over and not self._has_files(source)]
        if not self._binding.is_kept:
            await self._on_disk(StoreBinding.keep, self._binding)
        worth = [source for source in sources if keep_all or source in over or self._worth_keeping(source, now_ns)]
        marks = [(s, s.mark) for s in worth if s.mark is not None and s.mark != self._kept_of(s).mark]
        if marks:
            await self._on_disk(self._write_marks, [(source.folder, mark) for source, mark in marks])
        self._kept.update((source.id, _Kept(mark, now_ns)) for source, mark in marks)
        for source in sources:
            kept = self._kept_of(source).mark
            if kept is not None and kept is not source.kept and source.id in self._tail.lanes:
                self._trim(source, kept)
        for source in over:
            if source.id in self._tail.lanes and source.over:
                await self._finish(source)

    def _has_files(self, source: Source) -> bool:
        try:
            return bool(spooled_files(self._home, source.id))
        except OSError as error:
            self._unfreed.tell("source %s: whether it has files left cannot be known: %s", source.id, error)
            return True

    def _trim(self, source: Source, kept: Mark) -> None:
        try:
            source.trim(kept)
        except (OSError, HeadraceError) as error:  # a disk that turned read-only: shipping goes on
            self._unfreed.tell("source %s: what the store has cannot be freed: %s", source.id, error)
        else:
            source.kept = kept

    async def _on_disk(self, work: Callable[[_Work], None], what: _Work) -> None:
        def in_turn() -> None:
            with self._turn:
                work(what)

        try:
            await aside(in_turn, "retention")
        except NoThread as error:  # then a mark is not kept, or what is deleted stays for the next sweep
            self._unkept.tell("retention waits: %s", error)

    def _kept_of(self, source: Source) -> _Kept:
        return self._kept.get(source.id, _Kept(None, 0))

    def _worth_keeping(self, source: Source, now_ns: int) -> bool:
        mark, kept = source.mark, self._kept_of(source)
        if mark is None or mark == kept.mark:
            return False
        gain = mark.position - (kept.mark.position if kept.mark else source.oldest)
        frees = source.reader.frees(mark.position) if source.reader else gain >= SEGMENT_BYTES_FIRST
        return frees or gain < 0 or now_ns - kept.at_ns >= KEEP_NS

    def _write_marks(self, marks: list[tuple[str, Mark]]) -> None:
        for folder, mark in marks:
            try:
                write_mark(folder, mark)
            except OSError as error:
                # Freeing goes on, because a full disk needs just that: the oldest segment left also says where to begin again.
                self._unkept.tell("the mark of %s cannot be kept: %s", folder, error)

    async def _finish(self, source: Source) -> None:
        self._reporter.finished(source)
        self._tail.forget(source)
        self._on_finished(source)
        self._kept.pop(source.id, None)
        self._metrics.journals_finished.labels("closed" if source.closed else "dead").inc()
        gone = os.path.join(self._home.journals, f"{GONE}{source.id}")
        try:
            os.rename(source.folder, gone)
        except OSError as error:
            self._tail.discovery.refuse(source.id, error, time.monotonic_ns())
            return
        await self._on_disk(_remove, gone)
        await self._on_disk(clear_spool, self._home.spool(source.id))
        log.info("source %s is stored, and its journal deleted", source.id)


def _remove(folder: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
