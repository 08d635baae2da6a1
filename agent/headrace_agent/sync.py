"""Syncing: bounds what a power loss may take to the last HEADRACE_SYNC_S, because no trainer has a thread of ours to do it."""

from __future__ import annotations

import asyncio
import logging

from headrace_agent.source import Source
from headrace_agent.tail import Tail
from headrace_agent.ticks import tick

log = logging.getLogger(__name__)


class Syncer:
    """Syncs the segments of every source that grew."""

    def __init__(self, tail: Tail, period_s: float) -> None:
        self._tail = tail
        self._period_s = period_s
        self._synced: dict[str, int] = {}

    async def run(self) -> None:
        """Sync until cancelled."""
        while True:
            await tick(self._period_s)
            await self.work()

    async def work(self) -> None:
        """Sync what grew since the last time."""
        sources = (lane.source for lane in self._tail.lanes.values())
        grown = [source for source in sources if source.end > source.stored and self._grew(source)]
        if grown:
            self._synced = {name: end for name, end in self._synced.items() if name in self._tail.lanes}
        for source in grown:
            end = source.end
            if await self._sync(source):
                self._synced[source.id] = end

    def _grew(self, source: Source) -> bool:
        return source.reader is not None and source.end > self._synced.get(source.id, 0)

    async def _sync(self, source: Source) -> bool:
        reader = source.reader
        if reader is None or source.id not in self._tail.lanes:  # since the list was made
            return False
        source.in_thread = True
        syncing = asyncio.ensure_future(asyncio.to_thread(reader.sync))
        try:
            await asyncio.shield(syncing)
        except OSError as error:
            log.warning("source %s cannot be synced: a power loss may take what it logged: %s", source.id, error)
            return False
        finally:
            source.in_thread = not syncing.done()
        return True
