"""Whether a collector is dead, as far as its machine can tell: certain, or not at all."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from headrace_collector.process import UNKNOWN, Process
from headrace_proto.journal.machine import process_start
from tests.waiting import wait_until


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits for its end."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def process_of(child: subprocess.Popen[bytes]) -> Process:
    return Process.own()._replace(pid=child.pid, started=process_start(child.pid))


def test_who_lives_is_not_gone(child: subprocess.Popen[bytes]) -> None:
    """Neither this process nor another that runs is taken for dead."""
    assert not Process.own().gone
    assert not process_of(child).gone


def test_killed_one_is_gone_at_once(child: subprocess.Popen[bytes]) -> None:
    """Before its parent has asked for it, and afterwards."""
    other = process_of(child)
    child.kill()
    wait_until(lambda: other.gone, "it is seen that it was killed")
    child.wait()
    assert other.gone


def test_another_process_under_its_pid_does_not_hide_its_death(child: subprocess.Popen[bytes]) -> None:
    """Pids are given anew: one that started at another time is somebody else."""
    assert process_of(child)._replace(started=process_start(child.pid) - 1).gone


@pytest.mark.parametrize(
    "elsewhere", [{"boot": "another"}, {"namespace": 1}, {"boot": ""}, {"pid": -1}, {"pid": 1 << 40}]
)
def test_nobody_is_dead_who_cannot_be_seen(child: subprocess.Popen[bytes], elsewhere: dict[str, object]) -> None:
    """A process of another machine, boot or container is never called dead, nor one that cannot be."""
    other = process_of(child)
    child.kill()
    child.wait()
    assert not other._replace(**elsewhere).gone  # type: ignore[arg-type]
    assert not UNKNOWN.gone
