"""What is freed, when, and what never is."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from headrace.service.nats_server import NatsServer
from headrace_agent import marks
from headrace_agent.marks import MARK_NAME, StoreBinding, read_mark, supersedes, write_mark
from headrace_agent.report import Reporter
from headrace_proto.events import Outcome
from headrace_proto.home import GONE, Home
from headrace_proto.journal import JournalWriter, machine
from headrace_proto.journal.layout import DEATH_NAME
from headrace_proto.messages import Mark
from headrace_proto.status import SourceStatus, Status, read_status, write_status
from tests.agent.conftest import Serve, log_points, new_writer, points_of
from tests.agent.far_end import STORE, FarEnd
from tests.agent.process import AgentProcess
from tests.waiting import until

SEGMENTS = 200_000
"""Points that fill the first segment and some of the next."""


def segments(home: Home, source: str) -> list[str]:
    return sorted(name for name in os.listdir(home.journal(source)) if name.endswith(".seg"))


async def shipped(far: FarEnd, home: Home, count: int = 1000) -> JournalWriter:
    """A writer whose points have all arrived."""
    writer = new_writer(home)
    log_points(writer, count)
    await far.has_all(writer)
    return writer


async def test_only_the_stores_word_frees_a_segment(home: Home, nats_server: NatsServer, serve: Serve) -> None:
    """What the stream acknowledged stays; what a mark covers goes, whole segments of it, after the mark is on the disk."""
    async with FarEnd(nats_server.url, answering=False) as far, serve() as agent:
        writer = await shipped(far, home, SEGMENTS)
        await agent.retention.work(0)
        assert segments(home, writer.source)[0] == "000000.seg"
        assert not os.path.exists(os.path.join(writer.folder, MARK_NAME))
        half = writer.position // 2
        await far.mark(writer.source, position=half)
        await until(lambda: "000000.seg" not in segments(home, writer.source), "the first segment is freed")
        source = agent.tail.lanes[writer.source].source
        assert source.oldest <= half
        kept = read_mark(writer.folder)
        assert kept is not None
        assert (kept.position, kept.store) == (half, STORE)
        writer.close(Outcome.SUCCEEDED)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EIO])
async def test_a_segment_that_cannot_be_deleted_is_told_of_and_freed_later(
    home: Home,
    nats_server: NatsServer,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
) -> None:
    """A disk that was mounted read-only after an error: the agent goes on shipping, and says why it frees nothing."""
    unlink, fails = os.unlink, [True]

    def unlinked(path: str, **how: Any) -> None:
        if fails and str(path).endswith(".seg"):
            raise OSError(number, os.strerror(number))
        unlink(path, **how)

    monkeypatch.setattr(os, "unlink", unlinked)
    async with FarEnd(nats_server.url, answering=False) as far, serve(sync_s=3600) as agent:
        writer = await shipped(far, home, SEGMENTS)
        await far.mark(writer.source, position=writer.position)
        await until(lambda: "cannot be freed" in caplog.text, "that is told")
        for _ in range(3):
            await agent.retention.work(0)
        assert caplog.text.count("cannot be freed") == 1
        log_points(writer, 10, SEGMENTS)
        await far.has_all(writer)
        fails.clear()
        await until(lambda: "000000.seg" not in segments(home, writer.source), "the first segment is freed")
        writer.close(Outcome.SUCCEEDED)


async def test_marks_count_by_commit_and_only_of_the_store_of_this_home(
    home: Home, nats_server: NatsServer, serve: Serve
) -> None:
    """An older answer that comes late, and another store's answer, change nothing; the latter raises an alarm."""
    async with FarEnd(nats_server.url, answering=False) as far, serve() as agent:
        writer = await shipped(far, home)
        source = agent.tail.lanes[writer.source].source
        await far.mark(writer.source, position=500, commit=9)
        await until(lambda: source.stored == 500, "the mark is heard")
        await far.mark(writer.source, position=400, commit=8)
        far.store = "another"
        await far.mark(writer.source, position=writer.position, commit=10)
        await until(lambda: not agent.check().ok, "the alarm")
        assert source.stored == 500
        assert "another store answers" in agent.check().facts["reasons"][0]
        writer.close(Outcome.SUCCEEDED)


async def test_what_collectors_gave_up_is_kept_and_sent_again(
    home: Home, nats_server: NatsServer, serve: Serve
) -> None:
    """A mark above a range that nobody had sent frees nothing of it here: it is sent, and only the mark after it frees it."""
    async with FarEnd(nats_server.url, answering=False) as far, serve() as agent:
        writer = await shipped(far, home)
        source = agent.tail.lanes[writer.source].source
        whole = bytes(far.bytes.pop(writer.source))  # the broker lost them
        await far.mark(writer.source, position=writer.position, commit=9, missing=0)
        await far.has_all(writer, "all bytes arrived again")
        assert bytes(far.bytes[writer.source]) == whole
        assert source.stored == 0
        await far.mark(writer.source, position=writer.position, commit=10)
        await until(lambda: source.stored == writer.position, "the store has them")
        writer.close(Outcome.SUCCEEDED)


def test_a_home_stays_bound_to_its_first_store(home: Home) -> None:
    """Across restarts too."""
    binding = StoreBinding(home)
    assert binding.believes("first")
    assert not binding.believes("second")
    binding.keep()
    again = StoreBinding(home)
    assert again.is_kept
    assert not again.believes("second")
    assert again.believes("first")


async def test_an_agent_that_starts_on_a_full_disk_frees_it(
    home: Home, nats_server: NatsServer, tmp_path: Path
) -> None:
    """Neither its lock nor its marks, its binding or its status files need a byte to ship what is there, and to delete it."""
    writer = new_writer(home)
    log_points(writer, 1000)
    writer.close(Outcome.SUCCEEDED)
    async with FarEnd(nats_server.url):
        with AgentProcess(home, nats_server.url, tmp_path / "agent.log").with_full_disk():
            await until(lambda: not os.path.exists(home.journal(writer.source)), "the journal is stored and deleted")


def test_a_binding_that_could_not_be_kept_is_kept_later(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is believed at once, another never, and the next round writes it down."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(marks, "_write_synced", Mock(side_effect=full))
    binding = StoreBinding(home)
    assert binding.believes("first")
    assert not binding.believes("second")
    binding.keep()
    kept = [binding.is_kept]
    assert StoreBinding(home).believes("third")
    monkeypatch.undo()
    binding.keep()
    assert [*kept, binding.is_kept] == [False, True]
    assert not StoreBinding(home).believes("second")


def test_a_kept_mark_of_another_store_is_not_believed(home: Home, tmp_path: Path) -> None:
    """A journal that was stored elsewhere is shipped from its beginning."""
    mark = Mark("elsewhere", "e", "s", 100, 3)
    write_mark(str(tmp_path), mark)
    binding = StoreBinding(home)
    assert binding.kept(str(tmp_path)) == mark
    binding.believes("ours")
    assert binding.kept(str(tmp_path)) is None
    (tmp_path / MARK_NAME).write_bytes(b"")
    assert read_mark(str(tmp_path)) is None


def test_the_highest_commit_counts() -> None:
    """And within one commit, the highest position."""
    mark = Mark("s", "e", "x", 10, 5)
    assert supersedes(mark, None)
    assert supersedes(mark._replace(commit=6, position=1), mark)
    assert supersedes(mark._replace(position=11), mark)
    assert supersedes(mark._replace(dead=True), mark)
    assert not supersedes(mark, mark)
    assert not supersedes(mark._replace(commit=4, position=99), mark)


async def test_an_agent_begins_at_the_mark_that_was_kept(home: Home, nats_server: NatsServer, serve: Serve) -> None:
    """One that stopped in peace sends nothing twice."""
    writer = new_writer(home)
    log_points(writer, 1000)
    async with FarEnd(nats_server.url) as far:
        async with serve() as agent:
            await until(
                lambda: (lane := agent.tail.lanes.get(writer.source)) and lane.source.stored == writer.position,
                "stored",
            )
        before = len(far.frames)
        log_points(writer, 10, 1000)
        async with serve():
            await far.has_all(writer, "the rest arrived")
        assert far.frames[before].first == far.frames[before - 1].end
        writer.close(Outcome.SUCCEEDED)


async def test_a_finished_journal_goes_and_its_status_stays(home: Home, nats_server: NatsServer, serve: Serve) -> None:
    """A `wait` that looks later still finds the positions, even when another agent has written the file since."""
    async with FarEnd(nats_server.url), serve():
        first = new_writer(home)
        log_points(first, 10)
        first.close(Outcome.SUCCEEDED)
        await until(lambda: not os.path.exists(home.journal(first.source)), "the journal is deleted")
    async with FarEnd(nats_server.url), serve():
        second = new_writer(home, first.experiment)
        log_points(second, 10)
        path = home.status(first.experiment)
        status = await until(lambda: (s := read_status(path)) and second.source in s.sources and s, "a new status")
        assert status.sources[first.source] == SourceStatus(first.position, first.position, 0)
        second.close(Outcome.SUCCEEDED)


async def test_the_death_of_a_writer_is_told_and_its_journal_freed(
    home: Home, nats_server: NatsServer, tmp_path: Path
) -> None:
    """A trainer killed with SIGKILL: everything it logged arrives, then the word that it is gone; then nothing is left here. One
    that lives is not taken for dead, however long it rests."""
    resting = new_writer(home)
    log_points(resting, 10)
    async with FarEnd(nats_server.url) as far:
        with AgentProcess(home, nats_server.url, tmp_path / "log") as agent:
            await far.has_all(resting, "the resting one is shipped")
            source, position = _killed_trainer(home)
            await until(lambda: source in far.dead, "its death is told")
            assert far.watermark(source) >= position
            assert points_of(far.bytes[source]) == list(range(5000))
            await until(lambda: not os.path.exists(home.journal(source)), "the journal is deleted")
            assert agent.stop() == 0
        assert far.dead == [source]
    resting.close(Outcome.SUCCEEDED)


async def test_a_journal_that_was_carried_here_is_shipped_and_ends_when_a_person_says_so(
    home: Home, nats_server: NatsServer, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything that it holds arrives; that its writer is gone is believed only from `declared-dead`."""
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(machine, "host_name", lambda: "the node that died")
        elsewhere.setattr(machine, "boot_id", lambda: "its last boot")
        there = Home(tmp_path / "there")
        there.make()
        writer = new_writer(there)
        log_points(writer, 5000)
        writer.abandon()
    async with FarEnd(nats_server.url) as far, serve():
        os.rename(there.journal(writer.source), home.journal(writer.source))
        await far.has_all(writer, "all of it arrived")
        assert points_of(far.bytes[writer.source]) == list(range(5000))
        assert far.dead == []
        Path(home.journal(writer.source), DEATH_NAME).touch()
        await until(lambda: far.dead == [writer.source], "its death is told")
        await until(lambda: not os.path.exists(home.journal(writer.source)), "the journal is deleted")


def _killed_trainer(home: Home) -> tuple[str, int]:
    import subprocess
    import sys

    script = f"""
import os, signal, sys
sys.path.insert(0, {os.getcwd()!r})
from headrace_proto.home import GONE, Home
from tests.agent.conftest import log_points, new_writer
writer = new_writer(Home({home.root!r}))
log_points(writer, 5000)
print(writer.source, writer.position, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False).stdout.split()
    return output[0], int(output[1])


async def test_a_deletion_that_was_cut_short_is_completed(home: Home, serve: Serve) -> None:
    """A kill between renaming and removing a finished journal leaves a hidden folder, which the next agent removes."""
    left = Path(home.journals) / f"{GONE}{'a' * 32}"
    left.mkdir()
    (left / "000000.seg").write_bytes(b"x")
    async with serve():
        await until(lambda: not left.exists(), "the leftover is removed")


def test_old_statuses_are_removed_and_young_ones_kept(home: Home) -> None:
    """After seven days without a change."""
    for name in ("old", "young"):
        write_status(home.status(name), Status("", 1, 0.0, {}))
    reporter = Reporter(home)
    day_s = 24 * 3600
    now_s = os.stat(home.status("old")).st_mtime + 8 * day_s
    os.utime(home.status("young"), (now_s - 6 * day_s, now_s - 6 * day_s))
    reporter.remove_old(now_s)
    assert not os.path.exists(home.status("old"))
    assert os.path.exists(home.status("young"))
