"""`headrace abort`: over a real broker, to real processes really ended, and what the store says of them afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import headrace as hr
from headrace.reading import StoredExperiment, StoredProject
from headrace_proto.home import Home
from headrace_proto.ids import random_id
from headrace_proto.messages import SourceState
from tests.command.conftest import COMMAND, END_S, Up
from tests.processes import is_alive
from tests.waiting import wait_until

PROJECT = "work/abort"
TRAINER = """
import os, signal, subprocess, sys, time
import headrace as hr
def create(**more):
    quiet = dict(upload_source_files=[], git_info=False, upload_stdout=False, upload_stderr=False, send_hardware_metrics=False)
    return hr.init("work/abort").create_experiment(**{**quiet, **more})
def ready(*words):
    print("ready", *words, flush=True)
"""
SLEEP = "exp.log_metric('v', 1)\nready(exp.internal_id)\nwhile True: time.sleep(0.05)\n"


class Trainer:
    """A program in a process of its own, that has said it is ready."""

    def __init__(self, home: Home, body: str, **environment: str) -> None:
        variables = {**os.environ, "HEADRACE_HOME": home.root, **environment}
        command = [sys.executable, "-c", TRAINER + body]
        self.process = subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        self.words = self.process.stdout.readline().split()[1:]

    @property
    def experiment(self) -> str:
        return self.words[0]

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()


class Place(NamedTuple):
    """A home that an `up` serves."""

    home: Home
    up: Up

    def command(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the command to its end."""
        variables = {**os.environ, "HEADRACE_HOME": self.home.root, **environment}
        return subprocess.run([*COMMAND, *arguments], env=variables, capture_output=True, text=True, timeout=END_S)

    def wait_known(self, experiment: str) -> None:
        """Wait until the store has it: then an agent has found it."""
        wait_until(lambda: any(one.internal_id == experiment for one in self.stored()), "it is stored")

    def stored(self) -> StoredProject:
        return StoredProject(self.home.default_store, PROJECT)

    def wait_state(self, experiment: str, state: str) -> StoredExperiment:
        """The experiment, once the store says that it is in this state."""
        found: list[StoredExperiment] = []

        def arrived() -> bool:
            found[:] = [one for one in self.stored() if one.internal_id == experiment]
            return bool(found) and found[0].state == state

        wait_until(arrived, f"the store has {experiment} as {state}")
        found[0].refresh()
        return found[0]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One `up` for all tests of this file: each has an experiment of its own."""
    home = Home(tmp_path_factory.mktemp("place") / "home")
    up = Up(home)
    up.ready()
    yield Place(home, up)
    up.stop()


@pytest.fixture
def train(place: Place) -> Iterator[Callable[..., Trainer]]:
    """Starts programs; those that still run at the end are killed."""
    started: list[Trainer] = []

    def start(body: str, at: Home = place.home, **environment: str) -> Trainer:
        started.append(Trainer(at, body, **environment))
        return started[-1]

    yield start
    for trainer in started:
        trainer.end()


Train = Callable[..., Trainer]


def answers(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return list(json.loads(done.stdout))


# -- By signals ------------------------------------------------------------------------------------------------------------


def test_abort_ends_a_process_and_its_children_and_the_store_says_aborted(place: Place, train: Train) -> None:
    """SIGTERM to all of them; the trainer, which has no handler, dies without a word, and is aborted all the same, and why."""
    child = "import subprocess, sys, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"
    body = (
        "exp = create(name='signalled')\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE, text=True)\n"
        "grandchild = child.stdout.readline().strip()\n"
        "exp.log_metric('v', 1)\nready(exp.internal_id, child.pid, grandchild)\ntime.sleep(600)\n"
    )
    trainer = train(body)
    place.wait_known(trainer.experiment)
    done = place.command("abort", trainer.experiment, "--reason", "the loss diverged, password=hunter2")
    assert done.returncode == 0, done.stderr
    assert trainer.process.wait(30) == -signal.SIGTERM
    assert not any(is_alive(int(pid)) for pid in trainer.words[1:])
    assert "ended, by SIGTERM" in done.stdout
    assert "with 2 children" in done.stdout
    found = place.wait_state(trainer.experiment, "aborted")
    [source] = [one for one in found.record.sources.values() if one.role == "owner"]
    assert source.state == "aborted"
    assert source.detail
    assert source.detail.endswith(": the loss diverged, password=***")  # secrets are masked in it, too
    assert found.record.traceback is None
    shown = place.command("show", found.id)
    assert "the loss diverged" in shown.stdout


def test_what_ignores_sigterm_is_killed_after_the_grace(place: Place, train: Train) -> None:
    """By its short id, which the agents know; the answer says that it took SIGKILL."""
    trainer = train(f"signal.signal(15, signal.SIG_IGN)\nexp = create()\n{SLEEP}")
    place.wait_known(trainer.experiment)
    short_id = place.stored().get_experiment(trainer.experiment).id
    done = place.command("abort", short_id, "--grace", "0.5", "--json")
    assert done.returncode == 0, done.stderr
    [answer] = answers(done)
    assert (answer["state"], answer["pid"], answer["short_id"]) == (SourceState.KILLED, trainer.process.pid, short_id)
    assert trainer.process.wait(30) == -signal.SIGKILL
    place.wait_state(trainer.experiment, "aborted")


def test_a_handler_of_sigterm_ends_the_run_in_its_own_way_and_it_is_aborted(place: Place, train: Train) -> None:
    """What it logs while it ends is kept, and its `sys.exit(143)` is no failure."""
    body = (
        "exp = create()\n"
        "def on_term(*_):\n"
        "    exp.log_metric('saved', 1)\n"
        "    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, on_term)\n"
    )
    trainer = train(body + SLEEP)
    place.wait_known(trainer.experiment)
    assert place.command("abort", trainer.experiment[:12]).returncode == 0  # by the beginning of its id, from the store
    assert trainer.process.wait(30) == 143
    found = place.wait_state(trainer.experiment, "aborted")
    assert found.metrics["saved"] == 1.0


def test_every_rank_answers_whatever_agent_it_has(place: Place, train: Train, tmp_path: Path) -> None:
    """Two ranks on this home, one on another with an agent of its own, at another site: three answers, one state."""
    other = Home(tmp_path / "other-node")
    other.make()
    there = place.up.ready()
    agent = subprocess.Popen(
        [sys.executable, "-m", "headrace_agent", "--home", other.root, "--nats", there.nats, "--site", "hall-4"],
        stderr=subprocess.DEVNULL,
    )
    try:
        rank = f"exp = create(key='the-run', rank=int(os.environ['RANK']))\n{SLEEP}"
        trainers = [train(rank, RANK="0"), train(rank, RANK="1"), train(rank, other, RANK="2")]
        [experiment] = {trainer.experiment for trainer in trainers}

        def all_known() -> bool:
            ranks = [one.record for one in place.stored()]
            return any({source.rank for source in record.sources.values()} >= {0, 1, 2} for record in ranks)

        wait_until(all_known, "three ranks are stored")
        done = place.command("abort", experiment, "--json")
        assert done.returncode == 0, done.stderr
        assert sorted((one["rank"], one["site"], one["state"]) for one in answers(done)) == [
            (0, "local", SourceState.ENDED),
            (1, "local", SourceState.ENDED),
            (2, "hall-4", SourceState.ENDED),
        ]
        assert [trainer.process.wait(30) for trainer in trainers] == [-signal.SIGTERM] * 3
        place.wait_state(experiment, "aborted")
    finally:
        agent.terminate()
        agent.wait(30)


# -- By a callback ---------------------------------------------------------------------------------------------------------


def test_a_callback_is_called_instead_of_signals(place: Place, train: Train) -> None:
    """It asks the loop to end; the run logs what it likes until then, and is aborted. Its forked child is left to it, too."""
    body = (
        "import threading\n"
        "flag = threading.Event()\n"
        "exp = create(abort_callback=flag.set)\n"
        "signal.signal(signal.SIGTERM, lambda *_: os._exit(9))\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    exp.log_metric('child', 1)\n"
        "    time.sleep(600)\n"
        "exp.log_metric('v', 1)\nready(exp.internal_id, child)\n"
        "flag.wait()\n"
        "exp.log_metric('saved', 1)\n"
        "os.kill(child, 9)\n"
    )
    trainer = train(body, PYTHONWARNINGS="ignore::DeprecationWarning")
    place.wait_known(trainer.experiment)
    done = place.command("abort", trainer.experiment, "--json")
    assert done.returncode == 0, done.stderr
    assert {one["state"] for one in answers(done)} <= {SourceState.CALLED, SourceState.ENDED}
    assert not any("SIG" in one["text"] for one in answers(done))
    assert trainer.process.wait(30) == 0
    found = place.wait_state(trainer.experiment, "aborted")
    assert found.metrics["saved"] == 1.0


def test_a_callback_that_raises_is_told(place: Place, train: Train) -> None:
    """The command says so and fails; the process lives on, and may be asked again."""
    body = (
        "calls = []\n"
        "def callback():\n"
        "    calls.append(1)\n"
        "    if len(calls) == 1: raise ValueError('not now')\n"
        "    os._exit(7)\n"
        "exp = create(abort_callback=callback)\n"
    )
    trainer = train(body + SLEEP)
    place.wait_known(trainer.experiment)
    done = place.command("abort", trainer.experiment)
    assert done.returncode == 1
    assert "refused, its abort_callback raised ValueError: not now" in done.stdout
    assert is_alive(trainer.process.pid)
    done = place.command("abort", trainer.experiment, "--json")
    assert [one["state"] for one in answers(done)] == [SourceState.ENDED]
    assert trainer.process.wait(30) == 7
    place.wait_state(trainer.experiment, "aborted")


# -- When nobody is there --------------------------------------------------------------------------------------------------


def test_nobody_answers_for_an_experiment_that_no_agent_knows(place: Place) -> None:
    """Said plainly, with what may be the reason; exit code 2."""
    experiment = random_id()
    done = place.command("abort", experiment)
    assert done.returncode == 2
    assert "no agent that nats://127.0.0.1" in done.stderr
    assert experiment in done.stderr
    assert "Traceback" not in done.stderr


def test_nobody_answers_for_an_experiment_that_has_ended_and_the_store_says_how(
    place: Place,
) -> None:
    """The agent has forgotten it; the store has not."""
    with hr.init(PROJECT, home=place.home.root).create_experiment(
        upload_source_files=[], git_info=False, send_hardware_metrics=False
    ) as experiment:
        experiment.log_metric("v", 1)
    wait_until(
        lambda: not os.path.exists(place.home.journal(experiment.source)), "it is stored, and its journal deleted"
    )
    done = place.command("abort", experiment.internal_id)
    assert done.returncode == 2
    assert "In the store it is succeeded, since" in done.stderr


def test_abort_without_a_broker_says_where_it_looked(home: Home, place: Place) -> None:
    """No `up`, no answer: the URL, and the option that names another."""
    done = place.command("abort", random_id(), HEADRACE_NATS="nats://127.0.0.1:1", HEADRACE_HOME=home.root)
    assert done.returncode == 2
    assert "nats://127.0.0.1:1" in done.stderr
    assert "--nats" in done.stderr


def test_a_process_that_has_no_agent_is_not_reached(place: Place, train: Train, tmp_path: Path) -> None:
    """`direct=True` on a home that no agent serves: nobody answers, and the process is untouched."""
    lonely = Home(tmp_path / "lonely")
    body = (
        "quiet = dict(upload_source_files=[], git_info=False, upload_stdout=False, upload_stderr=False)\n"
        "exp = hr.init('work/abort', direct=True).create_experiment(**quiet)\n"
    )
    trainer = train(body + SLEEP, lonely)
    done = place.command("abort", trainer.experiment)
    assert done.returncode == 2
    assert "no agent" in done.stderr
    assert is_alive(trainer.process.pid)


def test_a_direct_process_on_a_home_that_an_agent_serves_is_ended_like_any(place: Place, train: Train) -> None:
    """The agent finds its journal, too; what it saw of the end reaches the store that it ships to, which here is the same."""
    body = (
        "quiet = dict(upload_source_files=[], git_info=False, upload_stdout=False, upload_stderr=False)\n"
        "exp = hr.init('work/abort', direct=True).create_experiment(**quiet)\n"
        "exp.log_metric('v', 1)\nexp.save()\n"
    )
    trainer = train(body + SLEEP)
    place.wait_known(trainer.experiment)
    done = place.command("abort", trainer.experiment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert trainer.process.wait(30) == -signal.SIGTERM
    place.wait_state(trainer.experiment, "aborted")


def test_a_reason_that_is_too_long_is_refused(place: Place) -> None:
    """Before anybody is asked."""
    done = place.command("abort", random_id(), "--reason", "x" * 501)
    assert done.returncode == 2
    assert "501 characters" in done.stderr
