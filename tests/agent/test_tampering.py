"""Journals that somebody tampers with: refused or set aside with a reason, nothing waited for, and the other sources flow on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.service.nats_server import NatsServer
from headrace_agent.marks import MARK_NAME, read_mark
from headrace_agent.spoolfile import FileLane
from headrace_proto.errors import Corrupt, HomeUnusable
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
