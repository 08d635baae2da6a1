"""Syncing: bounds what a power loss may take to the last HEADRACE_SYNC_S, because no trainer has a thread of ours to do it.

What the store has by then need not be synced: while a collector keeps up, a node's disk is left in peace. The agent's own readings
of the hardware are nobody's call, and are not synced either.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import Final

from headrace_agent.source import Source
from headrace_agent.tail import Tail
from headrace_agent.ticks import STEADY_S
from headrace_proto.journal import JournalReader

log = logging.getLogger(__name__)
_EARLY_S: Final = STEADY_S / 5
"""Steady looks do not come to the millisecond."""


class Syncer:
    """Syncs the segments of every source that has something which the store lacks for too long."""

    def __init__(self, tail: Tail, bound_s: float) -> None:
        self._tail: Final = tail
        # It was noticed up to a steady look after it was logged, and the next chance comes a steady look after this one.
        self._patience_s: Final = max(bound_s - 2 * STEADY_S + _EARLY_S, 0.0)
        self._synced: dict[str, int] = {}
        self._unsafe: dict[str, deque[tuple[int, float]]] = {}  # (end, when it was noticed), oldest first

    async def run(self) -> None:
        """Sync until cancelled."""
        while True:
            await self._tail.looked.wait()
            self._tail.looked.clear()
            await self.work(time.monotonic())

    async def work(self, now_s: float) -> None:
        """One round, after a steady look."""
        for lane in self._tail.awake:
            if not lane.source.is_system:
                self._note(lane.source, now_s)
        late = [source for name in list(self._unsafe) if (source := self._late(name, now_s)) is not None]
        if late:  # one after the other in one thread: to begin one costs as much as to sync
            await self._sync(late)

    def _note(self, source: Source, now_s: float) -> None:
        ends = self._unsafe.setdefault(source.id, deque())
        if source.end > max(ends[-1][0] if ends else 0, source.stored, self._synced.get(source.id, 0)):
            ends.append((source.end, now_s))

    def _late(self, name: str, now_s: float) -> Source | None:
        """The source, if something of it has been only here for too long."""
        lane, ends = self._tail.lanes.get(name), self._unsafe[name]
        safe = max(lane.source.stored, self._synced.get(name, 0)) if lane is not None else 0
        while ends and (lane is None or ends[0][0] <= safe):
            ends.popleft()
        if not ends:
            del self._unsafe[name]
        is_late = bool(ends) and now_s - ends[0][1] >= self._patience_s
        return lane.source if lane is not None and is_late and lane.source.reader is not None else None

    async def _sync(self, sources: list[Source]) -> None:
        ends = {source.id: source.end for source in sources}
        readers = [(source.id, source.wake()) for source in sources]
        for source in sources:
            source.in_thread = True
        syncing = asyncio.ensure_future(asyncio.to_thread(_sync, readers))
        try:
            synced = await asyncio.shield(syncing)
        finally:
            for source in sources:
                source.in_thread = not syncing.done()
                lane = self._tail.lanes.get(source.id)
                if lane is None or lane.source is not source:  # forgotten meanwhile, when its files had to stay open
                    source.sleep()
        self._synced.update((name, ends[name]) for name in synced)
        self._synced = {name: end for name, end in self._synced.items() if name in self._tail.lanes}


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
