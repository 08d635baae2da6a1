"""The collector end to end: real nats-server, hand-made frames, a store that is read back."""

from __future__ import annotations

from headrace.service.nats_server import NatsServer
from tests.collector.frames import Source
from tests.collector.harness import Broker, collecting, document, points


async def test_frames_become_a_readable_experiment(nats_server: NatsServer, store: str) -> None:
    """What a source sent is stored, listed under a short id, marked, and gone from the stream."""
    source = Source()
    source.log("loss", 100)
    source.close()
    async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store):
        await broker.send(source.cut(5))
        mark = await broker.stored(source)
        await broker.emptied()
    assert points(store, source.experiment) == sorted(source.points)
    found = document(store, source.experiment)
    assert (found.id, found.state, found.params) == ("DIG-1", "succeeded", {"lr": 0.1})
    assert (mark.short_id, mark.experiment) == ("DIG-1", source.experiment)
