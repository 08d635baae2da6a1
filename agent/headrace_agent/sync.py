"""Syncing: bounds what a power loss may take to the last HEADRACE_SYNC_S, because no trainer has a thread of ours to do it.

What the store has by then need not be synced: while a collector keeps up, a node's disk is left in peace. The agent's own readings
of the hardware are nobody's call, and are not synced either.

A disk that hangs holds up nothing but this. The thread that syncs opens what it syncs by its name, so journals are read, trimmed
and closed meanwhile; and nobody waits for it when the agent stops. What cannot be synced is tried again ever more rarely: the
kernel calls a page clean whose writing failed, so that only the store's word makes good what an EIO took.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from typing import Final, NamedTuple

from headrace_agent.aside import NoThread, aside
from headrace_agent.source import Source
from headrace_agent.tail import Tail
from headrace_agent.ticks import STEADY_S
from headrace_agent.trouble import Trouble
from headrace_proto.errors import HeadraceError
from headrace_proto.journal import JournalReader

log = logging.getLogger(__name__)
_EARLY_S: Final = STEADY_S / 5
"""Steady looks do not come to the millisecond."""
AGAIN_S_MAX: Final = 30.0
NOTED_MAX: Final = 100
"""Ends of one source that are kept with their times. Further ones count as old as the last of these."""


class _Journal(NamedTuple):
    source: str
    folder: str
    reader: JournalReader | None


class _Failing(NamedTuple):
    again_s: float
    pause_s: float


_Failures = dict[str, Exception]


class Syncer:
    """Syncs the segments of every source that has something which the store lacks for too long."""

    def __init__(self, tail: Tail, bound_s: float) -> None:
        self._tail: Final = tail
        # It was noticed up to a steady look after it was logged, and the next chance comes a steady look after this one.
        self._patience_s: Final = max(bound_s - 2 * STEADY_S + _EARLY_S, 0.0)
        self._synced: dict[str, int] = {}
        self._unsafe: dict[str, deque[tuple[int, float]]] = {}  # (end, when it was noticed), oldest first
        self._failing: dict[str, _Failing] = {}
        self._trouble: Final = Trouble(log)
        self._told = False
        self._busy = False

    async def run(self) -> None:
        """Sync until cancelled."""
        async with asyncio.TaskGroup() as rounds:
            while True:
                await self._tail.looked.wait()
                self._tail.looked.clear()
                rounds.create_task(self.work(time.monotonic()))

    async def work(self, now_s: float) -> None:
        """One round, after a steady look. While another is still syncing, what is new is only noted."""
        for lane in self._tail.awake:
            if not lane.source.is_system:
                self._note(lane.source, now_s)
        if self._busy:
            return
        late = [source for name in list(self._unsafe) if (source := self._late(name, now_s)) is not None]
        if late:  # one after the other in one thread: to begin one costs as much as to sync
            await self._sync(late, now_s)

    def _note(self, source: Source, now_s: float) -> None:
        ends = self._unsafe.setdefault(source.id, deque())
        if source.end <= max(ends[-1][0] if ends else 0, source.stored, self._synced.get(source.id, 0)):
            return
        if len(ends) == NOTED_MAX:
            now_s = ends.pop()[1]
        ends.append((source.end, now_s))

    def _late(self, name: str, now_s: float) -> Source | None:
        """The source, if something of it has been only here for too long."""
        lane, ends = self._tail.lanes.get(name), self._unsafe[name]
        safe = max(lane.source.stored, self._synced.get(name, 0)) if lane is not None else 0
        while ends and (lane is None or ends[0][0] <= safe):
            ends.popleft()
        if not ends:
            del self._unsafe[name]
            self._failing.pop(name, None)
            return None
        failing = self._failing.get(name)
        is_late = now_s - ends[0][1] >= self._patience_s and (failing is None or now_s >= failing.again_s)
        return lane.source if lane is not None and is_late else None

    async def _sync(self, sources: Sequence[Source], now_s: float) -> None:
        ends = {source.id: source.end for source in sources}
        journals = [_Journal(source.id, source.folder, source.reader) for source in sources]
        self._busy = True
        try:
            failures = await aside(partial(_synced, journals), "sync")
        except NoThread as error:
            failures = dict.fromkeys(ends, error)
        finally:
            self._busy = False
        for name, end in ends.items():
            if name in failures:
                pause_s = self._failing[name].pause_s if name in self._failing else STEADY_S
                self._failing[name] = _Failing(now_s + pause_s, min(2 * pause_s, AGAIN_S_MAX))
            else:
                self._synced[name] = end
                self._failing.pop(name, None)
        self._synced = {name: end for name, end in self._synced.items() if name in self._tail.lanes}
        self._tell(failures, now_s)

    def _tell(self, failures: _Failures, now_s: float) -> None:
        if failures:
            source, error = next(iter(failures.items()))
            self._told |= self._trouble.tell(
                "source %s cannot be synced: a power loss may take what it logged and the store does not have yet: %s",
                source,
                error,
                times=len(failures),
                now_s=now_s,
            )
        elif self._told and not self._failing:
            log.info("what could not be synced is synced, or stored, now")
            self._told = False


def _synced(journals: Sequence[_Journal]) -> _Failures:
    failures: _Failures = {}
    above: set[str] = set()
    for source, folder, reader in journals:
        try:
            if reader is not None:
                reader.sync(above)
            else:  # it was closed, because there are too many
                with closing(JournalReader(folder)) as own:
                    own.sync(above)
        except FileNotFoundError:  # somebody took the journal away
            continue
        except (OSError, HeadraceError) as error:
            failures[source] = error
    return failures
