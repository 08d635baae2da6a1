"""Upkeep: small parts are merged in the background, one experiment at a time and after everything else.

Whoever just committed says so (`consider`); what has to be done is decided from the commit alone, so nothing is remembered that
a restart could lose: the next commit, or the end of a run, is considered again. Another chain than the worker's is used, so
that commits go on; whichever of the two is first, the other goes upon its commit.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

from headrace_collector.metrics import Metrics
from headrace_proto.errors import CommitConflict
from headrace_proto.store.backend import Store
from headrace_proto.store.chain import Chain
from headrace_proto.store.commits import PART_KINDS, Commit
from headrace_proto.store.compaction import plan

_LOG: Final = logging.getLogger(__name__)

SETTLE_S: Final = 2.0
"""After the end of a run, for what its other sources still have on their way."""
NICENESS: Final = 10
"""Of the one thread that merges: commits go first."""

Place = tuple[str, str]
"""(project, experiment)"""


class Upkeep:
    """Merges what `consider` found worth it, for as long as `run` runs."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store: Final = store
        self._metrics: Final = metrics
        self._due: Final[dict[Place, tuple[float, bool]]] = {}  # place -> (not before, whether its run has ended)
        self._wake: Final = asyncio.Event()
        self._idle: Final = asyncio.Event()
        self._idle.set()
        self._thread: Final = ThreadPoolExecutor(1, thread_name_prefix="upkeep", initializer=_step_back)

    def consider(self, place: Place, head: Commit) -> None:
        """A commit was made: note whether its parts should be merged."""
        ended = head.document.state != "running"
        if any(plan(head.parts.of(kind), final=ended) for kind in PART_KINDS):
            self._due[place] = (time.monotonic() + (SETTLE_S if ended else 0.0), ended)
            self._idle.clear()
            self._wake.set()
        else:
            self._due.pop(place, None)

    async def run(self) -> None:
        """Merge for ever."""
        loop = asyncio.get_running_loop()
        while True:
            place = await self._next()
            _, ended = self._due.pop(place)
            try:
                merged = await loop.run_in_executor(self._thread, self._merge, place, ended)
            except (
                OSError,
                CommitConflict,
            ) as error:  # its next commit, or its next reader, finds the parts as they are
                _LOG.warning("parts were not merged", extra={"experiment": place[1], "error": repr(error)})
            else:
                self._metrics.compactions.inc(int(merged))

    async def settle(self, limit_s: float) -> None:
        """Merge what belongs to ended runs at once, for at most so long. At a stop: no later commit makes anyone consider them."""
        for place, (_, ended) in list(self._due.items()):
            if ended:
                self._due[place] = (0.0, True)
            else:
                del self._due[place]
        self._wake.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._idle.wait()

    async def _next(self) -> Place:
        while True:
            self._wake.clear()
            if not self._due:
                self._idle.set()
            place = min(self._due, key=lambda place: self._due[place], default=None)
            wait_s = self._due[place][0] - time.monotonic() if place else None
            if place and wait_s is not None and wait_s <= 0:
                return place
            try:
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _merge(self, place: Place, ended: bool) -> bool:
        chain = Chain(self._store, *place).load()
        ended = ended and chain.document.state != "running"
        return chain.compact(now_ns=time.time_ns(), final=ended)

    def close(self) -> None:
        """Let the thread end. What it is in the middle of leaves unreferenced files at most."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _step_back() -> None:
    """Linux lets each thread have its own priority."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
