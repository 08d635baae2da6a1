"""Collectors that die and stores that fail: nothing is lost, nothing is stored twice."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from headrace.service.nats_server import NatsServer
from headrace_collector import collector as collector_module
from headrace_collector import pull, shared, worker
from headrace_proto import subjects
from headrace_proto.limits import CHUNK_BYTES
from headrace_proto.store.backend import Store, open_store
from tests.collector.frames import Source
from tests.collector.harness import PARTITIONS, Broker, child, collecting, document, held, points
from tests.proto.store_base.faults import FaultyStore
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("alone")

FILE = os.urandom(3 * CHUNK_BYTES)
MOMENTS = {
    "before its first part": ("before", "channels/part-"),
    "between parts and commit": ("before", "commits/0"),
    "after a commit, before its acknowledgement": ("after", "commits/0"),
    "after the document, before the catalog": ("after", "experiment.json"),
    "after the catalog, before the marks": ("after", "catalog/"),
    "after a piece of a file": ("after", "/.uploads/"),
    "after a file is in place, before its commit": ("after", "artifacts/model.bin"),
}


async def killed(url: str, store: str, moment: str, pattern: str) -> None:
    """Runs a collector in a process of its own until it has killed itself."""
    async with child("tests.collector.dying", url, store, moment, pattern) as dying, asyncio.timeout(30):
        assert await dying.wait() == -signal.SIGKILL


# -- Fault 15: nobody names the parts; they are swept; the batches come again ----------------------------------------


@pytest.mark.parametrize("name", MOMENTS)
async def test_killed_collector_loses_and_doubles_nothing(nats_server: NatsServer, store: str, name: str) -> None:
    """A collector killed at any moment of a commit leaves a store that the next one completes, each point once."""
    source = Source()
    source.log("loss", 200)
    file = source.artifact("model.bin", FILE)
    source.close()
    async with Broker.connected(nats_server.url) as broker:
        await broker.send([*source.cut(6), *source.chunks(file, FILE)])
        await killed(nats_server.url, store, *MOMENTS[name])
        async with collecting(nats_server.url, store):
            await broker.stored(source)
            assert (await broker.file_done(source, file)).done
            await broker.emptied()
            await broker.emptied(subjects.FILES_STREAM)
    assert points(store, source.experiment) == sorted(source.points)
    found = document(store, source.experiment)
    assert (found.state, found.artifacts["model.bin"].state) == ("succeeded", "stored")


class Outage:
    """A store that can be switched off."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner
        self.off = False

    def __getattr__(self, name: str) -> Any:
        if self.off and name not in ("url", "local"):
            raise OSError("the store is out of order")
        return getattr(self._inner, name)


@pytest.fixture
def outage(store: str, monkeypatch: pytest.MonkeyPatch) -> Outage:
    """The store of the collectors of this test; retries come quickly."""
    faulty = Outage(open_store(store))
    monkeypatch.setattr(collector_module, "open_store", lambda url: faulty)
    monkeypatch.setattr(worker, "RETRY_S_MAX", 0.2)
    return faulty


# -- A store that is out of order ------------------------------------------------------------------------------------


async def test_outage_of_the_store_leaves_everything_in_the_stream(
    nats_server: NatsServer, store: str, outage: Outage
) -> None:
    """While the store fails nothing is acknowledged, and the health says why; afterwards all is stored once."""
    source = Source()
    source.log("loss", 200)
    frames = source.cut(8)
    async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store) as one:
        await broker.send(frames[:2])
        await broker.stored(source, frames[1].end)
        await broker.emptied()
        outage.off = True
        await broker.send(frames[2:])
        await until(lambda: dict(one.health().facts).get("store_fault"), "the collector says that its store fails")
        assert not one.health().ok
        assert await broker.left() == len(frames) - 2
        outage.off = False
        await broker.stored(source)
        await broker.emptied()
        assert one.health().ok
    assert points(store, source.experiment) == sorted(source.points)


async def test_outage_does_not_fill_the_memory(
    nats_server: NatsServer, store: str, outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond its bounds a collector gives frames back and pulls no more: the backlog waits in the stream."""
    bound, in_flight = 64 * 1024, 128 * 1024
    monkeypatch.setattr(pull, "PULL_MESSAGES", 4)
    monkeypatch.setattr(shared, "READY_BYTES_MAX", bound)
    monkeypatch.setattr(worker, "FAILING_BYTES_MAX", bound // 4)
    monkeypatch.setattr(worker, "GIVEN_BACK_S", 0.2)
    sources = [Source() for _ in range(6)]
    for source in sources:
        source.log("loss", 6000)
    async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store) as one:
        await until(lambda: len(held(one)) == PARTITIONS, "the collector serves")
        outage.off = True
        await broker.send(frame for source in sources for frame in source.cut(60))
        await until(lambda: dict(one.health().facts).get("store_fault"), "the collector says that its store fails")
        waiting = [int(dict(one.health().facts)["waiting_bytes"]) async for _ in _moments(30)]
        assert max(waiting) < bound + in_flight < await broker.waiting_bytes()
        outage.off = False
        for source in sources:
            await broker.stored(source)
        await broker.emptied()
    for source in sources:
        assert points(store, source.experiment) == sorted(source.points)


async def _moments(count: int) -> Any:
    for moment in range(count):
        await asyncio.sleep(0.01)
        yield moment


@pytest.mark.parametrize("fault", ["before", "after"])
async def test_lost_requests_and_answers_store_nothing_twice(
    nats_server: NatsServer, store: str, fault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store whose every third write fails, before or after its effect, ends up with each point once."""
    faulty = FaultyStore(open_store(store), faults=dict.fromkeys(range(4, 60, 3), fault))
    monkeypatch.setattr(collector_module, "open_store", lambda url: faulty)
    monkeypatch.setattr(worker, "RETRY_S_MAX", 0.1)
    source = Source()
    source.log("loss", 200)
    file = source.artifact("model.bin", FILE)
    async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store):
        await broker.send(source.chunks(file, FILE))
        for sent in source.cut(8):
            await broker.send([sent])
            await broker.stored(source, sent.end)
        assert (await broker.file_done(source, file)).done
        await broker.emptied()
    assert points(store, source.experiment) == sorted(source.points)
