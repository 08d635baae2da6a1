"""Programs that close descriptors which are not theirs, as daemons do (os.closerange)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from headrace_proto import ids
from headrace_proto.events import Kind
from headrace_proto.home import Home
from headrace_proto.journal import JournalReader, lock, machine
from headrace_proto.journal.layout import LOCK_NAME
from tests.proto.journal.reading import Clock, events_of, points_of, script_on, settle, sources

EXPERIMENT = ids.derived_id("a/b", "descriptor tests")
COUNT = 100_000
"""Points that roll over the first segments."""

DAEMON = """
import os, sys
from headrace_proto.home import Home
from headrace_proto.journal import JournalWriter

home, experiment, count, theirs = sys.argv[1:]
writer = JournalWriter(Home(home), "a/b", experiment)
writer.point("v", 0, 0.0, 1)
os.closerange(3, 1024)
files = [os.open(f"{theirs}.{i}", os.O_RDWR | os.O_CREAT, 0o600) for i in range(12)]  # with the numbers that were ours
for file in files:
    os.write(file, b"theirs")
print("closed", flush=True)
sys.stdin.readline()
for i in range(1, int(count)):
    writer.point("v", i, i * 0.5, 1)
print("logged", flush=True)
sys.stdin.readline()
writer.close("succeeded")
for file in files:
    os.fstat(file)  # still open
print(writer.source, writer.dropped)
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


class Daemon:
    """The program above, one step at a time."""

    def __init__(self, home: Home, kind: str, theirs: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", script_on(kind, DAEMON), home.named, EXPERIMENT, str(COUNT), str(theirs)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def test_a_program_that_closes_our_descriptors_loses_nothing_and_keeps_its_own(
    kind: str, home: Home, tmp_path: Path
) -> None:
    """The lock is taken again, every event is there, and not a byte or a descriptor of the program's own files is touched."""
    daemon = Daemon(home, kind, tmp_path / "theirs")
    try:
        assert daemon.says() == "closed"
        (source,) = sources(home)
        path = os.path.join(home.journal(source), LOCK_NAME)
        assert lock.holder(path) is None
        daemon.go_on()
        assert daemon.says() == "logged"
        assert lock.holder(path) == daemon.process.pid
        daemon.go_on()
        assert daemon.says() == f"{source} 0"
        assert daemon.process.wait(30) == 0
    finally:
        daemon.end()
    assert points_of(home, source) == [(float(i), i * 0.5) for i in range(COUNT)]
    assert events_of(home, source)[-1][0] == Kind.CLOSED
    assert {file.read_bytes() for file in tmp_path.glob("theirs.*")} == {b"theirs"}


def test_a_living_program_without_its_lock_is_not_dead(home: Home, tmp_path: Path) -> None:
    """It has its journal mapped, which an agent beside it sees; killed, it is dead at once."""
    daemon = Daemon(home, "ext4", tmp_path / "theirs")
    try:
        assert daemon.says() == "closed"
        (source,) = sources(home)
        reader, clock = JournalReader(home.journal(source)), Clock()
        settle(reader, clock)
        assert not reader.writer_gone(machine.host_name(), machine.boot_id())
    finally:
        daemon.end()
    assert reader.writer_gone(machine.host_name(), machine.boot_id())
    reader.close()


def test_a_journal_that_was_freed_meanwhile_is_begun_anew(kind: str, home: Home, tmp_path: Path) -> None:
    """Where an agent could only see that the lock was free: the program goes on as a new source in the same role."""
    daemon = Daemon(home, kind, tmp_path / "theirs")
    try:
        assert daemon.says() == "closed"
        (source,) = sources(home)
        shutil.rmtree(home.journal(source))
        daemon.go_on()
        assert daemon.says() == "logged"
        daemon.go_on()
        (again,) = sources(home)
        assert daemon.says().split()[0] == again
    finally:
        daemon.end()
    events = events_of(home, again)
    assert events[0][2]["role"] == "owner"
    steps = [event[2] for event in events if event[0] == Kind.POINT]
    assert steps == [float(i) for i in range(int(steps[0]), COUNT)]
    assert steps[0] < 1000  # it was noticed within a block
