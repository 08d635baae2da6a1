"""A stored experiment is ended by whoever finds it running though nobody runs it."""

from __future__ import annotations

import io

import numpy as np
import pytest

import headrace as hr
from headrace.reading import StoredExperiment, StoredProject
from headrace_proto.events import Role
from headrace_proto.store.inspection import Depth, Options, Severity, inspect
from headrace_proto.store.verification import verify
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


def test_an_edited_store_is_sound(experiment: StoredExperiment, stored: Stored) -> None:
    """After edits of every kind, an end, and a notebook beside it, an inspection down to the digests finds nothing."""
    with hr.buffered():
        experiment.log_metric("late", 1, 0.5)
        experiment.log_text("late texts", "x" * 100_000)
        experiment.log_image("late images", np.zeros((2, 2)))
    experiment.log_artifact(io.BytesIO(bytes(200_000)), "large.bin")
    experiment.log_artifact(io.BytesIO(b"1"), "model.bin")
    experiment.delete_artifacts("large.bin")
    experiment.reset_log("loss")
    experiment.stop()
    project = hr.Session(store=stored.store.url).get_project(PROJECT)
    project.create_notebook().add_checkpoint(__file__)
    found = list(inspect(stored.store, Options(depth=Depth.DIGESTS)))
    assert [one for one in found if one.severity is Severity.ERROR] == []
    proof = verify(stored.store, PROJECT, stored.id)
    assert proof.reasons == (f"{stored.owner.id[:8]} (owner) is open",)
