"""A home that other hosts see as well, and file systems without locks."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headrace_agent.lock import HomeLock
from headrace_proto import filesystem, ids
from headrace_proto.errors import HomeUnusable
from headrace_proto.events import Outcome
from headrace_proto.home import Home
from headrace_proto.journal import JournalReader, JournalWriter, machine
from tests.proto.journal.reading import Clock, lies_on, points_of, script_on, settle, sources

EXPERIMENT = ids.derived_id("a/b", "shared home")
NODE = os.uname().nodename


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """On NFS."""
    monkeypatch.setattr(filesystem, "kind_of", lies_on("nfs4"))
    return Home(tmp_path / "home")


def on_host(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("headrace_proto.home.os.uname", lambda: os.uname_result(("Linux", name, "6", "1", "x86_64")))


def test_each_host_has_its_part_of_a_home_that_hosts_share(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Journals, spool, status and lock are its own; the store and the settings are everybody's, and the name stays one name."""
    assert home.root == f"{home.named}/hosts/{NODE}"
    assert home.default_store == f"{home.named}/store"
    assert home.settings_file == f"{home.named}/headrace.toml"
    on_host(monkeypatch, "gpu-2.cluster")
    there = Home(home.named)
    assert there.root == f"{home.named}/hosts/gpu-2.cluster"
    assert there.agent_lock != home.agent_lock
    assert Home(home.root).root == home.root  # another host's part, named by a person


@pytest.mark.parametrize(("name", "part"), [("a/../b", "a_.._b"), ("..", "localhost"), ("", "localhost"), ("ü", "ü")])
def test_a_hosts_name_is_no_path(home: Home, monkeypatch: pytest.MonkeyPatch, name: str, part: str) -> None:
    """Whatever the host calls itself, its part lies inside the home."""
    on_host(monkeypatch, name)
    assert Home(home.named).root == f"{home.named}/hosts/{part}"


def test_a_local_home_is_one(tmp_path: Path) -> None:
    """Nothing changes on a disk of one's own."""
    home = Home(tmp_path / "home")
    assert home.root == home.named == str(tmp_path / "home")
    assert not home.is_shared


def test_two_hosts_may_have_an_agent_each(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """One lock for all would let one agent run, and it would not see the others' writers end."""
    home.make()
    on_host(monkeypatch, "gpu-2")
    there = Home(home.named)
    there.make()
    with HomeLock(home), HomeLock(there):
        pass


def test_a_program_is_told_once_that_its_home_is_on_a_network(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    """With the folder that is used, and what is better."""
    for _ in range(2):
        JournalWriter(home, "a/b", EXPERIMENT).close(Outcome.SUCCEEDED)
    told = capsys.readouterr().err  # this suite runs with warnings as errors, which are lines on stderr then
    assert told.count("network file system (nfs4)") == 1
    assert home.root in told
    assert "HEADRACE_HOME" in told


# -- Without locks -------------------------------------------------------------------------------------------------------

NO_LOCKS = """
import errno, fcntl, os, signal, sys
def lockf(*_):
    raise OSError(errno.ENOSYS, "Function not implemented")
fcntl.lockf = lockf
from headrace_proto.home import Home
from headrace_proto.journal import JournalWriter
writer = JournalWriter(Home(sys.argv[1]), "a/b", sys.argv[2])
writer.point("v", 0, 0.5, 1)
if os.fork() == 0:
    writer.point("v", 1, 0.5, 1)
    os._exit(0)
os.wait()
print("there", flush=True)
signal.pause()
"""


def no_locks(*_: Any) -> Any:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def test_without_locks_a_living_process_is_no_dead_writer(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Lustre without `flock`: logging works, and its process, in this very pid namespace, says whether a writer lives."""
    trainer = subprocess.Popen(
        [sys.executable, "-c", script_on("lustre", NO_LOCKS), home.named, EXPERIMENT], stdout=subprocess.PIPE, text=True
    )
    assert trainer.stdout is not None
    with trainer, trainer.stdout:
        assert trainer.stdout.readline() == "there\n"
        monkeypatch.setattr(fcntl, "fcntl", no_locks)
        readers = [JournalReader(home.journal(source)) for source in sources(home)]
        (reader,) = (one for one in readers if one.header.pid == trainer.pid)
        (child,) = (one for one in readers if one is not reader)
        clock = Clock()
        settle(reader, clock)
        settle(child, clock)
        assert not reader.writer_gone(machine.host_name(), machine.boot_id())
        assert child.writer_gone(machine.host_name(), machine.boot_id())
        assert (child.header.role, child.header.parent) == ("worker", reader.header.source)
        trainer.kill()
        trainer.wait()
        assert reader.writer_gone(machine.host_name(), machine.boot_id())
        monkeypatch.setattr(machine, "pid_namespace", lambda: 1)
        assert not reader.writer_gone(machine.host_name(), machine.boot_id())
        assert reader.writer_gone(machine.host_name(), "a later boot")
        for one in readers:
            one.close()
    assert [len(points_of(home, source)) for source in sources(home)] == [1, 1]


def test_a_process_that_proc_hides_is_not_called_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with `hidepid`, for an agent of another user: what cannot be seen may live. Nor is one that nobody could have."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        facts = child.pid, machine.process_start(child.pid), machine.pid_namespace()
        assert not machine.process_gone(*facts)
        with monkeypatch.context() as hidden:
            hidden.setattr(machine, "_first_line", lambda _: "")
            assert not machine.process_gone(*facts)
        child.kill()
    assert machine.process_gone(*facts)
    for made_up in ("1", -1, 0, 1 << 40, None):
        assert not machine.process_gone(made_up, *facts[1:])  # type: ignore[arg-type]


def test_an_agent_without_locks_says_what_to_do(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two could serve the home, so none does."""
    home.make()
    monkeypatch.setattr(fcntl, "lockf", no_locks)
    with pytest.raises(HomeUnusable, match=r"flock.*HEADRACE_HOME"), HomeLock(home):
        pass
