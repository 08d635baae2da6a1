"""`headrace ship --dead`: a person's word about programs of other hosts."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import pytest

from headrace.command.main import USAGE, invoke
from headrace_proto.events import Outcome
from headrace_proto.home import Home
from headrace_proto.ids import random_id
from headrace_proto.journal import JournalReader, JournalWriter, machine
from headrace_proto.journal.layout import DEATH_NAME

REST_NS = 3_000_000_000


def journal(home: Home, monkeypatch: pytest.MonkeyPatch, host: str = "", boot: str = "") -> JournalWriter:
    """A journal with a point, as a program of `host` in its `boot` left it; of this one without."""
    with monkeypatch.context() as patch:
        if host:
            patch.setattr(machine, "host_name", lambda: host)
        if boot:
            patch.setattr(machine, "boot_id", lambda: boot)
        writer = JournalWriter(home, "tests/ship", random_id())
    writer.point("loss", 0.0, 1.0, time.time_ns())
    return writer


def marker(writer: JournalWriter) -> Path:
    return Path(writer.folder) / DEATH_NAME


def test_declared_programs_are_gone_for_the_agent(
    home: Home, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A journal of another host proves nothing before, and its writer's end after."""
    carried = journal(home, monkeypatch, "node-7/abc", "its boot")
    reader = JournalReader(carried.folder)
    try:
        for now_ns in (0, REST_NS):
            reader.poll(now_ns)
        assert not reader.writer_gone(machine.host_name(), machine.boot_id())
        assert invoke(["ship", "--dead", "--yes", "--home", home.root]) == 0
        assert reader.writer_gone(machine.host_name(), machine.boot_id())
    finally:
        reader.close()
    said = capfd.readouterr().out
    assert "node-7/abc" in said
    assert "lost range" in said
    assert "1 declared dead" in said
    assert invoke(["ship", "--dead", "--home", home.root]) == 0
    assert "nothing waits" in capfd.readouterr().out


def test_only_open_journals_of_other_hosts_are_asked_about(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of this machine the agent finds out by itself, and a journal that was closed needs nobody's word."""
    ours = journal(home, monkeypatch)
    before = journal(home, monkeypatch, boot="the boot before")
    container = journal(home, monkeypatch, host="a container of this machine")
    ended = journal(home, monkeypatch, "node-7/abc", "its boot")
    ended.close(Outcome.SUCCEEDED)
    carried = journal(home, monkeypatch, "node-8/def", "its boot")
    assert invoke(["ship", "--dead", "--yes", "--home", home.root]) == 0
    assert [marker(writer).exists() for writer in (ours, before, container, ended, carried)] == [False] * 4 + [True]
    assert os.stat(marker(carried)).st_mode & 0o777 == 0o600


@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_nothing_is_declared_without_a_yes(home: Home, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    """What is called lost is not read again: a hasty Enter, or a script without a terminal, declares nothing."""
    carried = journal(home, monkeypatch, "node-7/abc", "its boot")
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    assert invoke(["ship", "--dead", "--home", home.root]) == 1
    assert not marker(carried).exists()


def test_the_command_says_that_shipping_is_the_agents(home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    """Without --dead there is nothing that it does."""
    assert invoke(["ship", "--home", home.root]) == USAGE
    assert "headrace agent" in capfd.readouterr().err
