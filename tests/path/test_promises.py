"""The promises of the whole path, each seen kept by real processes that are really killed."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.path.stack import Stack, check_stored, document, experiments, points

SEED = 20261121


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
        check_stored(stack.store, trainers)


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
