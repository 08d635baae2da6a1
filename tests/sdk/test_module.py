"""The module's own functions: the calls of the current project and experiment, which are a stack."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import headrace as hr
from headrace import api
from headrace.errors import InvalidName, InvalidValue, NoExperiment, NoProject
from headrace.experiment import alive
from headrace.reading import StoredExperiment
from headrace_proto.events import Kind
from headrace_proto.home import Home
from tests.quiet import QUIET
from tests.sdk.journals import journal_of


@pytest.fixture(autouse=True)
def _nothing_open(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(api, "_project", None)
    monkeypatch.setattr(api, "_session", None)
    yield
    for experiment in alive():
        experiment.stop()


@pytest.fixture
def project(home: Home, store: str) -> hr.Project:
    """The current project."""
    return hr.init("vision/digits", home=home.root, store=store, direct=True)


def test_every_call_goes_to_the_current_experiment(project: hr.Project) -> None:
    """All that an experiment can be told, the module can be told."""
    experiment = hr.create_experiment("mlp", params={"lr": 0.1}, **QUIET)
    assert hr.get_experiment() is experiment
    hr.log_metric("loss", 0.5)
    hr.log_metric("loss", 1, 0.25)
    hr.log_metric("loss", 0.125, step=2)
    hr.send_metric("loss", 3, 0.0625)
    hr.log_metrics({"a": 1, "b": 2}, step=3)
    hr.log_text("notes", "hello")
    hr.log_text("notes", "hello", step=3)
    hr.send_text("notes", 4, "bye")
    hr.log_image("samples", np.zeros((2, 2)), image_name="first")
    hr.log_image("samples", np.zeros((2, 2)), step=3)
    hr.send_image("samples", 4, np.zeros((2, 2)), name="third")
    hr.log_artifact(io.BytesIO(b"a"), "a.bin")
    hr.send_artifact(io.BytesIO(b"b"), "b.bin")
    hr.delete_artifacts("b.bin")
    hr.set_property("model", "mlp")
    hr.set_property("epochs", 7)
    hr.remove_property("epochs")
    hr.append_tag("a", "b")
    hr.append_tags(["c"])
    hr.remove_tag("b")
    hr.reset_log("notes")
    assert (experiment.params, experiment.properties, experiment.tags) == ({"lr": 0.1}, {"model": "mlp"}, ["a", "c"])
    journal = journal_of(experiment)
    assert journal.series("loss") == [(None, 0.5), (1.0, 0.25), (2.0, 0.125), (3.0, 0.0625)]
    assert [step for step, _ in journal.series("notes")] == [None, 3.0, 4.0]
    assert [step for step, _ in journal.series("samples")] == [None, 3.0, 4.0]
    assert experiment.get_logs().keys() == {"loss", "a", "b", "samples"}
    assert [path for path, *_ in journal.of(Kind.ARTIFACT)] == ["a.bin", "b.bin"]
    assert journal.of(Kind.UNLINK) == [[["b.bin"]]]
    hr.stop()
    assert experiment.state == "succeeded"
    assert hr.get_experiment("DIG-1") == StoredExperiment(project.stored().store, project.name, experiment.internal_id)


def test_experiments_are_a_stack(project: hr.Project) -> None:
    """An inner one is current until it ends, however it ends; then the outer one is again."""
    outer = hr.create_experiment("outer", **QUIET)
    with hr.create_experiment("inner", **QUIET) as inner:
        hr.log_metric("loss", 1)
        assert hr.get_experiment() is inner
    hr.log_metric("loss", 2)
    third = hr.create_experiment("third", **QUIET)
    outer.stop()
    hr.log_metric("loss", 3)
    hr.stop("it diverged")
    assert (outer.state, third.state) == ("succeeded", "failed")
    assert [one.stored().get_channel("loss")["value"].tolist() for one in (outer, inner, third)] == [
        [2.0],
        [1.0],
        [3.0],
    ]
    with pytest.raises(NoExperiment, match="create_experiment"):
        hr.log_metric("loss", 4)


@pytest.mark.parametrize(
    "call",
    [
        hr.get_experiment,
        hr.stop,
        lambda: hr.log_text("notes", "x"),
        lambda: hr.set_property("a", 1),
        lambda: hr.append_tag("a"),
        lambda: hr.log_artifact("a"),
    ],
)
def test_without_an_experiment_the_call_says_so(call: Any) -> None:
    """Whatever the call."""
    with pytest.raises(NoExperiment, match="no experiment runs in this process"):
        call()


def test_without_a_project_the_call_says_so() -> None:
    """It names both ways to open one."""
    with pytest.raises(NoProject, match=r"init\(.*HEADRACE_PROJECT"):
        hr.create_experiment()
    with pytest.raises(InvalidName, match="HEADRACE_PROJECT"):
        hr.init()


def test_the_environment_names_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none was opened, and for an `init` without a name."""
    monkeypatch.setenv("HEADRACE_PROJECT", "vision/letters")
    assert hr.create_experiment(**QUIET).project == "vision/letters"
    assert hr.init().full_id == "vision/letters"
    monkeypatch.setenv("HEADRACE_PROJECT", "letters")
    with pytest.raises(InvalidName, match="workspace/name"):
        hr.init()


def test_the_project_is_changed_and_the_rest_stays(project: hr.Project) -> None:
    """`set_project` keeps home, store and way; `get_project` changes nothing."""
    other = hr.set_project("vision/letters")
    assert (other.home.root, other.store, other.direct) == (project.home.root, project.store, True)
    assert hr.get_project("vision/faces").full_id == "vision/faces"
    assert hr.create_experiment(**QUIET).project == "vision/letters"


def test_a_session_lists_projects(project: hr.Project) -> None:
    """Those that the store has, by full id; of one workspace, or of all."""
    assert hr.get_projects() == {}
    for name in ("vision/digits", "vision/faces", "sound/birds"):
        with hr.get_project(name).create_experiment(**QUIET):
            pass
    session = hr.Session(project.home.root, project.store)
    assert list(session.get_projects()) == list(hr.get_projects()) == ["sound/birds", "vision/digits", "vision/faces"]
    assert list(hr.get_projects("vision")) == ["vision/digits", "vision/faces"]
    assert session.get_projects("visio") == {}
    found = session.get_projects("vision")["vision/faces"]
    assert [one.state for one in found.get_experiments()] == ["succeeded"]
    assert not found.direct
    with pytest.raises(InvalidValue, match="namespace"):
        session.get_projects(3)  # type: ignore[arg-type]
    with pytest.raises(InvalidName, match="workspace/name"):
        session.get_project("vision")
