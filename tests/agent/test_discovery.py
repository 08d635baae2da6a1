"""Finding journals: none is overlooked, however many appear at once."""

from __future__ import annotations

import os
import shutil
import time

import pytest

from headrace_agent import discovery
from headrace_agent.discovery import FULL_SCAN_NS, Discovery
from headrace_proto.events import Outcome
from headrace_proto.home import Home
from headrace_proto.journal import JournalReader, JournalWriter
from tests.agent.conftest import new_writer

LOOK_NS = FULL_SCAN_NS  # any time that is not before the first full scan


def test_journals_that_appear_within_one_time_stamp_are_found_by_the_next_look(home: Home) -> None:
    """The kernel's stamps are up to 10 ms apart, and the bell has the folder looked into at once: ranks start together."""
    looking, writers = Discovery(home), list[JournalWriter]()
    stamp_ns = time.time_ns()
    for known in range(3):
        writers.append(new_writer(home))
        os.utime(home.journals, ns=(stamp_ns, stamp_ns))
        found = list(looking.look({writer.source for writer in writers[:known]}, LOOK_NS))
        assert [reader.header.source for reader in found] == [writers[-1].source]
        found[0].close()
    for writer in writers:
        writer.close(Outcome.SUCCEEDED)


def test_a_folder_that_has_not_changed_for_a_while_is_not_listed_again(home: Home) -> None:
    """Its time of change is believed until the next full scan."""
    looking, writer = Discovery(home), new_writer(home)
    long_ago_ns = time.time_ns() - 3600 * 10**9
    os.utime(home.journals, ns=(long_ago_ns, long_ago_ns))
    list(looking.look({writer.source}, LOOK_NS))
    os.rename(writer.folder, f"{writer.folder}.away")
    os.rename(f"{writer.folder}.away", writer.folder)
    os.utime(home.journals, ns=(long_ago_ns, long_ago_ns))
    assert list(looking.look(set(), LOOK_NS + 1)) == []
    (found,) = looking.look(set(), LOOK_NS + FULL_SCAN_NS)
    found.close()
    writer.close(Outcome.SUCCEEDED)


def test_a_journal_that_vanishes_while_it_is_opened_is_nobodys_business(
    home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A trainer in direct mode stores and deletes its own: between the listing and the opening it may be gone, or half gone."""
    gone, half_gone, damaged = (new_writer(home) for _ in range(3))
    real = discovery._open

    def opened(entry: os.DirEntry[str]) -> JournalReader:
        if entry.name == gone.source:
            shutil.rmtree(entry.path)
        if entry.name == half_gone.source:
            os.unlink(os.path.join(entry.path, "000000.seg"))
        try:
            return real(entry)
        finally:
            if entry.name == half_gone.source:
                shutil.rmtree(entry.path)

    monkeypatch.setattr(discovery, "_open", opened)
    os.unlink(os.path.join(damaged.folder, "000000.seg"))
    looking = Discovery(home)
    assert list(looking.look(set(), LOOK_NS)) == []
    assert list(looking.refused) == [damaged.source]
    assert [damaged.source in record.getMessage() for record in caplog.records] == [True]
    for writer in (gone, half_gone, damaged):
        writer.abandon()
