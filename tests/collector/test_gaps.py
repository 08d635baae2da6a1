"""Gaps that close: what nobody will send any more holds nothing up, is shown as lost, and is taken when it comes after all."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from headrace.service.nats_server import NatsServer
from headrace_collector import worker
from headrace_proto.frame import SOURCE_GONE, FrameKind
from headrace_proto.store.documents import LostRange
from tests.collector.frames import Source, logged
from tests.collector.harness import Broker, collecting, document, points
from tests.waiting import until


def lost(store: str, source: Source) -> tuple[LostRange, ...]:
    return document(store, source.experiment).sources[source.id].lost


async def test_gap_that_nobody_fills_is_given_up_and_filled_when_its_bytes_come(
    nats_server: NatsServer, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its patience what waits is stored beside a lost range, agents hear where it begins, and good bytes withdraw it."""
    monkeypatch.setattr(worker, "GAP_PATIENCE_S", 0.2)
    source = logged()
    frames = source.cut(6)
    async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store):
        await broker.send([frames[0], frames[2], frames[4], frames[5]])
        mark = await broker.stored(source)
        await broker.emptied()
        assert mark.missing == frames[1].first
        reasons = [(gap.first, gap.end, gap.reason) for gap in lost(store, source)]
        assert reasons == [(frames[n].first, frames[n].end, SOURCE_GONE) for n in (1, 3)]
        assert len(points(store, source.experiment)) < len(source.points)
        await broker.send([frames[1], frames[3]])
        await broker.emptied()
        await until(lambda: not lost(store, source), "the ranges are filled")
        mark = await broker.stored(source)
        assert mark.missing == -1
    assert points(store, source.experiment) == sorted(source.points)


async def test_patience_outlives_a_restart(
    nats_server: NatsServer, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gap's age is that of the messages in the stream: one that a former collector waited for is given up by the next."""
    source = logged()
    frames = source.cut(4)
    async with Broker.connected(nats_server.url) as broker:
        async with collecting(nats_server.url, store):
            await broker.send([frames[0], *frames[2:]])
            await broker.stored(source, frames[0].end)
            await until(lambda: broker.rewinds, "the gap is seen")
            assert await broker.left() == len(frames[2:])
        monkeypatch.setattr(worker, "GAP_PATIENCE_S", 0.1)
        async with collecting(nats_server.url, store):
            await broker.stored(source)
            await broker.emptied()
    assert [(gap.first, gap.end) for gap in lost(store, source)] == [(frames[1].first, frames[1].end)]


async def test_source_whose_beginning_is_gone_is_stored_without_it(
    nats_server: NatsServer, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even what names experiment and channels may be missing: the points are kept, and get their names when it comes."""
    monkeypatch.setattr(worker, "GAP_PATIENCE_S", 0.2)
    source = logged()
    frames = source.cut(3)
    async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store):
        await broker.send(frames[1:])
        await broker.stored(source)
        kept = points(store, source.experiment)
        assert [point[1:] for point in kept] == [point[1:] for point in source.points[-len(kept) :]]
        await broker.send(frames[:1])
        await broker.emptied()
        await until(lambda: not lost(store, source), "the range is filled")
    assert sorted(point[1:] for point in points(store, source.experiment)) == [point[1:] for point in source.points]


async def test_agent_that_trimmed_what_a_store_forgot_lets_the_source_go_on(
    nats_server: NatsServer, store: str
) -> None:
    """A store restored to yesterday asks for what it lacks; an agent that has freed it says so, and all that follows is stored."""
    source = logged()
    frames = source.cut(6)
    async with Broker.connected(nats_server.url) as broker:
        async with collecting(nats_server.url, store):
            await broker.send(frames[:2])
            await broker.stored(source, frames[1].end)
        yesterday = Path(store).with_name("yesterday")
        shutil.copytree(store, yesterday)
        async with collecting(nats_server.url, store):
            await broker.send(frames[2:4])
            await broker.stored(source, frames[3].end)
        shutil.rmtree(store)
        yesterday.rename(store)
        async with collecting(nats_server.url, store):
            await broker.send(frames[4:])
            await until(lambda: broker.rewinds, "what is missing is asked for")
            assert broker.rewinds[-1].position == frames[1].end
            trimmed = source.frame(frames[1].end, frames[4].first, FrameKind.LOST, reason="trimmed")
            await broker.send([trimmed])
            await broker.stored(source)
            await broker.emptied()
    (gap,) = lost(store, source)
    assert (gap.first, gap.end, gap.reason) == (frames[2].first, frames[3].end, "trimmed")
