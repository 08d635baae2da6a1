"""The whole path as real processes on one machine, each of which a test may kill and start again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb

from headrace.service.nats_server import NatsServer
from headrace_proto.home import Home
from headrace_proto.journal import JournalReader
from tests.waiting import wait_until

DRAIN_S = 90.0

TRAINER = """
import mmap, sys, time
import headrace as hr

counter, seed, pace_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
with open(counter, "r+b") as file:
    shared = memoryview(mmap.mmap(file.fileno(), 4096)).cast("Q")
exp = hr.init("chaos/killed").create_experiment(
    name=str(seed), upload_source_files=[], upload_stdout=False, upload_stderr=False, send_hardware_metrics=False
)
i = 0
while True:
    exp.log_metric("v", i, seed * 1e7 + i)
    i += 1
    shared[0] = i  # after the call has returned
    if pace_s:
        time.sleep(pace_s)
"""


class Trainer:
    """A process that logs as fast as it can, and an oracle in shared memory: how many of its calls have returned."""

    def __init__(self, folder: Path, environment: dict[str, str], seed: int, pace_s: float = 0.0) -> None:
        self.seed = seed
        self._counter = folder / f"counter-{seed}"
        self._counter.write_bytes(b"\0" * 4096)
        arguments = [sys.executable, "-c", TRAINER, str(self._counter), str(seed), str(pace_s)]
        self.process = subprocess.Popen(arguments, env=environment)

    @property
    def returned(self) -> int:
        """Calls that have returned."""
        return int(struct.unpack_from("<Q", self._counter.read_bytes())[0])

    def kill_after(self, calls: int) -> None:
        """SIGKILL once so many calls have returned."""
        wait_until(lambda: self.returned >= calls or self.process.poll() is not None, f"{calls} calls of the trainer")
        assert self.process.poll() is None, "the trainer ended by itself"
        self.kill()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Stack:
    """nats-server, agent and collector around one home and one store. Nothing runs until it is started.

    The store is the folder `store`, unless another one's URL is given, with what the `environment` has to say of it.
    """

    def __init__(
        self, folder: Path, url: str = "", store_url: str = "", environment: dict[str, str] | None = None
    ) -> None:
        """With the `url` of a broker that somebody else starts, `nats` is never started."""
        self.folder = folder
        self.home = Home(folder / "home")
        self.home.make()
        self.store = folder / "store"
        self.store_url = store_url or str(self.store)
        self.nats = NatsServer(folder / "nats")
        self.url = url or self.nats.url
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self._trainers: list[Trainer] = []
        settings = {"HEADRACE_HOME": self.home.root, "HEADRACE_STORE": self.store_url}
        self.environment = {**os.environ, **(environment or {}), **settings}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            for log in sorted(self.folder.glob("*.log")):
                print(f"--- {log.name}\n{log.read_text()[-3000:]}")
        for trainer in self._trainers:  # a test that failed has not killed them, and they would log for ever
            trainer.kill()
        for name in list(self.children):
            self.kill(name)
        self.nats.stop()

    def start(self) -> None:
        """Start all three."""
        self.nats.start()
        self.start_agent()
        self.start_collector()

    def start_trainer(self, seed: int, pace_s: float = 0.0) -> Trainer:
        """A program that logs until it is killed, by the test or at the end."""
        trainer = Trainer(self.folder, self.environment, seed, pace_s)
        self._trainers.append(trainer)
        return trainer

    def start_agent(self, *flags: str) -> None:
        self._spawn("agent", "headrace_agent", "--nats", self.url, "--home", self.home.root, *flags)

    def start_collector(self, name: str = "collector", *flags: str) -> None:
        self._spawn(name, "headrace_collector", "--nats", self.url, "--store", self.store_url, *flags)

    def _spawn(self, name: str, module: str, *flags: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            arguments = [sys.executable, "-m", module, *flags]
            self.children[name] = subprocess.Popen(arguments, env=self.environment, stdout=log, stderr=log)

    def kill(self, name: str) -> None:
        """SIGKILL."""
        child = self.children.pop(name)
        child.kill()
        child.wait()

    def signal(self, name: str, number: signal.Signals) -> None:
        """SIGSTOP, SIGCONT."""
        self.children[name].send_signal(number)

    def stop(self, name: str) -> int:
        """SIGTERM, and wait; the exit status."""
        child = self.children.pop(name)
        child.send_signal(signal.SIGTERM)
        return child.wait(30)

    def wait_stored(self, trainer: Trainer, calls: int) -> None:
        """Waits until so many of a trainer's calls are stored."""
        wait_until(
            lambda: self.stored(trainer) >= calls, f"{calls} calls of trainer {trainer.seed} are stored", DRAIN_S
        )

    def stored(self, trainer: Trainer) -> int:
        """How many of a trainer's calls are stored."""
        for experiment in experiments(self.store):
            with contextlib.suppress(FileNotFoundError):
                facts = document(self.store, experiment)
                if facts["name"] == str(trainer.seed):
                    return int(facts["channels"]["numeric"].get("v", {}).get("count", 0))
        return 0

    def drained(self) -> bool:
        """Whether every journal is stored: an agent deletes those that are ended and stored."""
        return not any(not name.startswith(".") for name in os.listdir(self.home.journals))

    def wait_drained(self) -> None:
        wait_until(self.drained, "every journal is stored and deleted", DRAIN_S)


def document(store: Path, experiment: str, project: str = "chaos/killed") -> dict[str, Any]:
    """experiment.json, as anyone would read it."""
    text = (store / project / "experiments" / experiment / "experiment.json").read_text()
    return dict(json.loads(text))


def experiments(store: Path, project: str = "chaos/killed") -> list[str]:
    """The experiments of a project, as its folders say."""
    folder = store / project / "experiments"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def points(store: Path, experiment: str, channel: str, project: str = "chaos/killed") -> list[tuple[float, float]]:
    """(step, value) of a channel by step, read by DuckDB from the parts that experiment.json lists, and by nothing of ours."""
    folder = store / project / "experiments" / experiment
    parts = [str(folder / part) for part in parts_of(document(store, experiment, project))]
    if not parts:
        return []
    query = "SELECT step, value FROM read_parquet(?) WHERE channel = ? ORDER BY step, time"
    return duckdb.execute(query, [parts, channel]).fetchall()


def parts_of(facts: dict[str, Any], kind: str = "numeric") -> list[str]:
    """The live parts of a kind that an experiment.json lists."""
    return [str(part) for part in facts["parts"][kind]]


def check_stored(store: Path, trainers: list[Trainer]) -> None:
    """Every event whose call returned is in the store, once, equal and in order; the one in flight may be there too."""
    found = {int(document(store, experiment)["name"]): experiment for experiment in experiments(store)}
    assert sorted(found) == sorted(trainer.seed for trainer in trainers)
    numbers = set()
    for trainer in trainers:
        facts = document(store, found[trainer.seed])
        stored = points(store, found[trainer.seed], "v")
        assert stored == [(float(i), trainer.seed * 1e7 + i) for i in range(len(stored))]
        assert trainer.returned <= len(stored) <= trainer.returned + 1
        assert facts["state"] == "failed", "a trainer killed by SIGKILL did not stop by itself"
        assert facts["notes"]["lost_bytes"] == 0
        numbers.add(facts["id"])
    assert numbers == {f"KIL-{n + 1}" for n in range(len(trainers))}


def journal_ends(home: Home) -> dict[str, int]:
    """How far each journal under the home goes."""
    ends = {}
    for name in os.listdir(home.journals):
        if not name.startswith("."):
            reader = JournalReader(home.journal(name))
            ends[name] = reader.end
            reader.close()
    return ends


def retry(action: Callable[[], None]) -> Callable[[], bool]:
    """A condition that holds once `action` runs without an AssertionError or a missing file."""

    def holds() -> bool:
        try:
            action()
        except (AssertionError, FileNotFoundError):
            return False
        return True

    return holds
