"""Syncing: what a power loss may take, and what a disk that fails or hangs may not."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.service.nats_server import NatsServer
from headrace_agent.agent import Agent
from headrace_agent.lane import SourceLane
from headrace_agent.sync import AGAIN_S_MAX, NOTED_MAX, Syncer
from headrace_agent.ticks import STEADY_S
from headrace_agent.trouble import PAUSE_S_MAX, PAUSE_S_MIN, Trouble
from headrace_proto.events import Outcome
from headrace_proto.home import Home
from headrace_proto.journal import JournalReader, JournalWriter
from tests.agent.conftest import Serve, log_points, new_writer
from tests.agent.far_end import FarEnd
from tests.agent.process import AgentProcess
from tests.waiting import until

SEGMENTS = 200_000
"""Points that fill the first segment and some of the next."""


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sources that are synced, which nobody else does meanwhile."""
    sources: list[str] = []
    monkeypatch.setattr(JournalReader, "sync", lambda reader, _: sources.append(reader.header.source))
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


class Disk:
    """What the disk does with `fdatasync`: it takes note, fails, or hangs until it is told to go on."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.error: int | None = None
        self.hangs = False
        self.goes_on = threading.Event()
        self._real = os.fdatasync

    def fdatasync(self, descriptor: int) -> None:
        self.files.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        if self.hangs:
            self.goes_on.wait(60)
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error))
        self._real(descriptor)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """The disk below all homes of this process."""
    disk = Disk()
    monkeypatch.setattr(os, "fdatasync", disk.fdatasync)
    yield disk
    disk.goes_on.set()


async def test_a_disk_that_hangs_holds_up_neither_shipping_nor_freeing_nor_the_end(
    home: Home, nats_server: NatsServer, serve: Serve, disk: Disk
) -> None:
    """While a sync does not return, what is logged is shipped, what is stored is freed and deleted, and the agent stops."""
    disk.hangs = True
    async with FarEnd(nats_server.url, answering=False) as far, serve() as agent:
        writer, other = new_writer(home), new_writer(home)
        log_points(writer, SEGMENTS)
        log_points(other, 10)
        await until(lambda: disk.files, "a sync hangs")
        await far.has_all(writer)
        await far.mark(writer.source)
        await until(lambda: not os.path.exists(Path(writer.folder) / "000000.seg"), "the first segment is freed")
        writer.close(Outcome.SUCCEEDED)
        await far.has_all(writer)
        await far.mark(writer.source)
        await until(lambda: not os.path.exists(writer.folder), "the journal is deleted")
        log_points(other, 10, 10)
        await far.has_all(other)
        assert agent.check().ok
        other.close(Outcome.SUCCEEDED)
    assert not disk.goes_on.is_set()
    threads = [thread for thread in threading.enumerate() if thread.name == "sync"]
    assert threads
    assert all(thread.daemon for thread in threads), "a process does not wait for it either"


async def test_a_process_whose_disk_hangs_ends_when_it_is_told_to(
    home: Home, nats_server: NatsServer, tmp_path: Path
) -> None:
    """In time, and with success: what was logged is shipped, and the thread that hangs is left behind."""
    writer = new_writer(home)
    log_points(writer, 10)
    log = tmp_path / "agent.log"
    async with FarEnd(nats_server.url, answering=False) as far:
        with AgentProcess(home, nats_server.url, log).with_hanging_disk() as agent:
            await until(lambda: "a sync hangs" in log.read_text(), "a sync hangs")
            await far.has_all(writer)
            await far.mark(writer.source, position=1)  # which is synced at the end, at the latest
            assert await asyncio.to_thread(agent.stop) == 0
    writer.close(Outcome.SUCCEEDED)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
async def test_what_cannot_be_synced_is_told_once_and_then_ever_more_rarely(
    home: Home, nats_server: NatsServer, serve: Serve, disk: Disk, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    """An hour of failures is a few lines that say how many there were, and a few hundred attempts; then it is synced."""
    caplog.set_level(logging.INFO, logger="headrace_agent.sync")
    disk.error = number
    async with FarEnd(nats_server.url, answering=False), serve(sync_s=3600) as agent:
        writer = new_writer(home)
        lane = await _seen(agent, writer)
        syncer, now_s = Syncer(agent.tail, STEADY_S), 1000.0
        for _ in range(7200):
            await syncer.work(now_s)
            now_s += STEADY_S
        told = [record.getMessage() for record in caplog.records]
        assert os.strerror(number) in told[0]
        assert 3 < len(told) < 9
        attempts = len(disk.files)
        assert attempts < 3600 / AGAIN_S_MAX + 10
        assert not told[0].endswith("said last)")
        assert 1 + sum(int(line.rpartition("(")[2].split()[0]) for line in told[1:]) <= attempts
        disk.error = None
        await _log_and_see(lane, writer, 10)
        await syncer.work(now_s + AGAIN_S_MAX)
        await syncer.work(now_s + AGAIN_S_MAX + STEADY_S)
        assert len(disk.files) == attempts + 1
        assert [record.levelname for record in caplog.records[len(told) :]] == ["INFO"]
        writer.close(Outcome.SUCCEEDED)


async def test_one_source_that_cannot_be_synced_costs_the_others_nothing(
    home: Home, nats_server: NatsServer, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are synced in their time, while the pauses of the one grow."""
    synced: list[str] = []

    def sync(reader: JournalReader, _: set[str]) -> None:
        synced.append(reader.header.source)
        if reader.header.source == bad.source:
            raise OSError(errno.EIO, "a bad sector")

    monkeypatch.setattr(JournalReader, "sync", sync)
    async with FarEnd(nats_server.url, answering=False), serve(sync_s=3600) as agent:
        bad, good = new_writer(home), new_writer(home)
        syncer = Syncer(agent.tail, STEADY_S)
        await _seen(agent, bad)
        lane = await _seen(agent, good)
        for nth in range(8):
            await syncer.work(1000.0 + nth * STEADY_S)
            await _log_and_see(lane, good, 10 + 10 * nth)
        assert synced.count(good.source) == 8
        assert synced.count(bad.source) == 4
        for writer in (bad, good):
            writer.close(Outcome.SUCCEEDED)


async def test_a_source_whose_files_were_closed_is_synced_by_its_name(
    home: Home, nats_server: NatsServer, serve: Serve, disk: Disk
) -> None:
    """Where there are more journals than may be open, those that rest are closed, and may lack the store's word all the same."""
    async with FarEnd(nats_server.url, answering=False), serve(sync_s=3600) as agent:
        writer, gone = new_writer(home), new_writer(home)
        lanes = [await _seen(agent, one) for one in (writer, gone)]
        syncer = Syncer(agent.tail, STEADY_S)
        awake = dict(agent.tail._awake)
        agent.tail._awake.clear()  # no look opens them again
        for lane in lanes:
            syncer._note(lane.source, 1000.0)
            lane.source.sleep()
        os.rename(gone.folder, f"{gone.folder}.gone")
        await syncer.work(1000.0)
        assert disk.files == [os.path.join(writer.folder, "000000.seg")]
        assert not syncer._failing
        os.rename(f"{gone.folder}.gone", gone.folder)
        agent.tail._awake.update(awake)
        for one in (writer, gone):
            one.close(Outcome.SUCCEEDED)


async def test_the_folders_that_journals_share_are_synced_once_a_round(
    home: Home, nats_server: NatsServer, serve: Serve, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand trainers that start together have a thousand folders in one: its names, and those above, are the same for all."""
    folders: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: folders.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    async with FarEnd(nats_server.url, answering=False), serve(sync_s=3600) as agent:
        writers = [new_writer(home) for _ in range(5)]
        for writer in writers:
            log_points(writer, 10)
        await until(
            lambda: len(lanes := agent.tail.lanes) == 5 and all(lane.source.end for lane in lanes.values()),
            "all are seen",
        )
        syncer = Syncer(agent.tail, STEADY_S)
        for lane in agent.tail.lanes.values():
            syncer._note(lane.source, 1000.0)
        folders.clear()
        await syncer.work(1000.0)
        above = [home.journals, home.root, os.path.dirname(home.root)]
        assert sorted(folders) == sorted([*above, *(writer.folder for writer in writers)])
        assert sorted(disk.files) == sorted(os.path.join(writer.folder, "000000.seg") for writer in writers)
        for writer in writers:
            writer.close(Outcome.SUCCEEDED)


async def test_a_system_without_another_thread_does_not_end_the_agent(
    home: Home, nats_server: NatsServer, serve: Serve, monkeypatch: pytest.MonkeyPatch, disk: Disk
) -> None:
    """Nothing is synced then, which is told, and tried again."""
    start = threading.Thread.start

    def started(thread: threading.Thread) -> None:
        if thread.name == "sync" and not allowed:
            raise RuntimeError("can't start new thread")
        start(thread)

    allowed: list[bool] = []
    monkeypatch.setattr(threading.Thread, "start", started)
    async with FarEnd(nats_server.url, answering=False) as far, serve() as agent:
        writer = new_writer(home)
        log_points(writer, 10)
        await until(lambda: agent.syncer._failing, "it cannot be synced")
        await far.has_all(writer)
        allowed.append(True)
        await until(lambda: disk.files, "it is synced")
        writer.close(Outcome.SUCCEEDED)


async def test_what_is_noted_of_a_source_that_nobody_stores_is_bounded(
    home: Home, nats_server: NatsServer, serve: Serve, disk: Disk
) -> None:
    """A broker that is away and a disk that fails, for days: the oldest time stays, and so does the newest end."""
    disk.error = errno.EIO
    async with FarEnd(nats_server.url, answering=False), serve(sync_s=3600) as agent:
        writer = new_writer(home)
        lane = await _seen(agent, writer)
        syncer = Syncer(agent.tail, STEADY_S)
        for nth in range(2 * NOTED_MAX):
            lane.source.end += 1
            syncer._note(lane.source, 1000.0 + nth)
        noted = syncer._unsafe[writer.source]
        assert len(noted) == NOTED_MAX
        assert (noted[0][1], noted[-1]) == (1000.0, (lane.source.end, 1000.0 + NOTED_MAX - 1))
        lane.source.end = writer.position
        writer.close(Outcome.SUCCEEDED)


def test_trouble_is_told_at_once_after_it_was_away(caplog: pytest.LogCaptureFixture) -> None:
    """The first of it, then at pauses that double, then each hour; and the first again after an hour without any."""
    trouble = Trouble(logging.getLogger("headrace_agent"))
    told = [second for second in range(4 * 3600) if trouble.tell("a %s", "disk", now_s=float(second))]
    assert told[:4] == [0, PAUSE_S_MIN, 3 * PAUSE_S_MIN, 7 * PAUSE_S_MIN]
    assert told[-1] - told[-2] == PAUSE_S_MAX
    assert [record.getMessage() for record in caplog.records[:3]] == [
        "a disk",
        f"a disk ({PAUSE_S_MIN:.0f} times since this was said last)",
        f"a disk ({2 * PAUSE_S_MIN:.0f} times since this was said last)",
    ]
    assert not trouble.tell("a disk", now_s=4 * 3600 + 1.0)
    assert trouble.tell("a disk", now_s=4 * 3600 + 2 * PAUSE_S_MAX)
