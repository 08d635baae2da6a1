"""Two agents with the same journals: whatever forced that, the store holds every event once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import pytest

from headrace_proto.events import Outcome
from headrace_proto.home import Home
from headrace_proto.ids import random_id
from headrace_proto.journal import JournalWriter, SourceFacts
from tests.path.stack import Stack, document, points
from tests.waiting import wait_until

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
            _check(stack, writer.experiment, 2 * MANY)


@pytest.mark.timeout(300)
def test_a_journal_that_was_copied_and_shipped_twice_is_stored_once(tmp_path: Path) -> None:
    """Two agents ship one source at once; its writer goes on and closes it, and the copy of its journal ends in the middle."""
    with Stack(tmp_path) as stack, Writing(stack) as writing:
        stack.environment["HEADRACE_HARDWARE_S"] = "0"
        writing.log(MANY)
        elsewhere = Home(tmp_path / "elsewhere")
        elsewhere.make()
        _copy(stack.home.journal(writing.source), elsewhere.journal(writing.source))
        stack.start()
        flags = ("--nats", stack.nats.url, "--home", elsewhere.root)
        stack._spawn("agent-elsewhere", "headrace_agent", *flags)
        writing.log(2 * MANY)
        writing.close()
        stack.wait_drained()
        gone = "the copy, whose writer is gone, is stored and deleted"
        wait_until(lambda: not os.path.exists(elsewhere.journal(writing.source)), gone, 90)
        _check(stack, writing.experiment, 2 * MANY)


WRITER = """
import sys, time
from headrace_proto.home import Home
from headrace_proto.journal import JournalWriter

writer, first = JournalWriter(Home(sys.argv[1]), sys.argv[2], sys.argv[3]), 0
print(writer.source, flush=True)
for line in sys.stdin:
    for step in range(first, int(line)):
        writer.point("v", float(step), step * 0.5, time.time_ns())
    first = int(line)
    print(first, flush=True)
writer.close("succeeded")
"""


class Writing:
    """A program that writes a journal. While it lives nobody calls any copy of that journal dead."""

    def __init__(self, stack: Stack) -> None:
        self.experiment = random_id()
        command = [sys.executable, "-c", WRITER, stack.home.root, PROJECT, self.experiment]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.source = self._line()

    def _line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()

    def log(self, until: int) -> None:
        """Have all points below `until` logged."""
        assert self._process.stdin
        print(until, file=self._process.stdin, flush=True)
        assert self._line() == str(until)

    def close(self) -> None:
        """Let it close its journal and end."""
        assert self._process.stdin
        self._process.stdin.close()
        assert self._process.wait(60) == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        with self._process:  # closes the pipes
            pass


def _writer(home: Home) -> JournalWriter:
    return JournalWriter(home, PROJECT, random_id(), SourceFacts())


def _copy(folder: str, to: str) -> None:
    """As rsync copies, without the lock: reading that in the writer's own process would free it."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("lock"))
    Path(to, "lock").touch(mode=0o600)


def _log(writer: JournalWriter, first: int, end: int) -> None:
    for step in range(first, end):
        writer.point("v", float(step), step * 0.5, time.time_ns())


def _check(stack: Stack, experiment: str, count: int) -> None:
    facts = document(stack.store, experiment)
    assert facts["channels"]["numeric"]["v"]["count"] == count
    assert points(stack.store, experiment, "v") == [(float(step), step * 0.5) for step in range(count)]
    assert facts["notes"]["lost_bytes"] == 0
    assert facts["state"] == "succeeded"
