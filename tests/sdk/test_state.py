"""The state of a live handle: what the store says of all processes, as soon as it knows of this one; else this one's own word."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import headrace as hr
from headrace.experiment import alive
from headrace_proto.home import Home
from tests.quiet import QUIET
from tests.sdk.conftest import Run


@pytest.fixture
def project(home: Home, store: str) -> Iterator[hr.Project]:
    """A project whose experiments store by themselves."""
    yield hr.init("vision/digits", home=home.root, store=store, direct=True)
    for experiment in alive():
        experiment.stop()


def test_the_failure_of_another_rank_is_the_state_of_all(project: hr.Project) -> None:
    """Each rank's own end was well; while one is open, the experiment runs."""
    zero, one = (project.create_experiment(key="night-7", rank=rank, **QUIET) for rank in (0, 1))
    assert (zero.state, one.state) == ("running", "running")
    one.stop("diverged")
    zero.save()
    assert (zero.state, one.state) == ("running", "running")
    zero.stop()
    assert (zero.state, one.state) == ("failed", "failed")
    assert (zero.ended, one.ended) == (True, True)


def test_who_joins_without_deciding_sees_what_others_decided(project: hr.Project) -> None:
    """A data loader, or an evaluation that comes later, has no word on the state: how it ended itself is nobody's answer."""
    owner = project.create_experiment(**QUIET)
    worker = project.attach(owner.internal_id, label="eval")
    owner.save()
    assert worker.state == "running"
    owner.abort("diverged")
    assert worker.state == "aborted"
    worker.stop()
    assert (worker.state, owner.state) == ("aborted", "aborted")


def test_a_state_that_somebody_has_set_in_the_store_is_seen_by_who_still_runs(project: hr.Project) -> None:
    """`stop()` of a stored experiment changes what all see; the next owner that begins has the word again."""
    owner = project.create_experiment(key="night-7", **QUIET)
    owner.save()
    project.get_experiment("night-7").stop("looks wrong")
    assert owner.state == "failed"
    owner.stop()
    again = project.create_experiment(key="night-7", **QUIET)
    assert again.state == "running"  # the store does not know yet that it goes on
    again.save()
    assert again.state == "running"
    again.stop()
    assert again.state == "succeeded"


def test_without_a_descriptor_left_the_process_answers_for_itself(run_script: Run) -> None:
    """What would look at the store cannot even be imported."""
    done = run_script(
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))\n"
        "files = []\ntry:\n    while True: files.append(os.open(os.devnull, os.O_RDONLY))\nexcept OSError: pass\n"
        "first = exp.state\nexp.stop('bad')\nlast = exp.state\n"
        "for file in files: os.close(file)\nprint(first, last)\n",
    )
    assert done.stdout == "running failed\n", done.stderr


def test_where_the_store_cannot_be_read_the_process_answers_for_itself(
    home: Home, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """There is none, nothing of it is stored, or it is damaged: no error, no warning, no waiting."""
    damaged = tmp_path / "damaged"
    (damaged / "_headrace").mkdir(parents=True)
    (damaged / "_headrace/store.json").write_text("{")
    for store in (str(tmp_path / "nowhere"), str(damaged)):
        with hr.init("vision/digits", home=home.root, store=store).create_experiment(**QUIET) as experiment:
            assert experiment.state == "running"
        assert experiment.state == "succeeded"
    assert not recwarn.list


def test_without_the_part_for_reading_the_own_word_is_given_at_once(
    project: hr.Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be read is not waited for, either."""
    experiment = project.create_experiment(**QUIET)
    experiment.stop("diverged")
    monkeypatch.setitem(sys.modules, "headrace.reading", None)
    monkeypatch.setattr(type(experiment), "wait", _nobody_waits)
    assert experiment.state == "failed"


def _nobody_waits(*_: object) -> None:
    raise AssertionError("it waits")
