"""Upkeep: small parts are merged and leftovers swept, in the background, one experiment at a time and after everything else.

Whoever just committed says so (`consider`); what has to be done is decided from the commit alone, so nothing is remembered that
a restart could lose: the next commit is considered again, and so are the runs that have ended lately when a collector starts.
Another chain than the worker's is used, so that commits go on; whichever of the two is first, the other goes upon its commit.

A merge and a sweep are commits, too, so the catalog shows them like any other; and where it does not, because the collector was
killed in between, the next one that starts sees to it.

A run is swept every SWEEP_COMMITS of its commits; once more an hour after its last one, when nobody reads what its last merge
has replaced. Then its folders hold what the last commit names, and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from enum import Enum
from typing import Final, NamedTuple

import pyarrow.compute as pc

from headrace.service.pausing import comes_within
from headrace_collector.listing import Listing
from headrace_collector.metrics import Metrics
from headrace_proto.errors import CommitConflict, HeadraceError
from headrace_proto.limits import RETENTION_S, SWEEP_COMMITS, SWEEP_GRACE_S
from headrace_proto.store.backend import Store
from headrace_proto.store.catalog import Catalog, row_of
from headrace_proto.store.chain import Chain
from headrace_proto.store.claims import project_folders
from headrace_proto.store.commits import PART_KINDS, Commit
from headrace_proto.store.compaction import plan
from headrace_proto.store.layout import commit_numbers, commits_folder
from headrace_proto.store.local import LocalStore
from headrace_proto.store.sweeping import sweep

_LOG: Final = logging.getLogger(__name__)

SETTLE_S: Final = 2.0
"""After the end of a run, for what its other sources still have on their way."""
LAST_SWEEP_S: Final = RETENTION_S + 60.0
"""From a run's last commit to its last sweep."""
LATELY_S: Final = 24 * 3600.0
"""A collector that starts looks at the runs that ended within this time: another may have been killed before it was done."""
NICENESS: Final = 10
"""Of the one thread that does it: commits go first."""

Place = tuple[str, str]
"""(project, experiment)"""


class Work(Enum):
    """What is to be done with an experiment."""

    SHOW = "the newest commit is in no list"  # each with what is said when it fails
    MERGE = "parts were not merged"
    SWEEP = "leftovers were not swept"


class Task(NamedTuple):
    """Work for later."""

    due: float  # by the monotonic clock
    work: Work
    ended: bool


class _Done(NamedTuple):
    """What has become of an experiment."""

    head: Commit | None
    made: bool = False  # `head` is of ours
    swept: bool = False  # and there is nothing more to do for now


def wanted(head: Commit) -> Task | None:
    """What a commit gives to do, with the seconds from now as `due`."""
    ended = head.document.state != "running"
    if any(plan(head.parts.of(kind), final=ended) for kind in PART_KINDS):
        return Task(SETTLE_S if ended else 0.0, Work.MERGE, ended)
    if ended and head.swept != head.number:
        return Task(LAST_SWEEP_S, Work.SWEEP, ended)
    if head.number - head.swept >= SWEEP_COMMITS:
        return Task(0.0, Work.SWEEP, ended)
    return None


class Upkeep:
    """Does what `consider` found worth it, for as long as `run` runs."""

    def __init__(self, store: Store, listing: Listing, metrics: Metrics) -> None:
        self._store: Final = store
        self._listing: Final = listing
        self._metrics: Final = metrics
        self._due: Final[dict[Place, Task]] = {}
        self._wake: Final = asyncio.Event()
        self._idle: Final = asyncio.Event()
        self._idle.set()
        self._thread: Final = ThreadPoolExecutor(1, thread_name_prefix="upkeep", initializer=_step_back)

    def consider(self, place: Place, head: Commit) -> None:
        """A commit was made: note what it gives to do."""
        task = wanted(head)
        if task:
            self._put(place, task)
        else:
            self._due.pop(place, None)

    def _put(self, place: Place, task: Task) -> None:
        self._due[place] = task._replace(due=time.monotonic() + task.due)
        self._idle.clear()
        self._wake.set()

    async def run(self) -> None:
        """Look after everything for ever."""
        loop = asyncio.get_running_loop()
        for place, task in await loop.run_in_executor(self._thread, self._left_behind):
            if place not in self._due:
                self._put(place, task)
        while True:
            place = await self._next()
            task = self._due.pop(place)
            try:
                done = await loop.run_in_executor(self._thread, self._do, place, task)
            except (OSError, HeadraceError) as error:  # its next commit, or a collector's next start, finds it as it is
                _LOG.warning(task.work.value, extra={"experiment": place[1], "error": repr(error)})
                continue
            if done.head and done.made:
                await self._listing.append(place[0], row_of(done.head))
            if done.head and not done.swept and place not in self._due:
                self.consider(place, done.head)

    async def settle(self, limit_s: float) -> None:
        """Merge what belongs to ended runs at once, for at most so long. At a stop: no later commit makes anyone consider them."""
        for place, task in list(self._due.items()):
            if task.ended and task.work is Work.MERGE:
                self._due[place] = task._replace(due=0.0)
            else:
                del self._due[place]
        self._wake.set()
        await comes_within(self._idle, limit_s)

    async def _next(self) -> Place:
        while True:
            self._wake.clear()
            if not any(task.work is Work.MERGE for task in self._due.values()):
                self._idle.set()
            place = min(self._due, key=lambda place: self._due[place].due, default=None)
            wait_s = self._due[place].due - time.monotonic() if place else None
            if place and wait_s is not None and wait_s <= 0:
                return place
            await comes_within(self._wake, wait_s)

    # -- In the thread --------------------------------------------------------------------------------------------------

    def _do(self, place: Place, task: Task) -> _Done:
        chain = Chain(self._store, *place).load()
        if task.work is Work.SHOW:
            return _Done(chain.head, made=True)
        now = wanted(chain.head) if chain.head else None
        if now is None or now.work is not task.work or now.ended != task.ended:
            return _Done(chain.head)  # another commit was made, perhaps by another collector
        before = chain.number
        if task.work is Work.MERGE:
            with suppress(CommitConflict):
                self._metrics.compactions.inc(chain.compact(now_ns=time.time_ns(), final=task.ended))
            return _Done(chain.head, made=chain.number != before)
        swept = sweep(chain, now_ns=time.time_ns(), grace_s=SWEEP_GRACE_S, thorough=task.ended, anyway=not task.ended)
        self._metrics.swept.inc(len(swept.paths) + swept.commits)
        return _Done(chain.head, made=chain.number != before, swept=True)

    def _left_behind(self) -> list[tuple[Place, Task]]:
        """What a collector that was killed may not have finished; and temporary files, which nobody will ask for again."""
        try:
            if isinstance(self._store, LocalStore):
                self._store.clear_temporary(now_ns=time.time_ns())
            return list(self._ended_lately())
        except (OSError, HeadraceError) as error:
            _LOG.warning("what others left behind was not looked at", extra={"error": repr(error)})
            return []

    def _ended_lately(self) -> Iterator[tuple[Place, Task]]:
        now_s = time.time()
        for project in project_folders(self._store):
            table = Catalog(self._store, project).listing().head.select(["experiment", "commit", "finished_at"])
            for row in table.filter(pc.is_valid(table["finished_at"])).to_pylist():
                age_s = now_s - row["finished_at"].timestamp()
                if age_s < LATELY_S:
                    place = project, row["experiment"]
                    if max(commit_numbers(self._store.names(commits_folder(*place))), default=0) > row["commit"]:
                        yield place, Task(0.0, Work.SHOW, ended=True)
                        continue
                    due_s = max(SETTLE_S, LAST_SWEEP_S - age_s)
                    yield place, Task(due_s, Work.SWEEP, ended=True)

    def close(self) -> None:
        """Let the thread end. What it is in the middle of leaves unreferenced files at most."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _step_back() -> None:
    """Linux lets each thread have its own priority."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
