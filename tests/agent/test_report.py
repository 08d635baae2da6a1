"""Status files: soon for whoever waits, now and then for whoever looks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headrace_agent import report
from headrace_agent.budget import Budget
from headrace_agent.report import Reporter
from headrace_agent.source import Source
from headrace_proto.home import Home
from headrace_proto.journal import JournalReader
from headrace_proto.limits import MIB
from headrace_proto.messages import Mark
from headrace_proto.status import read_status
from tests.agent.conftest import new_writer
from tests.waiting import until


@pytest.fixture
async def source(home: Home) -> AsyncIterator[Source]:
    """One whose first status is written."""
    writer = new_writer(home)
    made = Source(JournalReader(writer.folder), Budget(MIB), None, 1)
    yield made
    made.sleep()
    writer.close("succeeded")


@contextlib.asynccontextmanager
async def reporting(home: Home) -> AsyncIterator[Reporter]:
    """A reporter at work."""
    reporter = Reporter(home)
    task = asyncio.create_task(reporter.run())
    try:
        yield reporter
    finally:
        task.cancel()
        await asyncio.wait([task])


def stored(home: Home, source: Source) -> int:
    """What the status file says."""
    status = read_status(home.status(source.header.experiment))
    return status.sources[source.id].stored if status else -1


def marked(reporter: Reporter, source: Source, position: int, short_id: str = "") -> None:
    """The store's word has come."""
    source.marked(Mark("s", source.header.experiment, source.id, position, position, short_id))
    reporter.changed(source)


async def test_a_status_is_told_soon_to_who_waits(home: Home, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first word, a short id and whatever a trainer has asked for are written at once; all else when its time has come."""
    monkeypatch.setattr(report, "SELDOM_S", 3600.0)
    async with reporting(home) as reporter:
        reporter.changed(source)
        await until(lambda: stored(home, source) == 0, "the first word")
        marked(reporter, source, 1, "DIG-1")
        await until(lambda: stored(home, source) == 1, "the short id")
        marked(reporter, source, 2, "DIG-1")
        assert stored(home, source) == 1
        source.asked_to_flush()
        reporter.awaited()
        await until(lambda: stored(home, source) == 2, "what is waited for")
    assert read_status(home.status(source.header.experiment)) is not None


async def test_what_nobody_waits_for_is_written_in_the_end(
    home: Home, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """News that were held back are in the file when the agent ends, and when their time comes."""
    monkeypatch.setattr(report, "SELDOM_S", 0.2)
    async with reporting(home) as reporter:
        marked(reporter, source, 1, "DIG-1")
        marked(reporter, source, 2, "DIG-1")
        await until(lambda: stored(home, source) == 2, "its time comes")
        marked(reporter, source, 3, "DIG-1")
        await until(lambda: stored(home, source) == 3, "its time comes again")
        monkeypatch.setattr(report, "SELDOM_S", 3600.0)
        marked(reporter, source, 4, "DIG-1")
    assert stored(home, source) == 4


async def test_what_could_not_be_written_is_written_when_somebody_waits(home: Home, source: Source) -> None:
    """Nothing has changed since: the disk was full for a moment, or, as here, no file could be made."""
    folder = os.path.dirname(home.status("any"))
    os.rename(folder, f"{folder}.away")
    Path(folder).touch()
    async with reporting(home) as reporter:
        marked(reporter, source, 1, "DIG-1")
        await until(lambda: reporter._written_s, "it has tried")
        os.unlink(folder)
        reporter.remove_old(0.0)  # nor does that mind
        assert stored(home, source) == -1
        source.asked_to_flush()
        reporter.awaited()
        await until(lambda: stored(home, source) == 1, "it has tried again")


async def test_the_folder_of_status_files_is_made_again_but_not_the_home(home: Home, source: Source) -> None:
    """Somebody cleared it away while trainers run. Whoever removes the whole home means it."""
    async with reporting(home) as reporter:
        marked(reporter, source, 1, "DIG-1")
        await until(lambda: stored(home, source) == 1, "the first word")
        shutil.rmtree(os.path.dirname(home.status("any")))
        marked(reporter, source, 2, "DIG-1")
        reporter.write_changed()
        assert stored(home, source) == 2
        os.rename(home.root, f"{home.root}.away")
        marked(reporter, source, 3, "DIG-1")
        reporter.write_changed()
        assert not os.path.exists(home.root)
        os.rename(f"{home.root}.away", home.root)


async def test_statuses_that_have_waited_long_are_written_together(
    home: Home, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight experiments wake the agent once in a while, not eight times; one whose file is new goes on waiting."""
    monkeypatch.setattr(report, "SELDOM_S", 3600.0)
    writers = [new_writer(home) for _ in range(2)]
    half, new = (Source(JournalReader(writer.folder), Budget(MIB), None, 1) for writer in writers)
    async with reporting(home) as reporter:
        for one in (source, half, new):
            marked(reporter, one, 1)
        await until(lambda: all(stored(home, one) == 1 for one in (source, half, new)), "the first word on each")
        reporter._written_s[half.header.experiment] -= 2000.0
        marked(reporter, half, 2)
        marked(reporter, new, 2)
        await asyncio.sleep(0.1)
        assert stored(home, half) == 1
        reporter._written_s[source.header.experiment] -= 3600.0
        marked(reporter, source, 2)
        await until(lambda: stored(home, source) == stored(home, half) == 2, "those that have waited")
        assert stored(home, new) == 1
    for writer, one in zip(writers, (half, new), strict=True):
        one.sleep()
        writer.close("succeeded")


async def test_a_status_is_not_late_because_another_has_time(
    home: Home, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has its own time, which is not that of whichever changed first."""
    monkeypatch.setattr(report, "SELDOM_S", 3600.0)
    writer = new_writer(home)
    other = Source(JournalReader(writer.folder), Budget(MIB), None, 1)
    async with reporting(home) as reporter:
        marked(reporter, source, 1)
        marked(reporter, other, 1)
        await until(lambda: stored(home, source) == stored(home, other) == 1, "the first word on both")
        marked(reporter, source, 2)
        await asyncio.sleep(0.1)  # it waits for an hour now
        reporter._written_s[other.header.experiment] -= 3599.8
        marked(reporter, other, 2)
        await until(lambda: stored(home, other) == 2, "that whose time comes")
        assert stored(home, source) == 1
    other.sleep()
    writer.close("succeeded")
