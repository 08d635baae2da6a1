"""Identity: which calls mean the same experiment, and what each process is to it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

import headrace as hr
from headrace.errors import ExperimentExists, ExperimentNotFound, InvalidValue
from headrace_proto.events import Kind, Role
from headrace_proto.home import Home
from headrace_proto.ids import derived_id, is_id
from headrace_proto.status import Status, write_status
from tests.quiet import QUIET
from tests.sdk.journals import journal_of

Create = Callable[..., hr.Experiment]
LAUNCHERS = (
    "RANK",
    "SLURM_PROCID",
    "TORCHELASTIC_RUN_ID",
    "GROUP_WORLD_SIZE",
    "SLURM_JOB_ID",
    "SLURM_STEP_ID",
    "HEADRACE_ATTEMPT",
    "TORCHELASTIC_RESTART_COUNT",
    "SLURM_RESTART_COUNT",
)


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)


def test_without_a_key_every_experiment_is_new(create: Create) -> None:
    """Its id is known at once, random, and needs no network; its process owns it whatever its rank."""
    first, second = create(), create(rank=3)
    assert is_id(first.internal_id)
    assert first.internal_id != second.internal_id
    assert journal_of(second).header.role == Role.OWNER


def test_a_key_is_the_same_experiment_from_any_process(create: Create) -> None:
    """Its id is derived from project and key; another project's is another."""
    first = create(key="night-7")
    assert first.internal_id == derived_id("vision/digits", "night-7")
    first.stop()
    assert create(key="night-7").internal_id == first.internal_id
    assert derived_id("vision/other", "night-7") != first.internal_id
    assert journal_of(first).created["key"] == "night-7"


def test_rank_zero_owns_and_the_others_join(create: Create, monkeypatch: pytest.MonkeyPatch) -> None:
    """By argument or by the launcher's RANK; only the owner defines the experiment."""
    owner = create(key="a", rank=0)
    monkeypatch.setenv("RANK", "2")
    rank = create(key="a", label="second node")
    headers = journal_of(owner).header, journal_of(rank).header
    assert [(header.role, header.rank, header.label) for header in headers] == [
        (Role.OWNER, 0, ""),
        (Role.RANK, 2, "second node"),
    ]
    assert journal_of(owner).of(Kind.CREATE)
    assert not journal_of(rank).of(Kind.CREATE)
    assert rank.internal_id == owner.internal_id
    rank.stop()
    owner.stop()


@pytest.mark.parametrize("name", ["HEADRACE_ATTEMPT", "TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"])
def test_the_attempt_is_the_launchers(create: Create, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """How often it has restarted the run; 0 without one, or when it says nonsense."""
    assert journal_of(create()).header.attempt == 0
    monkeypatch.setenv(name, "3")
    assert journal_of(create()).header.attempt == 3
    monkeypatch.setenv(name, "third")
    assert journal_of(create()).header.attempt == 0


def test_an_automatic_key_is_the_launch(create: Create, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun's run id, else Slurm's job and step, else a new experiment."""
    seen = [create(key="auto").internal_id]
    for environment in (
        {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"},
        {"SLURM_STEP_ID": "1"},
        {"TORCHELASTIC_RUN_ID": "n"},
    ):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        first, second = create(key="auto"), create(key="auto")
        assert first.internal_id == second.internal_id
        seen.append(first.internal_id)
        second.stop()
        first.stop()
    assert len(set(seen)) == 4


def test_slurms_rank_counts_where_there_is_no_other(create: Create, monkeypatch: pytest.MonkeyPatch) -> None:
    """srun sets no RANK."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_PROCID", "5")
    assert journal_of(create(key="auto")).header.rank == 5


def test_a_launch_without_a_name_is_its_launching_process(create: Create, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun calls every run 'none' unless told; that must not make all runs one. Over several nodes it cannot be known."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    first, second = create(key="auto"), create(key="auto")
    assert first.internal_id == second.internal_id
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert create(key="auto").internal_id != first.internal_id
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    with pytest.raises(InvalidValue, match="rdzv-id"):
        create(key="auto")


def test_never_refuses_what_exists_and_must_what_does_not(create: Create, home: Home) -> None:
    """As far as this machine can know: here, by the journals in the home."""
    with pytest.raises(ExperimentNotFound, match="night-7"):
        create(key="night-7", resume="must")
    create(key="night-7", resume="never").stop()
    with pytest.raises(ExperimentExists, match="night-7"):
        create(key="night-7", resume="never")
    create(key="night-7", resume="must").stop()
    create(key="night-7", resume="never", rank=1).stop()  # a rank comes after its owner, and is not asked
    create(resume="must").stop()  # without a key there is nothing to resume


def test_what_the_agent_knows_exists(create: Create, home: Home) -> None:
    """A journal that was stored and freed leaves the agent's word."""
    experiment = derived_id("vision/digits", "old")
    write_status(home.status(experiment), Status("DIG-1", 1, 0.0, {}))
    with pytest.raises(ExperimentExists):
        create(key="old", resume="never")
    create(key="old", resume="must")


def test_what_a_local_store_holds_exists(home: Home, tmp_path: Any) -> None:
    """Even when the home has forgotten it."""
    store = str(tmp_path / "store")
    with hr.init("vision/digits", home=home.root, store=store, direct=True).create_experiment(key="old", **QUIET):
        pass
    for direct in (False, True):
        project = hr.init("vision/digits", home=tmp_path / "another", store=store, direct=direct)
        with pytest.raises(ExperimentExists):
            project.create_experiment(key="old", resume="never", **QUIET)
        with pytest.raises(ExperimentNotFound):
            project.create_experiment(key="new", resume="must", **QUIET)


def test_damaged_journals_are_passed_over(create: Create, home: Home) -> None:
    """A stranger in the home hinders nobody."""
    os.makedirs(os.path.join(home.journals, "stranger"))
    os.makedirs(os.path.join(home.journals, "broken"))
    with open(os.path.join(home.journals, "broken", "000000.seg"), "wb") as file:
        file.write(b"nonsense")
    create(key="a", resume="never")
