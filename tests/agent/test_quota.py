"""The quota, syncing, and the lock: care for the disk and for the home."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from headrace.service.nats_server import NatsServer
from headrace_agent.agent import Agent
from headrace_agent.lane import SourceLane
from headrace_agent.lock import HomeLock
from headrace_agent.quota import Quota, measure
from headrace_agent.sync import Syncer
from headrace_agent.ticks import STEADY_S
from headrace_proto.errors import AlreadyRunning
from headrace_proto.events import Outcome
from headrace_proto.home import Home
from headrace_proto.journal import JournalReader, JournalWriter
from headrace_proto.limits import MIB
from tests.agent.conftest import Serve, log_points, new_writer
from tests.agent.far_end import FarEnd
from tests.agent.process import AgentProcess
from tests.waiting import until


@pytest.mark.filterwarnings("ignore::headrace_proto.errors.TelemetryWarning")
async def test_beyond_the_quota_writers_drop_and_nothing_unstored_is_deleted(
    home: Home, nats_server: NatsServer, serve: Serve
) -> None:
    """The marker stops them; when the store has what there is, it is freed and they go on. Every event is stored or counted."""
    async with FarEnd(nats_server.url, answering=False) as far, serve(quota=3 * MIB) as agent:
        writer = new_writer(home)
        logged = 0
        while not agent.quota.reached:
            log_points(writer, 10_000, logged)
            logged += 10_000
            await agent.quota.work()
        assert "quota" in agent.check().facts["reasons"][-1]
        assert os.path.exists(home.quota_marker)
        while not writer.dropped:
            log_points(writer, 10_000, logged)
            logged += 10_000
        kept = logged - writer.dropped
        await until(lambda: far.watermark(writer.source) >= kept * 34, "what was kept arrived")
        assert agent.tail.lanes[writer.source].source.oldest == 0
        far.answering = True
        await far.mark(writer.source)
        await until(lambda: not os.path.exists(home.quota_marker), "there is room again")

        def accepted() -> bool:
            dropped = writer.dropped
            log_points(writer, 1)
            return bool(writer.dropped == dropped)

        await until(accepted, "the writer logs again")
        writer.close(Outcome.SUCCEEDED)


async def test_the_quota_is_left_with_a_margin(home: Home) -> None:
    """The marker does not come and go with every segment."""
    file = Path(home.journal("a")) / "000000.seg"
    file.parent.mkdir()
    quota = Quota(home, 10 * MIB, dict)
    for size, reached in ((9, False), (10, True), (9.5, True), (8.9, False), (9.9, False)):
        file.write_bytes(b"x" * int(size * MIB))
        await quota.work()
        assert (quota.reached, os.path.exists(home.quota_marker)) == (reached, reached), size


async def test_an_agent_without_a_quota_takes_the_marker_down(home: Home) -> None:
    """The setting was removed: writers go on."""
    Path(home.quota_marker).touch()
    await Quota(home, None, dict).work()
    assert not os.path.exists(home.quota_marker)


def test_use_of_the_disk_is_what_is_allocated(home: Home) -> None:
    """Segments are allocated ahead. What the store has of one that is still written to is not held against its writer."""
    assert measure(home, {}) == (0, 0)
    writer = new_writer(home)
    assert measure(home, {}).owed >= MIB
    assert measure(home, {writer.source: 100}).owed == 100
    assert measure(home, {writer.source: 100}).total >= MIB
    writer.close(Outcome.SUCCEEDED)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sources that are synced, which nobody else does meanwhile."""
    sources: list[str] = []
    monkeypatch.setattr(JournalReader, "sync", lambda reader: sources.append(reader.header.source))
    return sources


async def _seen(agent: Agent, writer: JournalWriter) -> SourceLane:
    """The lane of a source to which ten points were logged, once the agent knows of them."""
    log_points(writer, 10)
    lane = await until(lambda: agent.tail.lanes.get(writer.source), "the source is found")
    await until(lambda: lane.source.end == writer.position, "its end is seen")
    return lane


async def test_what_is_only_in_a_journal_is_synced_in_time_and_once(
    home: Home, nats_server: NatsServer, serve: Serve, synced: list[str]
) -> None:
    """A power loss takes at most the last HEADRACE_SYNC_S; a resting journal costs nothing, and nor does one that is stored."""
    async with FarEnd(nats_server.url, answering=False), serve(sync_s=3600) as agent:
        writer = new_writer(home)
        lane = await _seen(agent, writer)
        syncer, now_s = Syncer(agent.tail, bound_s=1.0), 1000.0
        await syncer.work(now_s)
        assert synced == [], "it may be stored before its time has come"
        await syncer.work(now_s + 0.5)
        assert synced == [writer.source]
        await syncer.work(now_s + 1.0)
        assert len(synced) == 1
        await _log_and_see(lane, writer, 10)
        await syncer.work(now_s + 1.5)
        await _log_and_see(lane, writer, 20)
        lane.source.stored = lane.source.end - 1  # all but a byte of what came last
        await syncer.work(now_s + 2.0)
        assert len(synced) == 1, "what came first is stored by now, and what came last has time"
        await syncer.work(now_s + 2.5)
        assert len(synced) == 2
        await _log_and_see(lane, writer, 30)
        await syncer.work(now_s + 3.0)
        lane.source.stored = lane.source.end
        await syncer.work(now_s + 3.5)
        assert len(synced) == 2, "all is stored"
        writer.close(Outcome.SUCCEEDED)


async def _log_and_see(lane: SourceLane, writer: JournalWriter, first: int) -> None:
    log_points(writer, 10, first)
    await until(lambda: lane.source.end == writer.position, "its end is seen")


async def test_a_source_that_rests_before_it_is_stored_is_synced(
    home: Home, nats_server: NatsServer, serve: Serve, synced: list[str]
) -> None:
    """The agent's own rounds, with a store that says nothing."""
    async with FarEnd(nats_server.url, answering=False), serve() as agent:
        writer = new_writer(home)
        log_points(writer, 10)
        await until(lambda: synced == [writer.source], "it is synced")
        await until(lambda: len(agent.tail._rest) == 1, "it rests")
        log_points(writer, 1, 10)
        await until(lambda: len(synced) == 2, "it is synced again")
        writer.close(Outcome.SUCCEEDED)


@pytest.mark.parametrize(("bound_s", "rounds"), [(0.5, 1), (0.7, 1), (1.0, 2), (1.3, 2), (2.0, 4)])
async def test_what_would_be_late_at_the_next_look_is_synced_at_this_one(
    home: Home, nats_server: NatsServer, serve: Serve, synced: list[str], bound_s: float, rounds: int
) -> None:
    """Whatever the bound is: it may have been logged just after the look before the one that noticed it."""
    async with FarEnd(nats_server.url, answering=False), serve(sync_s=3600) as agent:
        writer = new_writer(home)
        await _seen(agent, writer)
        syncer, done = Syncer(agent.tail, bound_s), 0
        while not synced:
            await syncer.work(1000.0 + STEADY_S * done)
            done += 1
        assert done == rounds
        writer.close(Outcome.SUCCEEDED)


async def test_a_source_that_is_forgotten_while_it_is_synced_is_closed_after_that(
    home: Home, nats_server: NatsServer, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread was inside its reader; nobody else would ever close its files."""
    begun, go_on = threading.Event(), threading.Event()

    def sync(_: JournalReader) -> None:
        begun.set()
        go_on.wait(60)

    monkeypatch.setattr(JournalReader, "sync", sync)
    async with FarEnd(nats_server.url, answering=False), serve(sync_s=3600) as agent:
        writer = new_writer(home)
        log_points(writer, 10)
        lane = await until(lambda: agent.tail.lanes.get(writer.source), "the source is found")
        await until(lambda: lane.source.end == writer.position, "its end is seen")
        syncing = asyncio.create_task(Syncer(agent.tail, STEADY_S).work(1000.0))
        await until(begun.is_set, "a thread is inside")
        agent.tail.forget(lane.source)
        is_open = [lane.source.reader is not None]
        go_on.set()
        await syncing
        is_open.append(lane.source.reader is not None)
        assert is_open == [True, False]
        writer.close(Outcome.SUCCEEDED)


def test_a_second_agent_of_a_home_is_refused_by_name(home: Home, nats_server: NatsServer, tmp_path: Path) -> None:
    """Its message names the process that serves already, and what to do."""
    with HomeLock(home):
        second = subprocess.run(
            [sys.executable, "-m", "headrace_agent", "--home", home.root, "--nats", nats_server.url],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert second.returncode == 1
        assert f"process {os.getpid()}" in second.stderr
        assert "Traceback" not in second.stderr


def test_the_lock_dies_with_its_holder(home: Home, nats_server: NatsServer, tmp_path: Path) -> None:
    """An agent killed with SIGKILL leaves a home that the next one can serve; this one is told who serves."""
    agent = AgentProcess(home, nats_server.url, tmp_path / "agent.log")
    with agent:
        from tests.waiting import wait_until

        wait_until(lambda: agent.health(), "it serves")
        assert agent.process is not None
        with pytest.raises(AlreadyRunning, match=str(agent.process.pid)), HomeLock(home):
            pass
    with HomeLock(home):
        assert Path(home.agent_lock).read_text() == f"{os.getpid()}\n"
