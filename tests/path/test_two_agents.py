"""Two agents with the same journals: whatever forced that, the store holds every event once."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from headrace_proto.events import Outcome
from headrace_proto.home import Home
from headrace_proto.ids import random_id
from headrace_proto.journal import JournalWriter, SourceFacts
from tests.waiting import wait_until

from .stack import Stack, document, points

PROJECT = "chaos/killed"
MANY = 150_000


@pytest.mark.timeout(300)
def test_two_agents_forced_on_one_home_store_everything_once(tmp_path: Path) -> None:
    """Somebody removed the lock: both ship, both trim, and one of them deletes what is stored."""
    with Stack(tmp_path) as stack:
        stack.environment["HEADRACE_HARDWARE_S"] = "0"
        writers = [_writer(stack.home) for _ in range(3)]
        for writer in writers:
            _log(writer, 0, MANY)
        stack.start()
        wait_until(lambda: os.path.exists(stack.home.agent_lock), "the first agent serves")
        first = stack.children.pop("agent")
        stack.children["agent-1"] = first
        os.unlink(stack.home.agent_lock)
        stack.start_agent()
        wait_until(lambda: os.path.exists(stack.home.agent_lock), "the second agent serves")
        for writer in writers:
            _log(writer, MANY, 2 * MANY)
            writer.close(Outcome.SUCCEEDED)
        stack.wait_drained()
        assert first.poll() is None
        for writer in writers:
            _check(stack, writer, 2 * MANY)


@pytest.mark.timeout(300)
def test_a_journal_that_was_copied_and_shipped_twice_is_stored_once(tmp_path: Path) -> None:
    """Two machines ship the same source at once; the writer goes on at one of them, and the other's copy ends in the middle."""
    with Stack(tmp_path) as stack:
        stack.environment["HEADRACE_HARDWARE_S"] = "0"
        writer = _writer(stack.home)
        _log(writer, 0, MANY)
        elsewhere = Home(tmp_path / "elsewhere")
        elsewhere.make()
        _copy(writer.folder, elsewhere.journal(writer.source))
        stack.start()
        flags = ("--nats", stack.nats.url, "--home", elsewhere.root)
        stack._spawn("agent-elsewhere", "headrace_agent", *flags)
        _log(writer, MANY, 2 * MANY)
        gone = "the copy is stored, and deleted"
        wait_until(lambda: not os.path.exists(elsewhere.journal(writer.source)), gone, 90)
        _log(writer, 2 * MANY, 2 * MANY + 100)
        writer.close(Outcome.SUCCEEDED)
        stack.wait_drained()
        _check(stack, writer, 2 * MANY + 100)


def _writer(home: Home) -> JournalWriter:
    return JournalWriter(home, PROJECT, random_id(), SourceFacts())


def _copy(folder: str, to: str) -> None:
    """As rsync copies, without the lock: reading that in the writer's own process would free it."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("lock"))
    Path(to, "lock").touch(mode=0o600)


def _log(writer: JournalWriter, first: int, end: int) -> None:
    for step in range(first, end):
        writer.point("v", float(step), step * 0.5, time.time_ns())


def _check(stack: Stack, writer: JournalWriter, count: int) -> None:
    facts = document(stack.store, writer.experiment)
    assert facts["channels"]["numeric"]["v"]["count"] == count
    assert points(stack.store, writer.experiment, "v") == [(float(step), step * 0.5) for step in range(count)]
    assert facts["notes"]["lost_bytes"] == 0
    assert facts["state"] == "succeeded"
