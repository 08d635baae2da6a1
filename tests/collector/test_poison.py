"""A batch that makes this release fail: found by trying each alone, kept for a person, and passed by all others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.service.nats_server import NatsServer
from headrace_collector import worker
from headrace_collector.committer import NOT_APPLIED
from headrace_collector.quarantine import Room, put_away
from headrace_proto.store import chain
from headrace_proto.store.apply import apply
from headrace_proto.store.backend import open_store
from tests.collector.frames import Source
from tests.collector.harness import Broker, collecting, document, points, quarantined
from tests.proto.store_base.faults import FaultyStore


def test_quarantine_cannot_be_flooded(store: str) -> None:
    """What is put aside is bounded: beyond that nothing is written, and there is room again after a while."""
    opened = open_store(store)
    room = Room(bytes_max=100_000, per_s=0.0)
    for _ in range(50):
        put_away(opened, 7, b"x" * 10_000, {"reason": "a flood"}, room)
    assert 1 <= len(quarantined(store)) <= 10
    slow = Room(bytes_max=100, per_s=1.0)
    assert [slow.take(100, now) for now in (0.0, 50.0, 99.0, 100.0)] == [True, False, False, True]


def test_tries_that_fail_take_no_room_in_the_quarantine(store: str) -> None:
    """While the store is out of order a frame is tried again and again: it is kept as soon as there is a store."""
    broken = FaultyStore(open_store(store), plan=lambda _: "before")
    room = Room(bytes_max=100_000, per_s=0.0)
    for _ in range(50):
        with pytest.raises(OSError, match="quarantine"):
            put_away(broken, 7, b"x" * 10_000, {"reason": "a flood"}, room)
    put_away(open_store(store), 7, b"x" * 10_000, {"reason": "a flood"}, room)
    (kept,) = quarantined(store)
    assert kept.read_bytes() == b"x" * 10_000


class Mistake:
    """A mistake in the code that applies batches: it fails for one source at one position."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at: tuple[str, int] | None = None
        self._apply = apply
        monkeypatch.setattr(chain, "apply", self)
        monkeypatch.setattr(worker, "RETRY_S_MAX", 0.05)

    def __call__(self, head: Any, side: Any, place: Any, batches: Any, *rest: Any) -> Any:
        if any((batch.source, batch.first) == self.at and batch.raw for batch in batches):
            raise TypeError("unsupported operand")
        return self._apply(head, side, place, batches, *rest)


# -- Fault 19: kept in quarantine with a reason; a lost range passes it in the same commit; the rest goes on ---------


async def test_batch_that_cannot_be_applied_passes_as_lost_and_stops_nobody(
    nats_server: NatsServer, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After some tries it is kept with a readable reason; its range is lost, and what came with it and after it is stored."""
    mistake = Mistake(monkeypatch)
    bad = Source()
    bad.log("loss", 100)
    rank = Source(bad.experiment, role="rank")
    rank.log("loss", 50)
    frames = bad.cut(4)
    mistake.at = bad.id, frames[2].first
    async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store):
        await broker.send([*frames, *rank.cut(2)])
        for source in (bad, rank):
            await broker.stored(source)
        await broker.emptied()
    (gap,) = document(store, bad.experiment).sources[bad.id].lost
    assert (gap.first, gap.end, gap.reason) == (frames[2].first, frames[2].end, NOT_APPLIED)
    assert document(store, bad.experiment).sources[rank.id].lost == ()
    stored = points(store, bad.experiment)
    assert set(stored) < {*bad.points, *rank.points}
    assert set(rank.points) <= set(stored)
    (kept,) = quarantined(store)
    assert kept.read_bytes() == bad.journal[frames[2].first : frames[2].end]
    facts = json.loads(kept.with_suffix(".json").read_text())
    assert facts["reason"] == "poison: it cannot be applied: TypeError: unsupported operand"
    assert (facts["batch"]["source"], facts["batch"]["first"]) == (bad.id, frames[2].first)


async def test_mistake_that_passes_costs_nothing(
    nats_server: NatsServer, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure that is gone at the next try gives nothing up."""
    mistake = Mistake(monkeypatch)
    source = Source()
    source.log("loss", 100)
    mistake.at = source.id, 0
    counted: list[int] = []

    def passing(*arguments: Any) -> Any:
        counted.append(1)
        if len(counted) == 2:
            mistake.at = None
        return mistake(*arguments)

    monkeypatch.setattr(chain, "apply", passing)
    async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store):
        await broker.send(source.cut(2))
        await broker.stored(source)
    assert points(store, source.experiment) == sorted(source.points)
    assert quarantined(store) == []
