"""The agent as a source: hardware rows in the journals of their own that every experiment alive on this node gets.

They take the very way of the trainers' own events. An experiment gets one such source from this agent, of the role `system`, which
decides nothing about the experiment's state; it is closed when the experiment's other sources here have ended.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable

from headrace_agent.hardware import ReadSample
from headrace_agent.source import Source
from headrace_agent.tail import Tail
from headrace_agent.ticks import tick
from headrace_proto.errors import HeadraceError
from headrace_proto.events import Outcome, Role
from headrace_proto.home import Home
from headrace_proto.journal import JournalWriter, SourceFacts, machine

log = logging.getLogger(__name__)


def alive(sources: Iterable[Source]) -> dict[str, str]:
    """The experiments to sample for, with their projects: those that a process of this very machine and boot is logging to, and
    none of whose processes asked to be left alone."""
    host = machine.host_name()
    projects: dict[str, str] = {}
    refused: set[str] = set()
    for source in sources:
        header = source.header
        if not source.is_written_here or header.host != host:
            continue
        projects[header.experiment] = header.project
        if not header.hardware:
            refused.add(header.experiment)
    return {experiment: project for experiment, project in projects.items() if experiment not in refused}


class SystemSources:
    """Writes hardware rows to the experiments that are alive."""

    def __init__(self, home: Home, tail: Tail, read: ReadSample, period_s: float, *, waits: bool) -> None:
        """`waits`: reading takes long now and then, and is done in a thread. To hand over costs as much as a short reading."""
        self._home = home
        self._tail = tail
        self._read = read
        self._period_s = period_s
        self._waits = waits
        self._writers: dict[str, JournalWriter] = {}
        self._sampled_s = float("-inf")
        self._row: dict[str, float] = {}

    async def run(self) -> None:
        """Sample until cancelled, then close every system source."""
        await self._sample()  # rates are over the time since the reading before: this one begins it
        try:
            while True:
                await self.work()
                await tick()  # as soon an experiment that has begun gets its first row, and one that has ended its last
        finally:
            self.close()

    async def work(self) -> None:
        """One look: begin, sample if it is time, end."""
        wanted = alive(lane.source for lane in self._tail.lanes.values())
        new = [experiment for experiment in wanted if experiment not in self._writers]
        due = time.monotonic() - self._sampled_s >= self._period_s
        if wanted and (due or (new and not self._row)):
            self._sampled_s = time.monotonic()
            self._row = await self._sample()
        for experiment in new:
            self._begin(experiment, wanted[experiment])
        for experiment in self._writers if due else new:
            self._write(experiment)
        for experiment in self._writers.keys() - wanted.keys():
            self._writers.pop(experiment).close(Outcome.SUCCEEDED)

    async def _sample(self) -> dict[str, float]:
        return await asyncio.to_thread(self._read) if self._waits else self._read()

    def _begin(self, experiment: str, project: str) -> None:
        try:
            self._writers[experiment] = JournalWriter(
                self._home, project, experiment, SourceFacts(role=Role.SYSTEM, label="hardware")
            )
        except HeadraceError as error:
            log.warning("hardware of experiment %s is not logged: %s", experiment, error)

    def _write(self, experiment: str) -> None:
        writer = self._writers.get(experiment)
        if writer is not None and self._row:
            writer.row(self._row, None, time.time_ns())

    def close(self) -> None:
        """End every system source."""
        while self._writers:
            self._writers.popitem()[1].close(Outcome.SUCCEEDED)
