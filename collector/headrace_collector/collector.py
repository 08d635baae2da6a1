"""One collector process: connects, takes its share of the partitions, and serves them until it is asked to stop.

The order of a stop, spoken aloud: give every lease back, which for each partition means to pull no more, commit what is here,
acknowledge it and tell the marks; say goodbye; send what is left to say; close the connection; let the threads end. Whatever
fails or takes too long is skipped: a SIGKILL at any of these places loses nothing either.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, NamedTuple, TypeVar

from headrace.service import rights
from headrace.service.broker import connect
from headrace.service.health import Health, HealthServer
from headrace.service.logs import told
from headrace.service.nats_py import Client, JetStreamContext, Msg
from headrace_collector.answers import Answers
from headrace_collector.keeper import TRANSIENT, LeaseKeeper
from headrace_collector.leases import LeaseBook
from headrace_collector.metrics import Metrics
from headrace_collector.pacing import Pacing
from headrace_collector.partition import Partition
from headrace_collector.process import Process
from headrace_collector.quarantine import Quarantine
from headrace_collector.settings import GOODBYE_S, CollectorSettings
from headrace_collector.shared import Shared
from headrace_collector.signs import SignsHeard
from headrace_collector.streams import Streams
from headrace_proto import messages, subjects
from headrace_proto.errors import HeadraceError
from headrace_proto.ids import is_id, random_id, token
from headrace_proto.messages import CloseGap
from headrace_proto.store.backend import open_store, store_id

_LOG: Final = logging.getLogger(__name__)

AGAIN_S: Final = 1.0
"""Between two tries to reach a store or a broker at the start."""
CLOSE_S: Final = 10.0
"""Whoever asked for a gap to be closed hears after so long at the latest that the store has not taken it yet."""


_Result = TypeVar("_Result")


class BrokerLost(HeadraceError, ConnectionError):
    """The broker closed the connection for good, as it does when credentials are revoked."""


class Collector:
    """Serves partitions, as a `keeper.Holder`. One use: `run`."""

    def __init__(self, settings: CollectorSettings) -> None:
        self._settings: Final = settings
        self._metrics: Final = Metrics()
        self._partitions: Final[dict[int, _Served]] = {}
        self._site: _Site | None = None
        self._heard = ""
        self._metrics.lag_s.set_function(self._lag_s)
        self._metrics.partitions.set_function(lambda: len(self._partitions))
        self._metrics.experiments.set_function(lambda: self._site.shared.pacing.live if self._site else 0)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set. Raises `HeadraceError` for what an operator must mend."""
        settings = self._settings
        async with HealthServer.of(settings, self._metrics.registry, self.health) as server:
            _LOG.info("serves figures", extra={"port": server.port})
            self._site = await _unless(stop, self._open())
            if self._site is None:
                return
            try:
                await self._serve(self._site, stop)
            except BaseExceptionGroup as group:
                if group.subgroup(BrokerLost):
                    raise BrokerLost("the broker closed the connection for good: see --credentials") from group
                raise
            finally:
                await self._close(self._site)

    # -- Opening --------------------------------------------------------------------------------------------------------

    async def _open(self) -> _Site:
        settings = self._settings
        client = await connect(
            settings.nats,
            name=rights.COLLECTOR_NAME,
            credentials=settings.credentials_file,
            tls=settings.tls,
            on_event=self._hear,
            on_lost=self._on_lost,
        )
        try:
            js = client.jetstream()
            streams = Streams(js, settings.replicas)
            await _persist(streams.ensure, "the broker")
            place = f"the store {settings.store!r} (make it writable for this user, or name another with --store)"
            store = await _persist(lambda: asyncio.to_thread(open_store, settings.store), place)
            identity = await _persist(lambda: asyncio.to_thread(store_id, store), place)
        except BaseException:
            await client.close()
            raise
        pacing = Pacing(local=store.local, interval_s=settings.commit_interval_s)
        name = random_id()
        shared = Shared(name, store, identity, Answers(client, js), self._metrics, pacing)
        book = LeaseBook(name, settings.partitions, time.time_ns(), Process.own())
        keeper = LeaseKeeper(client, js, book, self)
        return _Site(client, js, streams, shared, Quarantine(shared), keeper, asyncio.TaskGroup())

    def _on_lost(self) -> None:
        """The connection ended; a broker that comes back may have lost what it had taken."""
        if self._site is not None:
            self._site.streams.look_soon()
        for served in self._partitions.values():
            served.partition.lose()

    def _hear(self, text: str) -> None:
        """The broker's connection changed."""
        self._heard = text
        _LOG.warning(text)

    # -- Serving --------------------------------------------------------------------------------------------------------

    async def _serve(self, site: _Site, stop: asyncio.Event) -> None:
        shared = site.shared
        _LOG.info("serves", extra={"store": shared.store.url, "partitions": self._settings.partitions})
        async with site.tasks as tasks:
            runs = (
                site.keeper.run,
                site.streams.run,
                shared.warm_up,
                self._hear_people,
                shared.answers.run,
                shared.listing.run,
                shared.upkeep.run,
                site.quarantine.run,
                SignsHeard(site.client, shared, lambda: 0 in self._partitions).run,
            )
            serving = [tasks.create_task(run()) for run in (*runs, lambda: _watch(site.client))]
            await stop.wait()
            await site.keeper.leave(self._settings.drain_s + GOODBYE_S)
            await shared.upkeep.settle(self._settings.drain_s)
            for task in (*serving, *(served.task for served in self._partitions.values())):
                task.cancel()

    async def _close(self, site: _Site) -> None:
        with contextlib.suppress(*TRANSIENT):
            async with asyncio.timeout(GOODBYE_S):
                await site.shared.answers.flush()
                await site.client.flush()
        await site.client.close()
        site.shared.close()
        _LOG.info("stopped")

    # -- Partitions, as the keeper has them worked ----------------------------------------------------------------------

    def start(self, partition: int, epoch: int) -> None:
        """Work a partition from now on."""
        site = self._site
        if site is None:
            return
        queues = Partition(
            site.client,
            site.js,
            site.shared,
            site.quarantine,
            number=partition,
            partitions=self._settings.partitions,
            epoch=epoch,
        )
        task = site.tasks.create_task(queues.run(), name=f"partition {partition}")
        self._partitions[partition] = _Served(queues, task)

    async def drain(self, partition: int) -> None:
        """Stop working a partition, with all of it committed and acknowledged that can be."""
        served = self._partitions.get(partition)
        if served is None or self._site is None:
            return
        await served.partition.drain(self._settings.drain_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                await self._site.shared.answers.flush()
        self.abandon(partition)

    def doubt(self, partition: int) -> None:
        """Work what is here of a partition, and take nobody's place."""
        if partition in self._partitions:
            self._partitions[partition].partition.sure.clear()

    def trust(self, partition: int) -> None:
        """Work a partition as its holder."""
        if partition in self._partitions:
            self._partitions[partition].partition.sure.set()

    def abandon(self, partition: int) -> None:
        """Stop working a partition at once."""
        served = self._partitions.pop(partition, None)
        if served is not None:
            served.task.cancel()

    # -- What people ask ------------------------------------------------------------------------------------------------

    async def _hear_people(self) -> None:
        """Answer for the experiments of the partitions that are held here; whoever holds the others answers for those."""
        site = self._site
        if site is None:
            return
        subscription = await site.client.subscribe(subjects.close_gap("*"))
        async for message in subscription.messages:
            asked = messages.decode(CloseGap, message.data)
            if asked and is_id(asked.experiment) and message.reply:
                served = self._partitions.get(token(asked.experiment) % self._settings.partitions)
                if served:
                    site.tasks.create_task(_close_gaps(served.partition, asked, message))

    # -- Health ---------------------------------------------------------------------------------------------------------

    def health(self) -> Health:
        """How this collector is."""
        site = self._site
        if site is None:
            said = [self._heard] if self._heard else []
            return Health(ok=False, facts={"reasons": ["waits for the broker and the store", *said]})
        connected, fault = site.client.is_connected, site.shared.fault
        reasons = [] if connected else ["not connected to the broker: what agents ship waits in the journals"]
        reasons += [f"the store is out of order: {fault}"] if fault else []
        reasons += [site.streams.fault] if site.streams.fault else []
        facts = {
            "reasons": reasons,
            "connected": connected,
            "store": site.shared.store.url,
            "store_fault": fault,
            "partitions": sorted(self._partitions),
            "in_doubt": sorted(number for number, (held, _) in self._partitions.items() if not held.sure.is_set()),
            "experiments": site.shared.pacing.live,
            "waiting_bytes": site.shared.memory.ready + site.shared.memory.above,
            "lag_s": round(self._lag_s(), 3),
        }
        return Health(ok=not reasons, facts=facts)

    def _lag_s(self) -> float:
        now = time.monotonic()
        return max((served.partition.lag_s(now) for served in self._partitions.values()), default=0.0)


class _Served(NamedTuple):
    """A partition at work."""

    partition: Partition
    task: asyncio.Task[None]


class _Site(NamedTuple):
    """What there is once broker and store were reached."""

    client: Client
    js: JetStreamContext
    streams: Streams
    shared: Shared
    quarantine: Quarantine
    keeper: LeaseKeeper
    tasks: asyncio.TaskGroup


async def _close_gaps(partition: Partition, asked: CloseGap, message: Msg) -> None:
    answer = await partition.close_gaps(asked.experiment, asked.source, CLOSE_S)
    with contextlib.suppress(*TRANSIENT):
        await message.respond(messages.encode(answer))


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, _Result]) -> _Result | None:
    """The result of `work`, or None if `stop` is set before."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        stopping.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)


async def _persist(attempt: Callable[[], Awaitable[_Result]], what: str) -> _Result:
    """What `attempt` gives, once what it needs is there. What an operator must mend is raised."""
    while True:
        try:
            return await attempt()
        except HeadraceError:
            raise
        except TRANSIENT as error:
            _LOG.warning(f"waits for {what}", extra={"error": told(error)})
            await asyncio.sleep(AGAIN_S)


async def _watch(client: Client) -> None:
    while not client.is_closed:  # noqa: ASYNC110 - the client has no event for it
        await asyncio.sleep(AGAIN_S)
    raise BrokerLost
