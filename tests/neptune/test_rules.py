"""Old rules and old exceptions, one by one: with experiments that run and with stored ones."""

from __future__ import annotations

import io
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from headrace import neptune
from headrace.neptune import exceptions as old
from headrace.neptune.experiments import Experiment
from headrace_proto.errors import HeadraceError, StaleRead
from tests.neptune.conftest import native

NAN, INF = float("nan"), float("inf")
NOTHING: Any = None


@pytest.fixture(params=["live", "stored", "stopped", "committed"])
def handle(request: pytest.FixtureRequest, experiment: Experiment, project: neptune.Project, store: str) -> Experiment:
    """One that runs, the same out of a list, one that this process has stopped, and one that nobody ships anything for."""
    if request.param == "live":
        return experiment
    experiment.stop()
    if request.param == "committed":
        session = neptune.Session(backend=neptune.Backend(session=hr.Session(store=store)))
        return session.get_project(project.full_id).get_experiments()[0]
    return project.get_experiments()[0] if request.param == "stored" else experiment


# -- Values -------------------------------------------------------------------------------------------------------------------


def test_a_value_that_is_not_finite_is_dropped_with_a_warning(
    handle: Experiment, caplog: pytest.LogCaptureFixture
) -> None:
    """And so is one whose x is not: the old rule, by the old logger, which scripts silence by its name."""
    for x, y in ((NAN, None), (INF, None), (-INF, None), (1, NAN), (NAN, 1), (INF, 1)):
        handle.log_metric("loss", x, y)
    assert [record.name for record in caplog.records] == ["neptune.experiments"] * 6
    assert "loss: the value nan was not logged" in caplog.text
    handle.log_metric("loss", np.float32(0.5))
    assert handle.get_numeric_channels_values("loss").to_numpy().tolist() == [[0, 0.5]]


def test_a_text_or_an_image_whose_x_is_not_finite_is_logged_without(
    handle: Experiment, caplog: pytest.LogCaptureFixture
) -> None:
    """As the old code did it, and not its documentation: nothing is lost by it. It is warned about."""
    handle.log_text("notes", NAN, "hello")
    handle.log_image("samples", INF, np.zeros((4, 4)))
    assert len(caplog.records) == 2
    assert {name: log.x for name, log in handle.get_logs().items()} == {"notes": 0, "samples": 0}


def test_a_single_argument_is_the_value(handle: Experiment) -> None:
    """Wherever it stands, by whatever name."""
    handle.log_metric("loss", 3)
    handle.log_metric("loss", None, 4)
    handle.log_metric("loss", y=5, x=None)
    handle.log_metric(log_name="loss", x=6)
    handle.send_metric(channel_name="loss", x=10, y=7)
    assert handle.get_numeric_channels_values("loss").to_numpy().tolist() == [[0, 3], [1, 4], [2, 5], [3, 6], [10, 7]]


def test_points_may_come_in_any_order_of_x(handle: Experiment) -> None:
    """The old server refused an x that was not greater than the last, and its point was lost."""
    for x in (3, 1, 2):
        handle.log_metric("loss", x, x / 2)
    assert handle.get_numeric_channels_values("loss")["x"].tolist() == [1, 2, 3]


REFUSED: dict[str, tuple[Callable[[Experiment], Any], type[Exception], str]] = {
    "no value": (lambda exp: exp.log_metric("a", None), old.NoChannelValue, "no value"),
    "a list": (lambda exp: exp.log_metric("a", [1, 2]), old.InvalidChannelValue, "expected float, not list"),
    "a text as a number": (lambda exp: exp.log_metric("a", "0.5"), old.InvalidChannelValue, "'0.5' is no number"),
    "a text as x": (lambda exp: exp.log_metric("a", "1", 0.5), old.InvalidChannelValue, "'1' is no number"),
    "a number as a text": (lambda exp: exp.log_text("a", 3), old.InvalidChannelValue, "str, not int"),
    "what is no image": (lambda exp: exp.log_image("a", {}), old.InvalidChannelValue, "an image must be"),
    "an array of no image": (lambda exp: exp.log_image("a", np.zeros((2, 2, 2))), old.InvalidChannelValue, "(2, 2, 2)"),
    "an image that is missing": (lambda exp: exp.log_image("a", "a.png"), old.FileNotFound, "no image at 'a.png'"),
    "a file that is missing": (lambda exp: exp.log_artifact("a.npy"), old.FileNotFound, "no file at 'a.npy'"),
    "a buffer without a name": (lambda exp: exp.log_artifact(io.BytesIO()), ValueError, "needs a destination"),
    "what is no file": (lambda exp: exp.log_artifact(3), ValueError, "must be a path"),
    "a file's name that leads out": (lambda exp: exp.log_artifact(io.BytesIO(), "../a"), ValueError, "'..'"),
    "deleting nothing": (lambda exp: exp.delete_artifacts(NOTHING), ValueError, "not None"),
    "deleting none of several": (lambda exp: exp.delete_artifacts(["a", NOTHING]), ValueError, "None"),
    "deleting all": (lambda exp: exp.delete_artifacts("."), ValueError, "remove it"),
    "deleting the root": (lambda exp: exp.delete_artifacts("/"), ValueError, "empty"),
    "deleting elsewhere": (lambda exp: exp.delete_artifacts("a/../../b"), ValueError, "'..'"),
    "deleting what is not there": (lambda exp: exp.delete_artifacts("b"), old.FileNotFound, "'b'"),
    "downloading what is not there": (lambda exp: exp.download_artifact("b"), old.FileNotFound, "'b'"),
    "a folder that is not there": (lambda exp: exp.download_artifacts("b"), old.FileNotFound, "'b'"),
    "sources that are not there": (lambda exp: exp.download_sources("b"), old.FileNotFound, "'b'"),
    "a file as a folder": (lambda exp: exp.download_artifact("a", "file"), old.NotADirectory, "file"),
    "a log that is not there": (lambda exp: exp.reset_log("b"), old.ChannelDoesNotExist, "'b'"),
    "a series that is not there": (lambda exp: exp.get_numeric_channels_values("b"), KeyError, "'b'"),
    "a property that is not there": (lambda exp: exp.remove_property("b"), KeyError, "b"),
    "a tag with a blank": (lambda exp: exp.append_tag("a b"), old.ExperimentValidationError, "'a b'"),
    "a tag with a dot": (lambda exp: exp.append_tags("a", "b.c"), old.ExperimentValidationError, "'b.c'"),
    "a log without a name": (lambda exp: exp.log_metric("", 1), old.NeptuneException, "empty"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_wrong_is_refused_by_the_old_exception(what: str, handle: Experiment) -> None:
    """With a message that names the value; and it is the built-in, too, that a caller would catch."""
    call, kind, message = REFUSED[what]
    Path("file").write_text("a file")
    handle.log_artifact("file", "a")
    with pytest.raises(kind) as raised:
        call(handle)
    assert message in str(raised.value)


def test_exceptions_are_the_built_ins_that_the_old_code_raised_in_their_place() -> None:
    """`except TypeError`, `except ValueError`, `except KeyError`, `except FileNotFoundError` of old scripts still catch them."""
    assert issubclass(old.InvalidChannelValue, ValueError)
    assert issubclass(old.InvalidChannelValue, TypeError)
    assert issubclass(old.ExperimentValidationError, ValueError)
    assert issubclass(old.ChannelNotFound, KeyError)
    assert issubclass(old.FileNotFound, FileNotFoundError)
    assert issubclass(old.NotADirectory, NotADirectoryError)
    assert issubclass(old.NeptuneException, HeadraceError)


@pytest.mark.parametrize(
    "error",
    [
        old.FileNotFound("a.npy"),
        old.NotADirectory("b"),
        old.InvalidChannelValue(expected_type="float", actual_type="list"),
        old.ExperimentNotFound("SAL-1", "a/b"),
        old.ChannelDoesNotExist("SAL-1", "loss"),
        old.NotebookNotFound("n", "a/b"),
        old.NoChannelValue(),
        old.NeptuneLibraryNotInstalledException("matplotlib"),
        old.ExperimentLimitReached(),
        old.ChannelNotFound.saying("there is none"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_exceptions_are_made_as_they_were_and_travel_between_processes(error: old.NeptuneException) -> None:
    """By their old arguments; and a worker's error is its parent's."""
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy)) == (type(error), str(error))


# -- Facts --------------------------------------------------------------------------------------------------------------------


def test_parameters_are_floats_and_texts(project: neptune.Project) -> None:
    """As the old server had them: numbers are floats, all else is its text; and in a leaderboard all is text."""
    given = {"lr": 0.5, "layers": 3, "cuda": True, "limit": INF, "name": "adam", "shape": (2, 3), "none": None}
    exp = project.create_experiment(params=given, upload_source_files=[])
    assert exp.get_parameters() == {
        "lr": 0.5,
        "layers": 3.0,
        "cuda": "True",
        "limit": "inf",
        "name": "adam",
        "shape": "[2, 3]",
        "none": "None",
    }
    assert [type(value) for value in exp.get_parameters().values()] == [float, float, str, str, str, str, str]
    other = project.create_experiment(params={"lr": 0.25}, upload_source_files=[])
    board: Any = project.get_leaderboard().set_index("id")
    assert board["parameter_lr"].to_dict() == {exp.id: "0.5", other.id: "0.25"}
    assert board.loc[exp.id, ["parameter_layers", "parameter_cuda"]].tolist() == ["3", "True"]
    assert board["parameter_layers"].isna().tolist() == [False, True]


def test_an_experiment_is_validated_when_it_is_created(project: neptune.Project) -> None:
    """Tags, parameters, names; and nothing is begun."""
    for wrong in ({"tags": "abc"}, {"tags": ["a b"]}, {"params": [1]}, {"name": 3}, {"properties": {"": 1}}):
        with pytest.raises(old.ExperimentValidationError):
            project.create_experiment(**wrong)
    assert project.get_experiments() == []


def test_source_files_that_do_not_exist_are_left_out(
    project: neptune.Project, caplog: pytest.LogCaptureFixture
) -> None:
    """The old client looked for names as for patterns. Here a warning says which."""
    Path("net.py").write_text("")
    exp = project.create_experiment(upload_source_files=["net.py", "missing.py", "*.yaml"])
    assert list(native(exp).stored().source_files) == ["net.py"]
    assert "missing.py" in caplog.text
    assert "net.py" not in caplog.text
    alone = project.create_experiment(upload_source_files="missing.py")
    assert list(native(alone).stored().source_files) == []


def test_git_is_told_and_given(project: neptune.Project, tmp_path: Path) -> None:
    """A GitInfo as the old client had it is kept; where there is no repository there is none."""
    info = neptune.git_info.GitInfo("a" * 40, "why", "Ada", "ada@example.org", "2020-01-02", False, "main", ["u", "v"])
    exp = project.create_experiment(git_info=info, upload_source_files=[])
    git = native(exp).stored().record.git
    assert git == {"commit": "a" * 40, "message": "why", "author": "Ada", "date": "2020-01-02", "dirty": False} | {
        "branch": "main",
        "remote": "u",
    }
    assert neptune.utils.get_git_info(str(tmp_path)) is None
    with pytest.raises(TypeError, match="commit_id"):
        neptune.git_info.GitInfo(None)  # type: ignore[arg-type]


def test_a_notebook_keeps_its_checkpoints(project: neptune.Project) -> None:
    """Under the old names; what is no notebook is refused."""
    notebook = project.create_notebook()
    assert (notebook.get_path(), notebook.get_name()) == (None, None)
    Path("a.ipynb").write_text("{}")
    checkpoint = notebook.add_checkpoint("a.ipynb")
    assert (checkpoint.name, notebook.get_name(), notebook.get_path()) == ("a.ipynb", "a.ipynb", checkpoint.path)
    Path("folder.ipynb").mkdir()
    for wrong, kind in (
        ("a.py", old.InvalidNotebookPath),
        ("b.ipynb", old.FileNotFound),
        ("folder.ipynb", old.NotAFile),
    ):
        with pytest.raises(kind):
            notebook.add_checkpoint(wrong)
    with pytest.raises(old.NotebookNotFound):
        project.get_notebook("nothing")


def test_notebooks_of_the_environment_are_the_experiments(
    project: neptune.Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the old client's extension of Jupyter set them."""
    monkeypatch.setenv("NEPTUNE_NOTEBOOK_ID", "7")
    monkeypatch.setenv("NEPTUNE_NOTEBOOK_PATH", "a.ipynb")
    exp = project.create_experiment(upload_source_files=[])
    facts = native(exp).stored().record.facts
    assert (facts["notebook_id"], facts["notebook_path"]) == ("7", "a.ipynb")


# -- Projects, sessions, the current experiment -------------------------------------------------------------------------------


def test_what_is_called_too_early_says_so(project: neptune.Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before `init`, before an experiment, without a name, with a wrong one."""
    with pytest.raises(old.NeptuneNoExperimentContextException):
        neptune.log_metric("loss", 0.5)
    monkeypatch.setattr(neptune, "project", None)
    for call in (neptune.create_experiment, neptune.get_experiment, neptune.stop):
        with pytest.raises(old.NeptuneUninitializedException):
            call()
    with pytest.raises(old.NeptuneMissingProjectQualifiedNameException):
        neptune.init()
    for wrong in ("sandbox", "a/b/c", "a b/c"):
        with pytest.raises(old.NeptuneIncorrectProjectQualifiedNameException, match=wrong):
            neptune.init(wrong)
    with pytest.raises(old.ProjectNotFound):
        neptune.Session().get_project("")


def test_the_current_experiment_is_a_stack_of_each_project(project: neptune.Project) -> None:
    """The one that began last and has not stopped; another project has its own."""
    outer = neptune.create_experiment("outer", upload_source_files=[])
    with neptune.create_experiment("inner", upload_source_files=[]) as inner:
        assert neptune.get_experiment() is inner
    assert neptune.get_experiment() is outer
    other = neptune.set_project("neptune-ai/other")
    assert other is neptune.project
    with pytest.raises(old.NeptuneNoExperimentContextException):
        neptune.get_experiment()
    outer.stop()
    outer.stop()
    assert [outer.state, inner.state] == ["succeeded", "succeeded"]


def test_the_project_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, project: neptune.Project) -> None:
    """NEPTUNE_PROJECT, else HEADRACE_PROJECT; `set_project` alone opens a session, too."""
    monkeypatch.setenv("HEADRACE_PROJECT", "a/second")
    assert neptune.init().full_id == "a/second"
    monkeypatch.setenv("NEPTUNE_PROJECT", "a/first")
    assert neptune.init().full_id == "a/first"
    monkeypatch.setattr(neptune, "session", None)
    assert neptune.set_project("a/third") == neptune.project
    assert neptune.session is not None


def test_tokens_proxies_and_backends_are_taken_and_not_kept(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, project: neptune.Project
) -> None:
    """Each is warned about once in a process. A backend that there never was is refused."""
    monkeypatch.setattr("headrace.neptune.backend._told", set())
    for _ in range(2):
        neptune.init("a/b", api_token="s3cret", proxies={"http": "proxy"})
        neptune.init("a/b", backend=object())
    neptune.init("a/b", backend=neptune.OfflineBackend())
    neptune.Session.with_default_backend("s3cret")
    neptune.init("a/b", neptune.ANONYMOUS, backend=neptune.HostedNeptuneBackend())
    assert [record.name for record in caplog.records] == ["neptune.backend"] * 3
    assert "s3cret" not in caplog.text + repr(vars(neptune.session))
    monkeypatch.setenv("NEPTUNE_BACKEND", "offline")
    neptune.init("a/b")
    monkeypatch.setenv("NEPTUNE_BACKEND", "postgres")
    with pytest.raises(old.InvalidNeptuneBackend, match="postgres"):
        neptune.init("a/b")


def test_a_workspace_without_projects_is_not_found(project: neptune.Project, experiment: Experiment) -> None:
    """One with some lists them, ordered; a project that nothing was logged to is in no list."""
    assert project.get_experiments() == [experiment]
    assert neptune.session is not None
    assert list(neptune.session.get_projects("neptune-ai").items()) == [("neptune-ai/sandbox", project)]
    with pytest.raises(old.NamespaceNotFound, match="nobody"):
        neptune.session.get_projects("nobody")


# -- After the end ------------------------------------------------------------------------------------------------------------


def test_what_was_stopped_is_changed_where_it_is_stored(project: neptune.Project, experiment: Experiment) -> None:
    """The old server took changes of an experiment that had ended; and so it goes on here, in the store."""
    experiment.log_metric("loss", 0.5)
    neptune.stop()
    experiment.log_metric("loss", 0.25)
    experiment.append_tag("best")
    experiment.set_property("chosen", True)
    assert experiment.state == "succeeded"
    [found] = project.get_experiments(tag="best")
    assert found == experiment
    assert found.get_numeric_channels_values("loss")["loss"].tolist() == [0.5, 0.25]
    assert experiment.get_properties() == {"chosen": "True"}


def test_one_out_of_a_list_may_be_the_one_that_runs(project: neptune.Project, experiment: Experiment) -> None:
    """What is logged to it is logged to that one, and its end is that one's end."""
    [found] = project.get_experiments()
    found.log_metric("loss", 0.5)
    assert experiment.get_logs() == found.get_logs() == {"loss": 0.5}  # type: ignore[comparison-overlap]
    found.stop("diverged")
    assert [one.state for one in (found, experiment, *project.get_experiments())] == ["failed"] * 3


def test_what_joined_an_experiment_has_no_word_on_how_it_went(project: neptune.Project, experiment: Experiment) -> None:
    """A success stays one, whatever is said of a later look at it."""
    experiment.stop()
    [found] = project.get_experiments()

    def look_again() -> None:
        with found:
            found.log_metric("loss", 0.5)
            raise OverflowError

    with pytest.raises(OverflowError):
        look_again()
    assert (found.state, experiment.state) == ("succeeded", "succeeded")
    assert found.get_logs() == {"loss": 0.5}  # type: ignore[comparison-overlap]


def test_without_a_store_what_was_stopped_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has stored it: what this process knows is told, and what it would change is refused."""
    monkeypatch.setattr(neptune, "session", None)
    monkeypatch.setattr(neptune, "project", None)
    monkeypatch.setenv("HEADRACE_STORE", str(tmp_path / "store"))
    neptune.init("a/b")
    exp = neptune.create_experiment("mlp", upload_source_files=[], upload_stdout=False, upload_stderr=False)
    exp.append_tag("a")
    exp.log_metric("loss", 0.5)
    with pytest.warns(StaleRead):
        assert dict[str, Any](exp.get_logs()) == {"loss": 0.5}
    exp.stop()
    with pytest.warns(StaleRead), pytest.raises(old.ExperimentAlreadyFinished):
        exp.append_tag("b")
    with pytest.warns(StaleRead):
        assert (exp.get_tags(), exp.state, exp.name) == (["a"], "succeeded", "mlp")


def test_scripts_silence_us_by_the_old_name(experiment: Experiment, caplog: pytest.LogCaptureFixture) -> None:
    """`logging.getLogger("neptune")` is above all loggers that warn."""
    with caplog.at_level(logging.ERROR, logger="neptune"):
        experiment.log_metric("loss", NAN)
    assert caplog.records == []
