"""Syncing: bounds what a power loss may take to the last HEADRACE_SYNC_S, because no trainer has a thread of ours to do it.

The agent's own readings of the hardware are nobody's call: they are not synced.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from headrace_agent.source import Source
from headrace_agent.tail import Tail
from headrace_agent.ticks import tick
from headrace_proto.journal import JournalReader

log = logging.getLogger(__name__)


class Syncer:
    """Syncs the segments of every source that grew."""

    def __init__(self, tail: Tail, period_s: float) -> None:
        self._tail: Final = tail
        self._period_s: Final = period_s
        self._synced: dict[str, int] = {}

    async def run(self) -> None:
        """Sync until cancelled."""
        while True:
            await tick(self._period_s)
            await self.work()

    async def work(self) -> None:
        """Sync what grew since the last time, one after the other in one thread: to begin one costs as much as to sync."""
        grown = [lane.source for lane in self._tail.lanes.values() if self._grew(lane.source)]
        if not grown:
            return
        ends = {source.id: source.end for source in grown}
        readers = [(source.id, source.wake()) for source in grown]
        for source in grown:
            source.in_thread = True
        syncing = asyncio.ensure_future(asyncio.to_thread(_sync, readers))
        try:
            synced = await asyncio.shield(syncing)
        finally:
            for source in grown:
                source.in_thread = not syncing.done()
        known = {**self._synced, **{name: ends[name] for name in synced}}
        self._synced = {name: end for name, end in known.items() if name in self._tail.lanes}

    def _grew(self, source: Source) -> bool:
        unsynced = source.end > max(source.stored, self._synced.get(source.id, 0))
        return unsynced and source.reader is not None and not source.is_system


def _sync(readers: list[tuple[str, JournalReader]]) -> list[str]:
    """The sources of those that could be synced."""
    synced = []
    for source, reader in readers:
        try:
            reader.sync()
        except OSError as error:
            log.warning("source %s cannot be synced: a power loss may take what it logged: %s", source, error)
        else:
            synced.append(source)
    return synced
