"""A collector that is stopped at some call of the store, while another works and everything is swept, and then goes on."""

from __future__ import annotations

import signal
import time

import pytest

from headrace.service.nats_server import NatsServer
from headrace_proto.events import Kind
from headrace_proto.store import chain as chains
from headrace_proto.store import layout, sweeping
from headrace_proto.store.backend import open_store
from headrace_proto.store.chain import Chain
from tests.collector.dying import hasten
from tests.collector.frames import Source
from tests.collector.harness import PARTITIONS, Broker, all_held, child, collecting, document, held, points
from tests.processes import process_state
from tests.proto.store_core.sweeps import missing
from tests.waiting import until

FILE = b"weights" * 20_000
MOMENTS = {
    "a part": "/channels/part-",
    "a commit": "/commits/0*2[.]json",
    "a small artifact": "/artifacts/note",
    "a whole file": "/artifacts/model",
}


@pytest.fixture
def hastened(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is replaced grows old in two seconds, for the collector in this process as for the one that sleeps."""
    for module, name in (
        (sweeping, "RETENTION_S"),
        (sweeping, "COMMITS_KEPT"),
        (chains, "LATE_S"),
        (chains, "LOOK_AGAIN_S"),
    ):
        monkeypatch.setattr(module, name, getattr(module, name))
    hasten()


@pytest.mark.usefixtures("hastened")
@pytest.mark.parametrize("name", MOMENTS)
async def test_a_stopped_collector_does_no_harm_when_it_goes_on(nats_server: NatsServer, store: str, name: str) -> None:
    """It is stopped before a write; meanwhile another stores everything, logs and removes files, and all leftovers and old
    commits are swept. When it goes on, it stores nothing twice, nothing is missing, and nobody takes its commit for the head."""
    source = Source()
    source.log("loss", 50)
    note = b"a note"
    source.add(Kind.ARTIFACT, time.time_ns(), "note.txt", note, {"mode": 0o644})
    file = source.artifact("model.bin", FILE)
    source.log("loss", 50)
    source.add(Kind.UNLINK, time.time_ns(), ["note.txt"])
    asleep = child("tests.collector.dying", nats_server.url, store, "asleep", MOMENTS[name])
    async with Broker.connected(nats_server.url) as broker, asleep as sleeper:
        frames = source.cut(4)
        await broker.send([*frames[:1], *source.chunks(file, FILE), *frames[1:3]])
        await until(lambda: process_state(sleeper.pid) == "T", "it is stopped")
        async with collecting(nats_server.url, store) as other:
            await all_held(other, "the other has taken over")
            await broker.send(frames[3:])
            await broker.stored(source)
            assert (await broker.file_done(source, file)).done
            chain = Chain(open_store(store), source.project, source.experiment)
            await until(lambda: swept_up_to(chain) > 3, "all that the sleeper knew is swept")
            sleeper.send_signal(signal.SIGCONT)
            await until(lambda: len(held(other)) == PARTITIONS // 2, "the sleeper works again")
            source.log("loss", 10)
            await broker.send([source.frame(frames[-1].end, source.end)])
            await broker.stored(source)
            await broker.emptied()
            sweep_once(chain)
            assert missing(open_store(store), source.project, source.experiment) == set()
    assert points(store, source.experiment) == sorted(source.points)
    found = document(store, source.experiment)
    assert {path: record.state for path, record in found.artifacts.items()} == {"model.bin": "stored"}


def sweep_once(chain: Chain) -> None:
    sweeping.sweep(chain, now_ns=time.time_ns(), grace_s=0.0, anyway=True)


def swept_up_to(chain: Chain) -> int:
    """Sweep; the lowest commit that is left."""
    sweep_once(chain)
    names = chain.store.names(layout.commits_folder(*chain.place))
    return min((layout.commit_number(name) or 0 for name in names), default=0)
