"""Several collectors on the same experiments, while programs log: joined by a third, stopped, gone on with, killed."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.path.stack import Stack, Trainer, check_stored
from tests.waiting import wait_until

EXPERIMENTS = 6
MEANWHILE = 3_000
"""Calls of each program between two changes."""


@pytest.mark.timeout(300)
def test_collectors_come_pause_and_die_and_each_event_is_stored_once(tmp_path: Path) -> None:
    """What a killed or stopped collector had is stored by the others; the stopped one steps back, says so, and harms nothing."""
    with Stack(tmp_path) as stack:
        stack.nats.start()
        stack.start_agent()
        for name in ("one", "two"):
            stack.start_collector(name)
        trainers = [stack.start_trainer(seed, pace_s=2e-4) for seed in range(EXPERIMENTS)]
        _all_stored(stack, trainers)
        stack.start_collector("three")
        _all_stored(stack, trainers)
        stack.signal("two", signal.SIGSTOP)
        _all_stored(stack, trainers)
        stack.kill("one")
        _all_stored(stack, trainers)
        stack.signal("two", signal.SIGCONT)
        wait_until(lambda: "lost a partition" in (tmp_path / "two.log").read_text(), "the stopped one steps back")
        _all_stored(stack, trainers)
        stack.kill("three")
        _all_stored(stack, trainers)
        for trainer in trainers:
            trainer.kill()
        stack.wait_drained()
        check_stored(stack.store, trainers)


def _all_stored(stack: Stack, trainers: list[Trainer]) -> None:
    """Waits until what every program logs from now on is stored, too."""
    goals = [trainer.returned + MEANWHILE for trainer in trainers]
    for trainer, goal in zip(trainers, goals, strict=True):
        stack.wait_stored(trainer, goal)
