"""Tailing: looks at every journal of the home again and again, and offers what has something to ship.

How often depends on what a source does. One that rests is only watched, ten times a second (see `rest`), and so is one looked at
that has just begun again, or that logs much. What logs a little again and again is looked at twice a second, all of them in one
go: waking costs the most. Such a look only sees how far everything is, and as soon as that may be read it is offered; offered at
once it would be what the look before saw, half a second old. The bell tells in between of new journals, of trainers that wait,
and of processes that ended.

Descriptors are bounded: when more journals are open than the limit allows, those that rest are closed and only glanced at once a
second.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from headrace_agent.bell import Bell
from headrace_agent.discovery import Discovery
from headrace_agent.exits import Exits
from headrace_agent.glances import Glances
from headrace_agent.lane import SourceLane
from headrace_agent.rest import ROUNDS, Rest
from headrace_agent.ship import Shipper
from headrace_agent.source import Death, Source
from headrace_agent.ticks import STEADY_S, TICK_S, tick_number, until_tick
from headrace_proto import filesystem
from headrace_proto.errors import HeadraceError
from headrace_proto.home import Home
from headrace_proto.journal import JournalReader, machine

SETTLE_S: Final = 0.002
"""What was seen may be read a millisecond later."""
IDLE_NS: Final = 600_000_000
"""A source in which nothing is new for longer than from one steady look to the next, which so finds it once, is watched only."""
REST_NS: Final = 2_000_000_000
UNHEARD_TICKS: Final = 10
"""After so many steady ticks the folders are looked into although no bell rang: refused journals are tried again, and a folder may
be another one by now."""
FILES_A_SOURCE: Final = 5
"""The segment being written, the one made ahead of it, and one to catch up with; at rest the maps of the first two; its process."""
FILES_SPARE: Final = 256
log = logging.getLogger(__name__)


def sources_open_max() -> int:
    """How many journals may be open at once. Raises the process's soft limit to the hard one first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return int(max((soft - FILES_SPARE) // FILES_A_SOURCE, 16))


class Tail:
    """The home's sources. `run` looks after them; `lanes` is what there is."""

    def __init__(
        self,
        home: Home,
        shipper: Shipper,
        make_lane: Callable[[JournalReader], SourceLane],
        open_max: int | None = None,
    ) -> None:
        self.lanes: dict[str, SourceLane] = {}
        self.discovery: Final = Discovery(home)
        self._home = home
        self._shipper = shipper
        self._make_lane = make_lane
        self._open_max = open_max or sources_open_max()
        self._looks = 0
        self._glances = Glances()
        self._awake: dict[str, SourceLane] = {}
        self._seen: list[SourceLane] = []  # by the last look, to be offered when that has settled
        self._rest = Rest(mapped=filesystem.can_be_mapped(home.kind))
        self._exits = Exits(self._open_max)
        self._bell = Bell(
            (home.journals, home.flush_requests), [self._exits.fileno()], hears=not filesystem.is_network(home.kind)
        )
        self._when_awaited: list[Callable[[], None]] = []
        self.looked: Final = asyncio.Event()
        """Set by each steady look: it is known how far everything is."""

    async def run(self) -> None:
        """Look until cancelled."""
        looked, folders = -1, True
        with self._bell:
            while True:
                now_ns = time.monotonic_ns()
                number = tick_number(STEADY_S, now_ns)
                steady, looked = number != looked, number
                if steady and not number % UNHEARD_TICKS:
                    self._bell.listen()
                    folders = True
                folders = folders or self._bell.deaf
                self.look(now_ns, folders=folders, steady=steady)
                if steady:
                    self.looked.set()
                while self._seen:
                    await asyncio.sleep(SETTLE_S)
                    self.settle(time.monotonic_ns())
                pause_s = until_tick(TICK_S if self._must_look(time.monotonic_ns()) else STEADY_S)
                folders = await self._bell.rung(pause_s)

    def _must_look(self, now_ns: int) -> bool:
        """Whether something may happen of which no bell tells, and which must not wait for the next steady look."""
        steady = all(lane.source.is_steady(now_ns) for lane in self._awake.values())
        return self._bell.deaf or bool(self._rest) or not steady

    def when_awaited(self, call: Callable[[], None]) -> None:
        """Have `call()` called when a trainer waits for the store."""
        self._when_awaited.append(call)

    def look(self, now_ns: int, *, folders: bool = True, steady: bool = True) -> None:
        """One look, at everything if it is a `steady` one or else at what is not steady, and into the home's folders or not.

        What a steady look sees, or one that found something, is offered by `settle`; what others see, by the next look.
        """
        self._looks += 1
        self._seen.clear()
        found = self._find(now_ns) if folders else set()
        flushed = self._take_flush_requests() if folders else set()
        if flushed:
            self.rouse(lambda lane: lane.source.header.experiment in flushed)
            for call in self._when_awaited:
                call()
        ended = self._exits.ended()
        for source in ended:
            self._rouse(self.lanes[source.id])
        settles = steady or bool(found or flushed or ended)
        self._look_at_those_that_rest(now_ns, settles=settles)
        crowded = len(self.lanes) > self._open_max
        if crowded:
            self.rouse(lambda _: True)
        for lane in self.awake:
            source = lane.source
            flush = bool(flushed) and source.header.experiment in flushed
            if not (steady or flush or source.exited or lane in found) and source.is_steady(now_ns):
                continue
            idle = now_ns - source.grew_ns > IDLE_NS
            self._look_at(lane, now_ns, flush=flush, settles=settles)
            if idle and source.shipped and (crowded or not source.is_system):
                self._let_rest(lane, now_ns, crowded=crowded)
        self._shipper.lead(sum(self._ahead(lane.source) for lane in self._awake.values()), now_ns)

    def settle(self, now_ns: int) -> None:
        """Offer what the last look saw, SETTLE_S ago."""
        seen, self._seen = self._seen, []
        for lane in seen:
            if lane.source.id in self.lanes:
                lane.source.settle(now_ns)
                self._shipper.offer(lane, now_ns)

    def _find(self, now_ns: int) -> set[SourceLane]:
        """The lanes of journals that have appeared."""
        found = set()
        for reader in self.discovery.look(self.lanes.keys(), now_ns):
            lane = self._make_lane(reader)
            self._add(lane)
            found.add(lane)
        return found

    def _look_at_those_that_rest(self, now_ns: int, *, settles: bool) -> None:
        for lane in self._rest.stirred(self._looks):
            self._look_at(lane, now_ns, flush=False, settles=settles)
            if lane.source.grew_ns == now_ns:
                self._rouse(lane)
            elif lane.source.id in self.lanes:
                self._lay(lane, now_ns)  # anew, for a look may have changed what there is to watch

    def _ahead(self, source: Source) -> int:
        return max(source.window.cut - max(source.stored, source.oldest), 0)

    @property
    def awake(self) -> list[SourceLane]:
        """The lanes that do not rest: of what is done again and again, those that rest have nothing to do."""
        return list(self._awake.values())

    def rouse(self, wanted: Callable[[SourceLane], bool]) -> None:
        """Look properly, from the next look on, at those sources that rest and are `wanted`."""
        for lane in self._rest.all():
            if wanted(lane):
                self._rouse(lane)

    def _rouse(self, lane: SourceLane) -> None:
        self._rest.remove(lane)
        if lane.source.id in self.lanes:
            self._awake[lane.source.id] = lane

    def _let_rest(self, lane: SourceLane, now_ns: int, *, crowded: bool) -> None:
        source = lane.source
        if crowded:
            if self._glances.may_end(source.id, now_ns):
                source.sleep()
        elif source.reader is not None and not lane.hurry and source.id in self.lanes:
            del self._awake[source.id]
            self._lay(lane, now_ns)

    def _lay(self, lane: SourceLane, now_ns: int) -> None:
        """Have it rest."""
        try:
            self._rest.add(lane, now_ns)
        except OSError as error:  # a file that was closed cannot be opened again
            self._refuse(lane, error, now_ns)

    def _refuse(self, lane: SourceLane, fault: Exception, now_ns: int) -> None:
        self.forget(lane.source)
        self.discovery.refuse(lane.source.id, fault, now_ns)

    def _add(self, lane: SourceLane) -> None:
        self.lanes[lane.source.id] = self._awake[lane.source.id] = lane
        self._exits.watch(lane.source)
        self._shipper.add(lane)

    def _look_at(self, lane: SourceLane, now_ns: int, *, flush: bool, settles: bool) -> None:
        source = lane.source
        try:
            if source.reader is None:
                if not flush and not self._glances.due(source.id, now_ns):
                    return
                self._glances.begin(source.id, now_ns)
                source.wake()
            source.poll(now_ns)
            self._tell_obstacle(source)
            self._look_for_death(source, now_ns)
        except (HeadraceError, OSError) as error:
            lane.fault = error
        if lane.fault is not None:
            self._refuse(lane, lane.fault, now_ns)
            return
        if flush:
            source.asked_to_flush()
        if settles:
            self._seen.append(lane)
        else:
            self._shipper.offer(lane, now_ns)

    def _tell_obstacle(self, source: Source) -> None:
        obstacle = source.reader.obstacle if source.reader else ""
        if obstacle and obstacle != source.obstacle:
            log.error(
                "the journal of source %s is shipped up to %d only, and kept: %s", source.id, source.end, obstacle
            )
            source.obstacle = obstacle

    def _look_for_death(self, source: Source, now_ns: int) -> None:
        if source.closed or source.death is not Death.UNPROVEN:
            return
        rested = now_ns - source.grew_ns >= REST_NS and not (self._looks - source.phase) % ROUNDS
        if not rested and not source.exited:
            return
        if source.wake().writer_gone(machine.host_name(), machine.boot_id(), exited=source.exited):
            source.poll(now_ns)  # what it wrote between the last look and its end
            source.death = Death.PROVEN

    def _take_flush_requests(self) -> set[str]:
        """The experiments for which a trainer waits."""
        experiments = set()
        with suppress(OSError):  # somebody cleared the folder away, or put something else in its place
            for experiment in os.listdir(self._home.flush_requests):
                with suppress(OSError):  # what cannot be taken away is no request: it would be one for ever
                    os.unlink(self._home.flush_request(experiment))
                    experiments.add(experiment)
        return experiments

    def close(self) -> None:
        """Close every file. Nothing is looked at any more, and `run` has ended."""
        self._rest.close()
        self._exits.close()
        for lane in self.lanes.values():
            lane.source.sleep()

    def forget(self, source: Source) -> None:
        """Stop shipping a source: it is finished, or cannot be read."""
        lane = self.lanes.pop(source.id, None)
        self._awake.pop(source.id, None)
        if lane is not None:
            self._rest.remove(lane)
            self._shipper.remove(lane)
        self._glances.forget(source.id)
        self._exits.forget(source)
        source.sleep()
