"""The command as people run it: in processes of its own, around a home of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.command.main import invoke
from headrace.command.running import PARTS, Running, log_file, running
from headrace.reading import StoredExperiment, StoredProject
from headrace_proto.home import Home
from headrace_proto.store.backend import open_store
from tests.exports import Exporter
from tests.fixtures_s3 import s3_endpoint, s3_url
from tests.waiting import wait_until

__all__ = ["s3_endpoint", "s3_url"]

COMMAND = (sys.executable, "-m", "headrace.command")
END_S = 60.0


class Up:
    """A `headrace up` in a process of its own."""

    def __init__(self, home: Home, *flags: str) -> None:
        self.home = home
        self.process = subprocess.Popen(
            [*COMMAND, "up", "--home", home.root, *flags], stderr=subprocess.PIPE, text=True
        )

    def ready(self) -> Running:
        """Wait until all its parts have answered."""
        wait_until(lambda: running(self.home) or self.process.poll() is not None, "up serves")
        there = running(self.home)
        assert there is not None, self.ended()
        return there

    def pid(self, part: str) -> int:
        return int(Path(self.home.pid_file(part)).read_text())

    def ended(self) -> str:
        """Wait for its end; what it said."""
        return self.process.communicate(timeout=END_S)[1]

    def stop(self) -> str:
        """Ask it to end, wait; what it said."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.ended()


@pytest.fixture
def up(home: Home) -> Iterator[Callable[..., Up]]:
    """Starts `headrace up` for the test's home; whatever still runs at the end is stopped."""
    started: list[Up] = []

    def start(*flags: str) -> Up:
        started.append(Up(home, *flags))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            said = one.stop()
            logs = "\n".join(f"--- {part}\n{log_of(home, part)[-2000:]}" for part in PARTS)
            assert "killing" not in said, f"{said}\n{logs}"
        assert one.process.stderr
        one.process.stderr.close()


@pytest.fixture
def headrace(home: Home) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command for the test's home, in a process of its own, to its end."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        variables = {**os.environ, "HEADRACE_HOME": home.root, **environment}
        return subprocess.run([*COMMAND, *arguments], env=variables, capture_output=True, text=True, timeout=END_S)

    return run


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the command in this process; its standard output. It has to succeed."""

    def run(*arguments: str) -> str:
        code = invoke(arguments)
        out, err = capfd.readouterr()
        assert (code, err) == (0, "")
        return out

    return run


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the command in this process; its one line on standard error. It has to fail with code 2."""

    def run(*arguments: str) -> str:
        code = invoke(arguments)
        out, err = capfd.readouterr()
        assert (code, out) == (2, "")
        assert len(err.strip().splitlines()) == 1
        return err

    return run


def log_of(home: Home, part: str) -> str:
    """What a part has said."""
    return Path(log_file(home, part)).read_text()


# -- Imports ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def exporter(tmp_path: Path) -> Exporter:
    """An export with nothing in it."""
    return Exporter(tmp_path / "export")


@pytest.fixture
def load(exporter: Exporter, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Imports the export into the test's store; the exit code."""
    monkeypatch.setenv("HEADRACE_HOME", home.root)
    monkeypatch.delenv("HEADRACE_STORE", raising=False)
    store = str(tmp_path / "store")
    return lambda *more: invoke(["import", "neptune", str(exporter.folder), "--store", store, *more])


@pytest.fixture
def stored(tmp_path: Path) -> Callable[..., StoredExperiment]:
    """An experiment of the test's store."""

    def find(wanted: str, project: str = "acme/sandbox") -> StoredExperiment:
        return StoredProject(open_store(str(tmp_path / "store")), project).get_experiment(wanted)

    return find


def everything(store: Path) -> dict[str, bytes]:
    """Every byte of a store."""
    return {str(path.relative_to(store)): path.read_bytes() for path in sorted(store.rglob("*")) if path.is_file()}
