"""The agent: its parts, who owns what, and in which order they stop.

One loop does everything but waiting for the disk and for drivers. Every part is a `run` that works until it is cancelled, and the
task group below owns them all: an error in one stops the agent, and whoever started it starts it again. Being killed at any
point loses nothing: the journals hold what the store does not, and the marks kept say where to begin.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from contextlib import closing, suppress
from typing import Any, Final

from headrace.service import rights
from headrace.service.health import Health, HealthServer
from headrace_agent.abort import Aborter
from headrace_agent.batch import Cutter
from headrace_agent.budget import EVENTS_IN_FLIGHT_BYTES, FILES_IN_FLIGHT_BYTES, Budget
from headrace_agent.cgroup import ControlGroup
from headrace_agent.feedback import Feedback
from headrace_agent.gpus import Gpus, find_gpus
from headrace_agent.hardware import Sampler
from headrace_agent.lane import SourceLane
from headrace_agent.lock import HomeLock
from headrace_agent.marks import StoreBinding
from headrace_agent.metrics import Metrics
from headrace_agent.nats_uplink import NatsUplink
from headrace_agent.quota import Quota
from headrace_agent.report import Reporter
from headrace_agent.retention import Retention
from headrace_agent.settings import AgentSettings
from headrace_agent.ship import Shipper
from headrace_agent.signs import SignsOfLife
from headrace_agent.source import Source
from headrace_agent.sync import Syncer
from headrace_agent.system import SystemSources
from headrace_agent.tail import Tail
from headrace_agent.uplink import Uplink
from headrace_agent.upload import Uploader
from headrace_proto import subjects
from headrace_proto.home import Home
from headrace_proto.ids import random_id
from headrace_proto.journal import JournalReader

DRAIN_LOOK_S: Final = 0.01
KEEP_S: Final = 5.0
"""For the marks that are kept at the end, so that nothing is sent twice."""
log = logging.getLogger(__name__)


class Agent:
    """The agent of one home. `run` it once."""

    def __init__(self, settings: AgentSettings, *, uplink: Uplink | None = None, gpus: Gpus | None = None) -> None:
        self.settings: Final = settings
        self.home: Final = Home(settings.home)
        self.metrics: Final = Metrics()
        self.uplink: Final = uplink or _uplink(settings)
        self._gpus = gpus
        run, site = random_id()[:6], settings.site
        self._run_id = run
        self._events_budget = Budget(EVENTS_IN_FLIGHT_BYTES)
        self._files_budget = Budget(FILES_IN_FLIGHT_BYTES)
        self._cutter = Cutter(self.home, site)
        self._binding = StoreBinding(self.home)
        self.reporter: Final = Reporter(self.home)
        self.events: Final = Shipper(subjects.EVENTS_STREAM, self.uplink, self._events_budget, self.metrics)
        self.files: Final = Shipper(subjects.FILES_STREAM, self.uplink, self._files_budget, self.metrics)
        self.tail: Final = Tail(self.home, self.events, self._lane)
        self.uploader: Final = Uploader(
            self.home, self.tail, self.files, self._files_budget, self.reporter, self.metrics, site, run
        )
        self.feedback: Final = Feedback(
            self._binding, self.tail, self.events, self.uploader, self.metrics, self.reporter.changed
        )
        for part in (self.reporter, self.uploader):
            self.tail.when_awaited(part.awaited)
        self.retention: Final = Retention(
            self.home, self.tail, self.reporter, self.metrics, self._binding, self._finished
        )
        self.quota: Final = Quota(self.home, settings.quota, self._unstored)
        self.syncer: Final = Syncer(self.tail, settings.sync_s)
        self.aborter: Final = Aborter(self.tail, settings.abort_grace_s)
        self.signs: Final = SignsOfLife(self.home, self.tail, self.uplink, site)
        self.health: Final = HealthServer.of(settings, self.metrics.registry, self.check)
        self._gauges()

    def _lane(self, reader: JournalReader) -> SourceLane:
        source = Source(reader, self._events_budget, self._binding.kept(reader.folder), time.monotonic_ns())
        self.reporter.changed(source)
        return SourceLane(
            source, self._cutter, self.metrics, self.settings.site, self._run_id, on_streamed=self.reporter.changed
        )

    def _finished(self, source: Source) -> None:
        self.uploader.forget(source)
        self.feedback.forget(source)

    # -- Running ---------------------------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Serve the home until `stop`, then drain. Raises `AlreadyRunning`, `HomeUnusable`, `ConfigError` or `OSError`."""
        self.home.make()
        if self.home.is_shared:
            log.warning(
                "%s is on %s, a network file system: this agent serves one host of it", self.home.root, self.home.kind
            )
        with HomeLock(self.home):
            self.feedback.listen(self.uplink, self.settings.site)
            self.aborter.listen(self.uplink, self.settings.site)
            async with self.health:
                try:
                    with closing(self.tail):
                        await self._serve(stop)
                except BaseExceptionGroup as errors:  # the first error is the cause, the others are its effects
                    raise errors.exceptions[0] from errors

    async def _serve(self, stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            log.info("serving %s; metrics on port %d", self.home.root, self.health.port)
            tasks = _Tasks(group)
            uplink = tasks.start(self.uplink.run())
            sending = [tasks.start(self.events.run()), tasks.start(self.files.run())]
            care = [tasks.start(part.run()) for part in (self.reporter, self.retention, self.quota, self.syncer)]
            care += [
                tasks.start(self.feedback.watch_silence()),
                tasks.start(self.aborter.run()),
                tasks.start(self.signs.run()),
            ]
            finding = [tasks.start(self.tail.run()), tasks.start(self.uploader.run())]
            sampling = [tasks.start(self._sample())] if self.settings.hardware_s else []
            await stop.wait()
            log.info("stopping: what is committed is shipped, for at most %.0f s", self.settings.grace_s)
            await tasks.cancel(*sampling)  # closes the system sources, which the drain then ships
            await tasks.cancel(*finding)
            await self._drain()
            await tasks.cancel(*sending, *care)
            with suppress(TimeoutError):  # of a disk that hangs; the next agent sends something twice then
                async with asyncio.timeout(KEEP_S):
                    await self.retention.work(time.monotonic_ns(), keep_all=True)
            await tasks.cancel(uplink)

    async def _sample(self) -> None:
        gpus = self._gpus if self._gpus is not None else await asyncio.to_thread(find_gpus)
        sampler = Sampler(gpus, ControlGroup(), self.metrics.hardware_errors)
        try:
            sampling = SystemSources(
                self.home, self.tail, sampler.sample, self.settings.hardware_s, waits=sampler.waits
            )
            await sampling.run()
        finally:
            sampler.close()

    async def _drain(self) -> None:
        """Ship what is committed by now, new journals included, for as long as the grace lasts."""
        give_up_s = time.monotonic() + self.settings.grace_s
        self.tail.look(time.monotonic_ns())
        wanted = {lane: lane.source.end for lane in self.tail.lanes.values()}
        for lane in wanted:
            lane.hurry = True
        self.tail.rouse(lambda _: True)
        self.events.leash.loose = True
        while time.monotonic() < give_up_s:
            self.tail.settle(time.monotonic_ns())
            self.tail.look(time.monotonic_ns(), folders=False)
            if all(lane.source.window.acked >= end for lane, end in wanted.items()):
                return
            await asyncio.sleep(DRAIN_LOOK_S)
        log.warning("the grace is over; what is not shipped yet waits in the journals")

    # -- Telling ---------------------------------------------------------------------------------------------------------

    def check(self) -> Health:
        """Whether events flow, and if not, why."""
        reasons = []
        if not self.uplink.connected:
            reasons.append("not connected to the broker: what is logged waits in the journals")
        if self.uplink.trouble:
            reasons.append(self.uplink.trouble)
        if self.events.full or self.files.full:
            reasons.append("a stream is full: collectors are behind, or down")
        if self._binding.foreign:
            reasons.append(f"another store answers: {', '.join(sorted(self._binding.foreign))}")
        if self.tail.discovery.refused:
            reasons.append(f"{len(self.tail.discovery.refused)} journals cannot be read")
        if self.quota.reached:
            reasons.append("the quota is reached: writers drop and count")
        facts = {
            "reasons": reasons,
            "home": self.home.root,
            "site": self.settings.site,
            "sources": len(self.tail.lanes),
            "journaled_bytes": self._sum("end"),
            "lag_streamed_bytes": self._lag_streamed(),
            "lag_stored_bytes": self._lag_stored(),
            "files": len(self.uploader.lanes),
        }
        return Health(not reasons, facts)

    def _gauges(self) -> None:
        gauge = self.metrics.gauge
        gauge("connected", "1 with a link to the broker", lambda: float(self.uplink.connected))
        gauge("sources", "Journals being shipped", lambda: len(self.tail.lanes))
        gauge("journals_refused", "Journals that cannot be read", lambda: len(self.tail.discovery.refused))
        gauge("lag_streamed_bytes", "Journal bytes that the stream does not have", self._lag_streamed)
        gauge("lag_stored_bytes", "Journal bytes that the store does not have", self._lag_stored)
        gauge("in_flight_bytes", "Bytes of frames held until they are acknowledged", self._held)
        gauge("spool_files", "Spooled files that the store does not have", lambda: len(self.uploader.lanes))
        gauge("disk_used_bytes", "What journals and spools occupy", lambda: self.quota.use.total)
        gauge("quota_reached", "1 while writers drop", lambda: float(self.quota.reached))
        gauge(
            "stores_foreign", "Stores that answer for this home and are not its own", lambda: len(self._binding.foreign)
        )

    def _held(self) -> float:
        return self._events_budget.held + self._files_budget.held

    def _sum(self, what: str) -> int:
        return sum(getattr(lane.source, what) for lane in self.tail.lanes.values())

    def _unstored(self) -> dict[str, int]:
        return {name: max(lane.source.end - lane.source.stored, 0) for name, lane in self.tail.lanes.items()}

    def _lag_streamed(self) -> int:
        return sum(max(lane.source.end - lane.source.window.acked, 0) for lane in self.tail.lanes.values())

    def _lag_stored(self) -> int:
        return sum(self._unstored().values())


class _Tasks:
    """The tasks of a group, to be cancelled in an order of our own."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return self._group.create_task(work)

    async def cancel(self, *tasks: asyncio.Task[None]) -> None:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def _uplink(settings: AgentSettings) -> Uplink:
    name = rights.agent_name(settings.site)
    return NatsUplink(settings.nats, name=name, credentials=settings.credentials_file, tls=settings.tls)
