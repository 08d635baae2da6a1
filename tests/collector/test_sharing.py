"""Several collectors: fair shares, takeovers, and competitors who must not store anything twice."""

from __future__ import annotations

import contextlib
import signal
from asyncio.subprocess import Process
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from headrace.service.nats_server import NatsServer
from headrace_collector import process
from headrace_collector.collector import Collector
from headrace_collector.leases import Owner
from headrace_proto import subjects
from tests.collector.frames import PROJECT, logged
from tests.collector.harness import PARTITIONS, Broker, all_held, child, collecting, document, held, points
from tests.waiting import until


def collecting_elsewhere(url: str, store: str) -> AbstractAsyncContextManager[Process]:
    """A collector in a process of its own."""
    options = ["--nats", url, "--store", store, "--partitions", str(PARTITIONS), "--commit-interval", "0.1"]
    return child("headrace_collector", *options)


def doubted(collector: Collector) -> list[int]:
    """The partitions that may be somebody else's."""
    partitions: list[int] = dict(collector.health().facts).get("in_doubt", [])
    return partitions


async def test_two_share_and_the_leaver_gives_back(nats_server: NatsServer, store: str) -> None:
    """A second collector gets half of the partitions; when it leaves, the first has them all again."""
    async with collecting(nats_server.url, store) as one:
        await all_held(one, "the first has everything")
        async with collecting(nats_server.url, store) as two:
            await until(lambda: len(held(one)) == len(held(two)) == PARTITIONS // 2, "both have half")
            assert sorted(held(one) + held(two)) == list(range(PARTITIONS))
        await all_held(one, "the first has everything again")


async def test_killed_collector_s_share_is_taken_over(nats_server: NatsServer, store: str) -> None:
    """What a killed collector had fetched and not stored is stored by those who are left."""
    sources = [logged() for _ in range(8)]
    async with Broker.connected(nats_server.url) as broker, collecting_elsewhere(nats_server.url, store) as elsewhere:
        await broker.send(source.cut(4)[0] for source in sources)
        await broker.emptied()
        async with collecting(nats_server.url, store) as one:
            await until(lambda: len(held(one)) == PARTITIONS // 2, "they share")
            await broker.send(frame for source in sources for frame in source.cut(4)[1:])
            elsewhere.kill()
            for source in sources:
                await broker.stored(source)
            await all_held(one, "its share is taken over")
            await broker.emptied()
    for source in sources:
        assert points(store, source.experiment) == sorted(source.points)


# -- Fault 16: the commit lets one win; the other steps back, says so and does no harm -------------------------------


async def test_paused_collector_loses_its_share_and_does_no_harm(nats_server: NatsServer, store: str) -> None:
    """A collector that is stopped for longer than its leases, and goes on, stores nothing twice and gets a share again."""
    sources = [logged() for _ in range(6)]
    async with Broker.connected(nats_server.url) as broker, collecting_elsewhere(nats_server.url, store) as elsewhere:
        await broker.send(source.cut(4)[0] for source in sources)
        await broker.emptied()
        elsewhere.send_signal(signal.SIGSTOP)
        await broker.send(frame for source in sources for frame in source.cut(4)[1:3])
        async with collecting(nats_server.url, store) as one:
            await all_held(one, "its share is taken over")
            elsewhere.send_signal(signal.SIGCONT)
            await broker.send(source.cut(4)[3] for source in sources)
            for source in sources:
                await broker.stored(source)
            await until(lambda: len(held(one)) == PARTITIONS // 2, "they share again")
            await broker.emptied()
    for source in sources:
        assert points(store, source.experiment) == sorted(source.points)


async def test_competitors_store_everything_once(start_nats: Callable[..., NatsServer], store: str) -> None:
    """Two collectors that both get every frame, from brokers of their own, store each point once and give each run one id."""
    servers = [start_nats("one"), start_nats("two")]
    sources = [logged(300) for _ in range(5)]
    async with contextlib.AsyncExitStack() as stack:
        brokers = [await stack.enter_async_context(Broker.connected(server.url)) for server in servers]
        for server in servers:
            await stack.enter_async_context(collecting(server.url, store))
        for cut in range(10):
            for broker in brokers:
                await broker.send(source.cut(10)[cut] for source in sources)
        for broker in brokers:
            for source in sources:
                await broker.stored(source)
            await broker.emptied()
    for source in sources:
        assert points(store, source.experiment) == sorted(source.points)
    ids = {document(store, source.experiment, PROJECT).id for source in sources}
    assert len(ids) == len(sources)
    assert all(number.startswith("DIG-") for number in ids)


# -- Leases ----------------------------------------------------------------------------------------------------------


async def test_leases_survive_a_broker_that_restarts(start_nats: Callable[..., NatsServer], store: str) -> None:
    """When the broker is gone for longer than a lease, its collector takes nobody's place, and goes on once it knows."""
    server, source = start_nats(), logged()
    async with collecting(server.url, store) as one:
        await all_held(one, "it has everything")
        server.kill()
        await until(lambda: len(doubted(one)) == PARTITIONS, "it is sure of nothing")
        server.start()
        await until(lambda: not doubted(one), "it is sure again")
        async with Broker.connected(server.url) as broker:
            await broker.send(source.cut(4))
            await broker.stored(source)
    assert points(store, source.experiment) == sorted(source.points)


async def test_lease_that_was_taken_in_the_meantime_is_given_up(nats_server: NatsServer, store: str) -> None:
    """A holder that comes to doubt, and then reads that somebody else has its partition, lets go of it."""
    async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store) as one:
        await all_held(one, "it has everything")
        other = Owner("0" * 32, process.Process.own()).encode()
        await broker.js.publish(subjects.lease(0), other, headers={"Nats-TTL": "3s"})
        await until(lambda: 0 not in held(one), "it lets go")
        await all_held(one, "that lease ran out, and nobody renewed it")


async def test_other_division_waits_until_the_older_one_is_gone(nats_server: NatsServer, store: str) -> None:
    """A collector with another number of partitions holds nothing beside an older one, and serves once that has left."""
    source = logged()
    async with Broker.connected(nats_server.url) as broker:
        async with collecting(nats_server.url, store) as one:
            await all_held(one, "the first has everything")
            async with collecting(nats_server.url, store, partitions=2) as two:
                await broker.send(source.cut(2))
                await broker.stored(source)
                assert held(two) == []
        async with collecting(nats_server.url, store, partitions=2) as two:
            await until(lambda: len(held(two)) == 2, "the second serves")
