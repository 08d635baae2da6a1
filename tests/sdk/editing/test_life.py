"""A stored experiment is ended by who finds it running though nobody runs it."""

from __future__ import annotations

import pytest

from headrace.reading import StoredExperiment, StoredProject
from headrace_proto.events import Role
from tests.sdk.reading.stored import PROJECT, Source, Stored


def test_it_succeeds_or_fails(experiment: StoredExperiment, stored: Stored) -> None:
    """As `stop` says, for every reader; the second word changes nothing."""
    experiment.stop("Traceback: out of memory")
    [found] = StoredProject(stored.store, PROJECT).get_experiments(state="failed")
    assert found.state == experiment.state == "failed"
    assert found.finished_at is not None
    assert found.record.traceback == "Traceback: out of memory"
    found.stop()
    assert found.state == "failed"


def test_a_block_ends_it(experiment: StoredExperiment) -> None:
    """Succeeded, or failed with the exception."""
    with experiment as same:
        assert same is experiment
    assert experiment.state == "succeeded"


def test_a_block_that_raises_fails_it(experiment: StoredExperiment) -> None:
    """And the exception goes on."""
    with pytest.raises(ZeroDivisionError), experiment:
        _ = 1 / 0
    assert experiment.state == "failed"
    assert "ZeroDivisionError" in (experiment.record.traceback or "")


def test_ranks_that_never_closed_are_ended_with_it(experiment: StoredExperiment, stored: Stored) -> None:
    """A distributed run whose node is gone."""
    stored.commit(Source(Role.RANK, rank=1), Source(Role.RANK, rank=2))
    experiment.stop()
    assert experiment.state == "succeeded"


def test_a_restart_decides_again(experiment: StoredExperiment, stored: Stored) -> None:
    """Stopping says nothing about a process that takes the experiment over later."""
    experiment.stop()
    stored.commit(Source(Role.OWNER, attempt=1))
    experiment.refresh()
    assert experiment.state == "running"
