"""Journals that somebody tampers with: refused or set aside with a reason, nothing waited for, and the other sources flow on."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.service.nats_server import NatsServer
from headrace_agent.marks import MARK_NAME, read_mark
from headrace_agent.spoolfile import FileLane
from headrace_proto.errors import Corrupt, FormatUnknown, HomeUnusable
from headrace_proto.events import Outcome
from headrace_proto.home import Home
from headrace_proto.journal import JournalReader, JournalWriter
from headrace_proto.spool import COMPANION_SUFFIX, read_facts
from tests.agent.conftest import Serve, log_points, new_writer, points_of, spool
from tests.agent.far_end import FarEnd
from tests.waiting import until

Tamper = Callable[[Path], None]


def link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def huge(path: Path) -> None:
    os.truncate(path, 1 << 40)


def short(path: Path) -> None:
    os.truncate(path, 100)


def noise(path: Path) -> None:
    path.write_bytes(os.urandom(100_000))


@pytest.mark.parametrize("tamper", [link, pipe, folder, huge, short, noise])
async def test_a_segment_that_is_none_is_refused_and_the_others_flow_on(
    home: Home, nats_server: NatsServer, serve: Serve, tamper: Tamper
) -> None:
    """A link, a pipe, a folder, a terabyte of nothing, a stump or noise: the journal is left alone with a reason, at once."""
    bad, good = new_writer(home), new_writer(home)
    log_points(bad, 100)
    bad.close(Outcome.SUCCEEDED)
    tamper(Path(bad.folder, "000000.seg"))
    async with FarEnd(nats_server.url) as far, serve() as agent:
        await until(lambda: agent.tail.discovery.refused, "the journal is refused")
        log_points(good, 1000)
        await far.has_all(good, "the other one flows")
        reason = agent.tail.discovery.refused[bad.source].reason
        assert reason
        assert agent.check().facts["reasons"] == ["1 journals cannot be read"]
    good.close(Outcome.SUCCEEDED)
    assert points_of(far.bytes[good.source]) == [float(i) for i in range(1000)]
    assert os.path.lexists(Path(bad.folder, "000000.seg"))


@pytest.mark.parametrize("tamper", [short, noise, huge])
async def test_a_segment_that_changes_under_the_agent_stops_nobody(
    home: Home, nats_server: NatsServer, serve: Serve, tamper: Tamper
) -> None:
    """Cut, overwritten or blown up while it is open: no SIGBUS, and the other sources flow on."""
    good = new_writer(home)
    bad = new_writer(home)
    log_points(bad, 100)
    bad.close(Outcome.SUCCEEDED)
    async with FarEnd(nats_server.url, answering=False) as far, serve() as agent:
        await far.has_all(bad, "it was shipped")
        tamper(Path(bad.folder, "000000.seg"))
        await far.rewind(bad.source, 0)
        log_points(good, 1000)
        await far.has_all(good, "the other one flows")
        assert agent.tail.lanes.keys() >= {good.source}
    good.close(Outcome.SUCCEEDED)
    assert points_of(far.bytes[good.source]) == [float(i) for i in range(1000)]
    assert points_of(far.bytes[bad.source]) == [float(i) for i in range(100)]


FOLDERS: dict[str, Callable[[Home, str], str]] = {
    "a source's spool": lambda home, source: home.spool(source),
    "all spools": lambda home, _: home.spools,
    "flush requests": lambda home, _: home.flush_requests,
    "status files": lambda home, _: os.path.dirname(home.status("any")),
}


@pytest.mark.parametrize("which", FOLDERS)
async def test_a_file_in_the_place_of_a_folder_stops_nobody(
    home: Home, nats_server: NatsServer, serve: Serve, which: str
) -> None:
    """What is logged is shipped, and what is stored is freed, although nothing can be looked for there."""
    bad, good = new_writer(home), new_writer(home)
    async with FarEnd(nats_server.url) as far, serve() as agent:
        log_points(bad, 100)
        spool(home, bad.source, 1, b"a file")
        await far.has_all(bad)
        place = Path(FOLDERS[which](home, bad.source))
        shutil.rmtree(place)
        place.touch()
        looks = agent.tail._looks
        await until(lambda: agent.tail._looks > looks + 20, "it looks again and again")
        log_points(good, 1000)
        good.close(Outcome.SUCCEEDED)
        await far.has_all(good, "the other one flows")
        await until(lambda: not os.path.exists(good.folder), "and is deleted")
        bad.close(Outcome.SUCCEEDED)


async def test_a_disk_that_lists_no_folder_stops_nobody(
    home: Home,
    nats_server: NatsServer,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """EIO, or ESTALE of a server of files: what is known is shipped, nothing is deleted that may still have files, it is told once
    by each that looks, and what is new is found afterwards."""
    failing: list[bool] = []

    def failed(real: Callable[..., Any]) -> Callable[..., Any]:
        def called(path: Any = ".", *arguments: Any, **named: Any) -> Any:
            if failing and str(path).startswith(home.root):
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            return real(path, *arguments, **named)

        return called

    for call in ("listdir", "scandir"):
        monkeypatch.setattr(os, call, failed(getattr(os, call)))
    async with FarEnd(nats_server.url) as far, serve() as agent:
        known = new_writer(home)
        log_points(known, 100)
        await far.has_all(known)
        failing.append(True)
        later = new_writer(home)
        log_points(later, 100)
        name = spool(home, known.source, 1, b"a file")
        log_points(known, 100, 100)
        known.close(Outcome.SUCCEEDED)
        await far.has_all(known)
        await agent.quota.work()
        await agent.retention.work(0)
        assert os.path.exists(known.folder)
        assert later.source not in agent.tail.lanes
        told = [record.getMessage() for record in caplog.records if os.strerror(errno.ESTALE) in record.getMessage()]
        assert len(told) == len({line[:20] for line in told}) >= 4
        failing.clear()
        await far.has_all(later)
        await until(lambda: (known.source, name) in far.done_files, "the file is found, and sent")
        await until(lambda: not os.path.exists(known.folder), "now nothing is left of it")
        later.close(Outcome.SUCCEEDED)


async def test_a_journal_that_cannot_be_watched_or_opened_again_is_refused_and_stops_nobody(
    home: Home, nats_server: NatsServer, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files were closed while it rested, or for its turn to come; by now they are gone, or another release's."""
    gone, newer, good = (new_writer(home) for _ in range(3))
    pulse = JournalReader.pulse

    def pulsed(reader: JournalReader) -> tuple[tuple[int, bytes], ...]:
        if reader.header.source == gone.source:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return pulse(reader)

    monkeypatch.setattr(JournalReader, "pulse", pulsed)
    async with FarEnd(nats_server.url) as far, serve() as agent:
        for writer in (gone, newer):
            log_points(writer, 100)
            await far.has_all(writer)
        lane = agent.tail.lanes[newer.source]
        with Path(newer.folder, "000000.seg").open("r+b") as file:
            file.seek(8)  # behind the magic word: the version
            file.write((99).to_bytes(4, "little"))
        lane.source.sleep()
        assert not await lane.cut(1 << 20, 1)
        assert isinstance(lane.fault, FormatUnknown)
        await until(lambda: len(agent.tail.discovery.refused) == 2, "both are refused")
        log_points(good, 1000)
        await far.has_all(good, "the other one flows")
    for writer in (gone, newer):
        writer.abandon()
    good.close(Outcome.SUCCEEDED)


async def test_a_request_that_cannot_be_taken_away_is_none(home: Home, nats_server: NatsServer, serve: Serve) -> None:
    """A folder among the flush requests would else be one at each look, for ever."""
    async with FarEnd(nats_server.url), serve() as agent:
        os.mkdir(home.flush_request("a" * 32))
        assert agent.tail._take_flush_requests() == set()


def test_a_journal_folder_that_is_a_link_or_open_to_all_is_refused(home: Home, tmp_path: Path) -> None:
    """Whoever may write there could say anything in our name."""
    from headrace_agent.discovery import _open

    writer = new_writer(home)
    writer.close(Outcome.SUCCEEDED)
    elsewhere = tmp_path / writer.source
    os.rename(writer.folder, elsewhere)
    os.symlink(elsewhere, writer.folder)
    with os.scandir(home.journals) as entries, pytest.raises(Corrupt, match="no journal's folder"):
        _open(next(entries))
    os.unlink(writer.folder)
    os.rename(elsewhere, writer.folder)
    os.chmod(writer.folder, 0o777)
    with os.scandir(home.journals) as entries, pytest.raises(Corrupt, match="chmod go-rwx"):
        _open(next(entries))


@pytest.mark.parametrize("folder_of", ["root", "journals", "spools"])
def test_a_home_that_others_may_write_to_is_refused_with_a_remedy(home: Home, folder_of: str) -> None:
    """By trainer and agent alike: both make it before they use it."""
    path = getattr(home, folder_of)
    before = os.stat(path).st_mode
    os.chmod(path, 0o777)
    with pytest.raises(HomeUnusable, match=r"others may write.*chmod -R go-rwx"):
        JournalWriter(home, "a/b", "0" * 32)
    os.chmod(path, before)
    JournalWriter(home, "a/b", "0" * 32).close(Outcome.SUCCEEDED)


def test_somebody_elses_home_is_refused(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also through a link: what counts is whose the folder is."""
    link = f"{home.root}-link"
    os.symlink(home.root, link)
    monkeypatch.setattr("headrace_proto.home.os.geteuid", lambda: 4711)
    with pytest.raises(HomeUnusable, match="belongs to user"):
        JournalWriter(Home(link), "a/b", "0" * 32)


def test_no_pipe_in_the_place_of_a_file_is_waited_for(home: Home) -> None:
    """Mark, companion and spooled file: each is a plain file or nothing."""
    writer = new_writer(home)
    mark = Path(writer.folder, MARK_NAME)
    os.mkfifo(mark)
    assert read_mark(writer.folder) is None
    file = Path(home.spool(writer.source), spool(home, writer.source, 1, b"x"))
    companion = Path(f"{file}{COMPANION_SUFFIX}")
    companion.unlink()
    os.mkfifo(companion)
    assert read_facts(str(file)) is None
    file.unlink()
    os.mkfifo(file)
    reader = JournalReader(writer.folder)
    lane = FileLane(home, reader.header, file.name, None, "local", "run", lambda: None)  # type: ignore[arg-type]
    with pytest.raises(OSError, match="no plain file"):
        lane._read(0, 1)
    reader.close()
    writer.close(Outcome.SUCCEEDED)


def test_a_companion_is_read_to_its_limit_only(home: Home) -> None:
    """A gigabyte of nothing in its place is no gigabyte of memory."""
    source = "0" * 32
    file = Path(home.spool(source), spool(home, source, 1, b"x"))
    os.truncate(f"{file}{COMPANION_SUFFIX}", 1 << 33)
    assert read_facts(str(file)) is None
