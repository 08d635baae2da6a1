"""The promises of the whole path, each seen kept by real processes that are really killed."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from .stack import Stack, Trainer, document, experiments, points

SEED = 20261121


def check(store: Path, trainers: list[Trainer]) -> None:
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


@pytest.mark.timeout(200)
def test_a_trainer_killed_at_full_speed_loses_nothing_that_returned(tmp_path: Path) -> None:
    """Ten trainers die by SIGKILL at random moments; every returned event is in the store after the drain, once."""
    dice, trainers = random.Random(SEED), []
    with Stack(tmp_path) as stack:
        stack.start()
        for seed in range(10):
            trainer = stack.start_trainer(seed)
            trainers.append(trainer)
            trainer.kill_after(dice.randrange(1, 200_000))
        stack.wait_drained()
        check(stack.store, trainers)


SCRIPT = """
import headrace as hr
with hr.init("later/on").create_experiment(name="alone", params={"lr": 0.1}, send_hardware_metrics=False) as exp:
    for step in range(1000):
        exp.log_metric("loss", step, 1 / (1 + step))
    exp.log_text("notes", "no agent was there")
    print("hello from the script")
"""


def test_without_an_agent_a_script_logs_and_a_later_up_stores_it(tmp_path: Path) -> None:
    """No agent, no broker, no network: the journal waits, and whoever ships it later ships all of it."""
    with Stack(tmp_path) as stack:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env=stack.environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stdout == "hello from the script\n"
        assert done.stderr == ""
        assert not stack.drained()
        stack.start()
        stack.wait_drained()
        (experiment,) = experiments(stack.store, "later/on")
        facts = document(stack.store, experiment, "later/on")
        assert (facts["state"], facts["name"], facts["params"]) == ("succeeded", "alone", {"lr": 0.1})
        stored = points(stack.store, experiment, "loss", "later/on")
        assert stored == [(float(step), 1 / (1 + step)) for step in range(1000)]
