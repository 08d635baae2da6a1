"""Sources that rest: what is done for them, and that nothing of what they do after all is missed."""

from __future__ import annotations

import glob
import os
from types import SimpleNamespace
from typing import cast

import pytest

from headrace.service.nats_server import NatsServer
from headrace_agent.agent import Agent
from headrace_agent.lane import SourceLane
from headrace_agent.pulses import AT_ONCE, Pulses
from headrace_agent.tail import IDLE_NS, Tail
from headrace_agent.ticks import TICK_S
from headrace_proto.events import ChannelType, Kind, Outcome
from headrace_proto.home import Home
from headrace_proto.journal import PULSE_AT, PULSE_BYTES, JournalReader
from tests.agent.conftest import Serve, log_points, new_writer, points_of
from tests.agent.far_end import FarEnd
from tests.waiting import until

MANY = 200


async def rested(agent: Agent, count: int) -> None:
    """Wait until so many sources are only watched."""
    await until(lambda: len(agent.tail._rest) == count, f"{count} sources rest")


async def test_sources_that_rest_are_watched_and_what_they_log_arrives(
    home: Home, nats_server: NatsServer, serve: Serve
) -> None:
    """Each of two hundred wakes up by itself; the others go on resting."""
    async with FarEnd(nats_server.url) as far, serve() as agent:
        writers = [new_writer(home) for _ in range(MANY)]
        for writer in writers:
            log_points(writer, 10)
        await rested(agent, MANY)
        log_points(writers[7], 10, 10)
        await far.has_all(writers[7], "what it logged arrived")
        assert len(agent.tail._awake) <= 1
        for writer in writers[8:]:
            log_points(writer, 5, 10)
        await far.has_all_of(writers, "all arrived")
        assert points_of(far.bytes[writers[9].source]) == list(range(15))
        for writer in writers:
            writer.close(Outcome.SUCCEEDED)
        await until(lambda: not os.listdir(home.journals), "all are finished")


async def test_sources_that_rest_cost_no_proper_look(home: Home, nats_server: NatsServer, serve: Serve) -> None:
    """Two hundred of them are looked at less than once a second each."""
    async with FarEnd(nats_server.url), serve() as agent:
        writers = [new_writer(home) for _ in range(MANY)]
        for writer in writers:
            log_points(writer, 1)
        await rested(agent, MANY)
        polled = _count_polls(agent.tail)
        looks = agent.tail._looks
        await until(lambda: agent.tail._looks >= looks + 25, "two and a half seconds of looks")
        assert len(polled) <= MANY * (agent.tail._looks - looks) * TICK_S
        for writer in writers:
            writer.close(Outcome.SUCCEEDED)


def _count_polls(tail: Tail) -> list[str]:
    """The sources that are looked at properly from now on."""
    polled: list[str] = []
    for lane in tail.lanes.values():
        poll = lane.source.poll

        def counted(now_ns: int, source: str = lane.source.id, poll=poll) -> None:  # type: ignore[no-untyped-def]
            polled.append(source)
            poll(now_ns)

        lane.source.poll = counted  # type: ignore[method-assign]
    return polled


async def test_a_trainer_that_waits_rouses_its_sources(home: Home, nats_server: NatsServer, serve: Serve) -> None:
    """A flush request finds those that rest as well."""
    async with FarEnd(nats_server.url, answering=False) as far, serve() as agent:
        writer = new_writer(home)
        log_points(writer, 10)
        await rested(agent, 1)
        far.flushed.clear()
        open(home.flush_request(writer.experiment), "w").close()
        await until(lambda: writer.source in far.flushed, "the question arrived")
        writer.close(Outcome.SUCCEEDED)


async def test_a_stop_ships_what_a_resting_source_has_just_logged(
    home: Home, nats_server: NatsServer, serve: Serve
) -> None:
    """The drain looks at everything properly."""
    async with FarEnd(nats_server.url) as far:
        async with serve() as agent:
            writer = new_writer(home)
            log_points(writer, 10)
            await rested(agent, 1)
            log_points(writer, 10, 10)
        await far.has_all(writer, "what was logged last arrived")
        writer.close(Outcome.SUCCEEDED)


def test_a_pulse_changes_with_every_commit_and_at_a_new_segment(home: Home) -> None:
    """Whatever the writer does, one of the watched words is another then, or the journal must be polled to know more."""
    writer = new_writer(home)
    reader = JournalReader(writer.folder)
    try:
        for nth in range(1, 40):
            reader.poll(nth)
            pulse = reader.pulse()
            assert _still(pulse)
            before = writer.position
            writer.channel_event(Kind.TEXT, "noise", ChannelType.TEXT, None, 0, os.urandom(60_000))
            assert writer.position > before
            assert not _still(pulse)
        assert reader.poll(10 * IDLE_NS) > 1 << 20, "it went through several segments"
        reader.poll(11 * IDLE_NS)
        pulse = reader.pulse()
        reader.read(0)  # reading what is old closes nothing that is watched
        reader.read(1 << 20)
        reader.read(0)
        assert _still(pulse)
    finally:
        reader.close()
    writer.close(Outcome.SUCCEEDED)


def _still(pulse: tuple[tuple[int, bytes], ...]) -> bool:
    return all(os.pread(descriptor, PULSE_BYTES, PULSE_AT) == page for descriptor, page in pulse)


@pytest.mark.parametrize("mapped", [True, False])
def test_of_many_pulses_only_those_that_changed_are_told(home: Home, *, mapped: bool) -> None:
    """More than one call can name, on file systems where journals are mapped and on others."""
    writers = [new_writer(home) for _ in range(3)]
    readers = [JournalReader(writer.folder) for writer in writers]
    pulses = Pulses(mapped=mapped)
    many = [_lane(f"{nth}") for nth in range(AT_ONCE + 300)]
    try:
        for nth, lane in enumerate(many):
            pulses.add(lane, readers[nth % 3].pulse())
        assert pulses.changed() == []
        log_points(writers[1], 1)
        assert {lane.source.id for lane in pulses.changed()} == {lane.source.id for lane in many[1::3]}
        for lane in many[1::3]:
            pulses.remove(lane)
        assert pulses.changed() == []
        assert len(pulses) == len(pulses.lanes()) == len(many) - len(many[1::3])
    finally:
        pulses.close()
        for reader, writer in zip(readers, writers, strict=True):
            reader.close()
            writer.close(Outcome.SUCCEEDED)


@pytest.mark.parametrize("mapped", [True, False])
def test_a_journal_that_is_cut_short_under_its_watch_is_told_and_harms_nobody(home: Home, *, mapped: bool) -> None:
    """A load from such a map would be the agent's end. The journals beside it are watched as before."""
    writers = [new_writer(home) for _ in range(3)]
    readers = [JournalReader(writer.folder) for writer in writers]
    pulses = Pulses(mapped=mapped)
    lanes = [_lane(str(nth)) for nth in range(3)]
    try:
        for lane, reader in zip(lanes, readers, strict=True):
            pulses.add(lane, reader.pulse())
        (segment,) = glob.glob(os.path.join(writers[0].folder, "*.seg"))
        os.truncate(segment, 0)
        assert pulses.changed() == lanes[:1]
        log_points(writers[2], 1)
        assert pulses.changed() == [lanes[0], lanes[2]]
    finally:
        pulses.close()
        for reader in readers:
            reader.close()


def _lane(source: str) -> SourceLane:
    return cast("SourceLane", SimpleNamespace(source=SimpleNamespace(id=source)))
