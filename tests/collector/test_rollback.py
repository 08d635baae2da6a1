"""A broker that comes back with less than it had: no zombies stay, nothing new is acknowledged by mistake, all is stored once."""

from __future__ import annotations

from collections.abc import Callable

from headrace.service.nats_server import NatsServer
from headrace_collector.collector import Collector
from headrace_proto import subjects
from tests.collector.frames import logged
from tests.collector.harness import TIMEOUT_S, Broker, all_held, collecting, points
from tests.faults.broker import newest_block, roll_back, wipe
from tests.waiting import until


def counted(collector: Collector, name: str) -> float:
    """A counter of the collector's."""
    return collector._metrics.registry.get_sample_value(f"headrace_collector_{name}_total") or 0.0


# -- Fault 12: noticed by evidence, sent again from the journals; zombies leave the stream ---------------------------


async def test_acknowledged_messages_that_come_back_leave_the_stream_again(
    start_nats: Callable[..., NatsServer], store: str
) -> None:
    """A rolled-back work queue holds messages again that were stored long ago: they are answered, and take no room for ever."""
    server, source = start_nats(), logged(600)
    frames = source.cut(60)
    async with Broker.connected(server.url) as broker:
        await broker.send(frames[:40])
        await broker.send(frames[41:])  # above a gap, so that they wait in the stream
    async with collecting(server.url, store) as one:
        async with Broker.connected(server.url) as broker:
            await broker.stored(source, frames[39].end)
            await broker.left_only(len(frames[41:]))
        server.kill()
        roll_back(server, subjects.EVENTS_STREAM, 0.9)
        server.start()
        async with Broker.connected(server.url) as broker:
            await until(lambda: counted(one, "duplicates") >= 20, "what comes back is answered once more", TIMEOUT_S)
            await broker.send(frames[40:])
            await broker.stored(source)
            await broker.emptied()
    assert points(store, source.experiment) == sorted(source.points)


async def test_nothing_new_is_removed_by_what_was_delivered_before_a_rollback(
    start_nats: Callable[..., NatsServer], store: str
) -> None:
    """Messages published under sequences that a rollback freed stay in the stream until their own commit."""
    server, mine, other = start_nats(), logged(600), logged(600)
    async with collecting(server.url, store, commit_interval_s=3600) as one:
        async with Broker.connected(server.url) as broker:
            for source in (mine, other):
                await broker.send(source.cut(4)[:1])
                await broker.stored(source, source.cut(4)[0].end)
            before = newest_block(server, subjects.EVENTS_STREAM).stat().st_size
            await broker.send(mine.cut(4)[1:])
            await until(lambda: one._site and one._site.shared.memory.ready, "they are held, unacknowledged")
        server.kill()
        after = newest_block(server, subjects.EVENTS_STREAM).stat().st_size
        roll_back(server, subjects.EVENTS_STREAM, before / after)
        server.start()
        await until(lambda: one._site and one._site.client.is_connected, "the collector is back")
        await all_held(one)
        async with Broker.connected(server.url) as broker:
            await broker.send(other.cut(4)[2:])  # above a gap, under the sequences of those that are gone
            await broker.send(mine.cut(4)[1:])
            await broker.send([mine.frame(mine.end, mine.end, flush=True)])
            await broker.stored(mine)
            await broker.left_only(len(other.cut(4)[2:]))
            await broker.send([other.cut(4)[1], other.frame(other.end, other.end, flush=True)])
            await broker.stored(other)
            await broker.emptied()
    for source in (mine, other):
        assert points(store, source.experiment) == sorted(source.points)


async def test_broker_without_its_disk_gets_its_streams_again(
    start_nats: Callable[..., NatsServer], store: str
) -> None:
    """When everything that the broker had is gone, the collector makes the streams, and what is sent again is stored once."""
    server, source = start_nats(), logged(600)
    frames = source.cut(10)
    async with collecting(server.url, store) as one:
        async with Broker.connected(server.url) as broker:
            await broker.send(frames[:5])
            await broker.stored(source, frames[4].end)
        server.kill()
        wipe(server)
        server.start()
        await until(lambda: one._site and one._site.client.is_connected, "the collector is back")
        async with Broker.connected(server.url, make=False) as broker:
            await broker.streams()
            await all_held(one)
            await broker.send(frames[3:])
            await broker.stored(source)
            await broker.emptied()
    assert points(store, source.experiment) == sorted(source.points)


async def test_streams_deleted_under_a_collector_are_made_again(nats_server: NatsServer, store: str) -> None:
    """A person who deletes a stream, or all of them, need not start anything again."""
    source = logged(600)
    frames = source.cut(4)
    async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store) as one:
        await all_held(one)
        for config in (subjects.EVENTS_STREAM, subjects.FILES_STREAM, subjects.MARKS_STREAM, subjects.LEASES_STREAM):
            await broker.js.delete_stream(config)
        await broker.streams()
        await broker.send(frames)
        await broker.stored(source)
        await broker.emptied()
    assert points(store, source.experiment) == sorted(source.points)
