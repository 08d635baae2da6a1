"""Looks: what one sees leaves with it, however the writer's time falls between the agent's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pytest

from headrace_agent.batch import Cutter
from headrace_agent.budget import Budget
from headrace_agent.lane import SourceLane
from headrace_agent.metrics import Metrics
from headrace_agent.ship import Shipper
from headrace_agent.source import Due, Source
from headrace_agent.sync import Syncer
from headrace_agent.tail import SETTLE_S, Tail
from headrace_agent.ticks import STEADY_S
from headrace_proto.events import Outcome
from headrace_proto.home import Home
from headrace_proto.journal import JournalReader, JournalWriter
from headrace_proto.limits import BATCH_RAW_TARGET, MIB
from headrace_proto.messages import Mark
from tests.agent.conftest import log_points, new_writer

STEADY_NS = int(STEADY_S * 1e9)
SETTLE_NS = int(SETTLE_S * 1e9)
ROUNDS = 12


class Stream:
    """In a shipper's place: takes what is due, and has it at once."""

    def __init__(self, home: Home) -> None:
        self._cutter = Cutter(home, "local")

    def add(self, lane: SourceLane) -> None:
        pass

    remove = add

    def lead(self, ahead: int, now_ns: int) -> None:
        pass

    def offer(self, lane: SourceLane, now_ns: int) -> None:
        source = lane.source
        while lane.due(now_ns) is not Due.NOTHING and self._cutter.cut(source, BATCH_RAW_TARGET, now_ns):
            flight = source.window.send()
            assert flight is not None
            source.acknowledged(flight)


class Bench:
    """A writer, a tail that is looked through by hand, and a clock."""

    def __init__(self, home: Home) -> None:
        self.writer: JournalWriter = new_writer(home)
        self.now_ns = STEADY_NS
        self._step = 0
        metrics, cutter, budget = Metrics(), Cutter(home, "local"), Budget(64 * MIB)

        def lane(reader: JournalReader) -> SourceLane:
            source = Source(reader, budget, None, self.now_ns)
            return SourceLane(source, cutter, metrics, "local", "run", on_streamed=lambda _: None)

        self.tail = Tail(home, cast("Shipper", Stream(home)), lane)

    @property
    def source(self) -> Source:
        return self.tail.lanes[self.writer.source].source

    def log(self, points: int) -> None:
        log_points(self.writer, points, self._step)
        self._step += points

    def look(self) -> int:
        """A steady look; what it saw."""
        self.now_ns += STEADY_NS
        self.tail.look(self.now_ns)
        return self.source.end

    def settle(self) -> None:
        self.tail.settle(self.now_ns + SETTLE_NS)


@pytest.fixture
def bench(home: Home) -> Iterator[Bench]:
    bench = Bench(home)
    yield bench
    bench.tail.close()
    bench.writer.close(Outcome.SUCCEEDED)


def test_what_a_steady_look_sees_leaves_as_soon_as_it_has_settled(bench: Bench) -> None:
    """Also of a writer that logged while the look before settled: what that saw was not all, and must not make this one late."""
    bench.log(1)
    bench.look()
    bench.settle()
    for nth in range(ROUNDS):
        bench.log(5)
        seen = bench.look()
        assert bench.source.window.cut < seen, "it may not be read yet"
        if nth % 3:
            bench.log(1)
        bench.settle()
        assert bench.source.window.cut == seen


async def test_what_a_store_that_keeps_up_has_is_never_synced(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers before the next look, whenever the writer logs; and once it does not, what it lacks is synced."""
    synced: list[str] = []

    async def sync(_: Syncer, sources: list[Source], now_s: float) -> None:
        synced.extend(source.id for source in sources)

    monkeypatch.setattr(Syncer, "_sync", sync)
    syncer = Syncer(bench.tail, bound_s=1.0)
    for commit in range(2 * ROUNDS):
        bench.log(5)
        bench.look()
        await syncer.work(bench.now_ns / 1e9)
        bench.log(1)
        bench.settle()
        if commit < ROUNDS:
            assert not synced
            source = bench.source
            source.marked(Mark("s", source.header.experiment, source.id, source.window.acked, commit + 1))
    assert synced == [bench.writer.source] * len(synced) != []


def test_what_came_after_a_pause_is_offered_by_the_looks_between(bench: Bench) -> None:
    """They come ten times a second for it: nothing of theirs is kept for a settling."""
    bench.log(1)
    bench.look()
    bench.settle()
    bench.now_ns += 2 * STEADY_NS
    bench.log(1)
    for _ in range(2):
        bench.now_ns += STEADY_NS // 5
        bench.tail.look(bench.now_ns, folders=False, steady=False)
    assert bench.source.window.cut == bench.source.end
