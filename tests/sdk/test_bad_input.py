"""Bad input, one by one: each is refused by its documented error, whose message names the value and says what to do instead.

The live and the stored handle of an experiment refuse the same, and refused calls change nothing.
"""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import headrace as hr
from headrace.errors import (
    ArtifactNotFound,
    ChannelNotFound,
    ChannelTypeMismatch,
    ExperimentNotFound,
    HeadraceError,
    InvalidName,
    InvalidValue,
    NotAFolder,
    NotebookNotFound,
    ProjectNotFound,
    UnknownStore,
)
from headrace.experiment import alive
from headrace_proto.home import Home
from headrace_proto.limits import IMAGE_BYTES_MAX
from tests.quiet import QUIET


class Case(NamedTuple):
    """A wrong call: of what, the error that it raises, and what its message says."""

    call: Callable[[Any], object]
    error: type[HeadraceError]
    says: str
    builtin: type[Exception] = ValueError


def _closed() -> io.StringIO:
    buffer = io.StringIO("a")
    buffer.close()
    return buffer


class Twice:
    """A mapping that has a name twice."""

    def items(self) -> list[tuple[str, int]]:
        return [("lr", 1), ("lr", 2)]


EXPERIMENT = {
    # wrong types
    "a metric of a text": Case(lambda e: e.log_metric("loss", "0.5"), InvalidValue, r"'loss'.*'0\.5'.*not a number"),
    "a metric of nothing": Case(lambda e: e.log_metric("loss", None), InvalidValue, r"'loss'.*None", TypeError),
    "a metric of many": Case(lambda e: e.log_metric("loss", [1, 2]), InvalidValue, r"'loss'.*\[1, 2\]", TypeError),
    "a step of a text": Case(lambda e: e.log_metric("loss", "3", 0.5), InvalidValue, r"step '3'"),
    "a time of a text": Case(lambda e: e.log_metric("loss", 3, 0.5, "now"), InvalidValue, r"'now'.*time\.time\(\)"),
    "a text of a number": Case(lambda e: e.log_text("notes", 3), InvalidValue, r"3 of type int: log str\(", TypeError),
    "an image of a number": Case(lambda e: e.log_image("samples", 3), InvalidValue, r"an array, a PIL image.*not 3"),
    "an image of odd shape": Case(
        lambda e: e.log_image("samples", np.zeros((2, 2, 2))), InvalidValue, r"\(2, 2, 2\).*channels last"
    ),
    "an image's name": Case(
        lambda e: e.log_image("samples", np.zeros((2, 2)), image_name=3),
        InvalidValue,
        r"image_name must be a str, not 3",
    ),
    "an artifact of a number": Case(
        lambda e: e.log_artifact(3), InvalidValue, r"path, an open file or a buffer, not 3"
    ),
    "an artifact that is closed": Case(
        lambda e: e.log_artifact(_closed(), "a"), InvalidValue, r"cannot be read: open it for reading, or log it by its"
    ),
    "an artifact that is only written": Case(
        lambda e: e.log_artifact(io.BufferedWriter(io.BytesIO()), "a"), InvalidValue, r"cannot be read"
    ),
    "properties' names": Case(lambda e: e.set_property(3, "a"), InvalidName, r"property name must be a str, not 3"),
    "a tag of a number": Case(lambda e: e.append_tag(3), InvalidValue, r"str, or a list of str, not 3", TypeError),
    "a path of nothing": Case(lambda e: e.delete_artifacts(None), InvalidValue, r"str or several, not None"),
    # unknown names
    "a text in a metric's channel": Case(
        lambda e: e.log_text("loss", "x"),
        ChannelTypeMismatch,
        r"'loss' holds numeric values; log text ones under another",
    ),
    "an unknown channel is reset": Case(lambda e: e.reset_log("los"), ChannelNotFound, r"no channel 'los'", KeyError),
    "an unknown channel is read": Case(
        lambda e: e.get_numeric_channels_values("los"),
        ChannelNotFound,
        r"no numeric channel 'los'; it has loss",
        KeyError,
    ),
    "an unknown artifact is deleted": Case(
        lambda e: e.delete_artifacts("model"),
        ArtifactNotFound,
        r"no file 'model'; there is: model\.bin",
        FileNotFoundError,
    ),
    "an unknown artifact": Case(
        lambda e: e.download_artifact("model"),
        ArtifactNotFound,
        r"no file 'model'; there is: model\.bin",
        FileNotFoundError,
    ),
    "unknown artifacts": Case(
        lambda e: e.download_artifacts("models"), ArtifactNotFound, r"no file 'models'; there is", FileNotFoundError
    ),
    "unknown sources": Case(
        lambda e: e.download_sources("src"), ArtifactNotFound, r"no file 'src'; there is: none", FileNotFoundError
    ),
    "a file that is not there": Case(
        lambda e: e.log_artifact("nowhere.bin"), ArtifactNotFound, r"'nowhere\.bin': check the path", FileNotFoundError
    ),
    "an image that is not there": Case(
        lambda e: e.log_image("samples", "nowhere.png"), ArtifactNotFound, r"'nowhere\.png': check", FileNotFoundError
    ),
    # into a file
    "an artifact into a file": Case(
        lambda e: e.download_artifact("model.bin", "file"),
        NotAFolder,
        r"file' is no folder: name one",
        NotADirectoryError,
    ),
    "artifacts into a file": Case(
        lambda e: e.download_artifacts(None, "file"), NotAFolder, r"file' is no folder: name one", NotADirectoryError
    ),
    "sources into a file": Case(
        lambda e: e.download_sources(None, "file"), NotAFolder, r"file' is no folder: name one", NotADirectoryError
    ),
    # out of the experiment
    "up": Case(lambda e: e.log_artifact("file", "../up"), InvalidName, r"'\.\./up' has the part '\.\.': remove it"),
    "up in the middle": Case(
        lambda e: e.log_artifact("file", "a/../b"), InvalidName, r"'a/\.\./b' has the part '\.\.'"
    ),
    "absolute": Case(lambda e: e.log_artifact("file", "/etc/hosts"), InvalidName, r"is absolute: give one relative"),
    "another drive": Case(lambda e: e.log_artifact("file", "C:/a"), InvalidName, r"'C:/a' is absolute"),
    "backslashes": Case(
        lambda e: e.log_artifact("file", "..\\up"), InvalidName, r"backslash: separate folders with '/'"
    ),
    "encoded dots": Case(lambda e: e.log_artifact("file", "%2e%2e/up"), InvalidName, r"'%2e' .*rename it"),
    "up, deleted": Case(lambda e: e.delete_artifacts("../model.bin"), InvalidName, r"'\.\./model\.bin' has the part"),
    "up, downloaded": Case(
        lambda e: e.download_artifact("../model.bin"), ArtifactNotFound, r"no file '\.\./model\.bin'", FileNotFoundError
    ),
    "a buffer without a name": Case(lambda e: e.log_artifact(io.BytesIO(b"a")), InvalidName, r"needs a destination"),
    # everything at once
    "all artifacts": Case(lambda e: e.delete_artifacts(""), InvalidName, r"is empty"),
    "the root": Case(lambda e: e.delete_artifacts("/"), InvalidName, r"is empty"),
    "the folder itself": Case(lambda e: e.delete_artifacts("."), InvalidName, r"'\.' has the part '\.'"),
    # names
    "a tag with a blank": Case(
        lambda e: e.append_tag("two words"), InvalidName, r"'two words'.*letters, digits and '-'"
    ),
    "a tag with a letter of elsewhere": Case(lambda e: e.append_tag("grün"), InvalidName, r"'grün'.*rename it"),
    "a tag with an underscore": Case(lambda e: e.append_tag("a_b"), InvalidName, r"'a_b'"),
    "a good tag beside a bad one": Case(lambda e: e.append_tag("good", "b!"), InvalidName, r"'b!'"),
    "a bad tag in a list": Case(lambda e: e.append_tags(["good", "b!"]), InvalidName, r"'b!'"),
    "an empty channel": Case(lambda e: e.log_metric("", 1), InvalidName, r"channel name is empty"),
    "a channel with a line": Case(lambda e: e.log_metric("a\nb", 1), InvalidName, r"control character: remove it"),
    "a property too large": Case(
        lambda e: e.set_property("big", "x" * 20_000),
        InvalidValue,
        r"'big' is larger than 16384 bytes: log it as an artifact",
    ),
    # parameters
    "a parameter given twice": Case(
        lambda e: e.log_parameters(Twice()), InvalidValue, r"'lr' is given twice: leave out"
    ),
    "two names that flatten to one": Case(
        lambda e: e.log_parameters({"a": {"b": 1}, "a/b": 2}, flatten="/"), InvalidValue, r"'a/b' is given twice"
    ),
    "a fixed parameter": Case(
        lambda e: e.log_parameter("lr", 0.2), InvalidValue, r"'lr' was fixed at creation as 0\.1: .*under another name"
    ),
    "parameters of a list": Case(
        lambda e: e.log_parameters([1]), InvalidValue, r"mapping of them, not \[1\]", TypeError
    ),
}


@pytest.fixture(autouse=True)
def _a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    Path("file").write_text("x")


@pytest.fixture
def project(home: Home, store: str) -> Iterator[hr.Project]:
    """A project whose store answers at once."""
    yield hr.init("vision/digits", home=home.root, store=store, direct=True)
    for experiment in alive():
        experiment.stop()


@pytest.fixture
def live(project: hr.Project) -> hr.Experiment:
    """An experiment with a channel, a parameter and an artifact."""
    experiment = project.create_experiment(
        params={"lr": 0.1}, upload_source_files=[], git_info=False, upload_stdout=False, upload_stderr=False
    )
    experiment.log_metric("loss", 0.5)
    experiment.log_artifact(io.BytesIO(b"weights"), "model.bin")
    experiment.append_tag("kept")
    experiment.save()
    return experiment


@pytest.mark.parametrize("kind", ["live", "stored"])
@pytest.mark.parametrize("case", EXPERIMENT)
def test_an_experiment_refuses(live: hr.Experiment, project: hr.Project, case: str, kind: str) -> None:
    """By the documented error, which is also the built-in one that a caller would catch; and nothing is changed."""
    call, error, says, builtin = EXPERIMENT[case]
    handle = live if kind == "live" else project.get_experiments()[0]
    before = live.stored().record
    with pytest.raises(error, match=says) as told:
        call(handle)
    assert isinstance(told.value, builtin)
    assert live.stored().record.model_dump(exclude={"sources"}) == before.model_dump(exclude={"sources"})
    assert [path.name for path in Path.cwd().iterdir()] == ["file"]


@pytest.mark.parametrize("kind", ["live", "stored"])
def test_links_that_lead_out_of_a_folder_are_not_followed(live: hr.Experiment, project: hr.Project, kind: str) -> None:
    """Each is named in a warning; what is in the folder is logged, and nothing else."""
    Path("folder").mkdir()
    Path("folder/a").write_text("a")
    os.symlink("../file", "folder/out")
    handle: Any = live if kind == "live" else project.get_experiments()[0]
    with pytest.warns(hr.errors.TelemetryWarning, match=r"folder/out' is a link that leads out.*log .*file' itself"):
        handle.log_artifact("folder")
    assert list(live.stored().artifacts) == ["folder/a", "model.bin"]


@pytest.mark.parametrize("kind", ["live", "stored"])
def test_an_image_that_is_too_large_is_not_logged(live: hr.Experiment, project: hr.Project, kind: str) -> None:
    """A condition of the data: it warns, with the channel, the limit and what to do, and training goes on."""
    handle: Any = live if kind == "live" else project.get_experiments()[0]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        handle.log_image("samples", b"\x89PNG" + bytes(IMAGE_BYTES_MAX))
    said = [
        str(one.message) for one in told if re.search(r"'samples'.*larger than 15 MB.*as an artifact", str(one.message))
    ]
    assert len(said) == 1
    assert "samples" not in live.stored().get_logs()


OLD_S = 1_560_430_912


@pytest.mark.parametrize("kind", ["live", "stored"])
def test_a_point_of_a_time_before_a_reset_is_told_to_be_hidden(
    live: hr.Experiment, project: hr.Project, kind: str, recwarn: pytest.WarningsRecorder
) -> None:
    """What a reset hides is told by its time: with an old one of its own, a point is not shown; others are."""
    handle: Any = live if kind == "live" else project.get_experiments()[0]
    handle.log_text("notes", "before")
    live.save()
    for name in ("loss", "notes"):
        handle.reset_log(name)
    live.save()
    recwarn.clear()
    handle.log_metric("loss", 2.0)
    handle.log_metrics({"loss": 3.0, "other": 1.0})
    handle.log_metric("other", 1.0, timestamp=OLD_S)
    assert not recwarn.list
    handle.log_metric("loss", 4.0, timestamp=OLD_S)
    handle.log_metric("loss", 9, 4.0, timestamp=OLD_S)
    handle.log_metrics({"loss": 5.0, "other": 1.0}, timestamp=OLD_S)
    handle.log_text("notes", "after", timestamp=OLD_S)
    told = [str(one.message) for one in recwarn.list]
    assert [message.partition(":")[0] for message in told] == ["'loss'", "'loss'", "'loss'", "'notes'"]
    assert all(f"time {OLD_S} is hidden, because the channel was reset" in message for message in told)
    shown = live.stored()
    assert list(shown.get_numeric_channels_values("loss")["loss"]) == [2.0, 3.0]
    assert shown.get_logs()["notes"] is None


CREATION: dict[str, tuple[dict[str, Any], type[HeadraceError], str]] = {
    "a name of a number": ({"name": 3}, InvalidValue, r"the experiment's name must be a str, not 3"),
    "a description of a list": ({"description": ["a"]}, InvalidValue, r"description must be a str, not \['a'\]"),
    "parameters of a list": ({"params": [1]}, InvalidValue, r"mapping of them, not \[1\]"),
    "a parameter without a name": ({"params": {"": 1}}, InvalidName, r"parameter name is empty"),
    "a parameter's name of a number": ({"params": {3: 1}}, InvalidName, r"parameter name must be a str, not 3"),
    "a parameter given twice": ({"params": Twice()}, InvalidValue, r"parameter 'lr' is given twice: leave out"),
    "a property given twice": ({"properties": Twice()}, InvalidValue, r"property 'lr' is given twice: leave out"),
    "a parameter too large": ({"params": {"big": "x" * 20_000}}, InvalidValue, r"'big' is larger than 16384 bytes"),
    "properties of a text": ({"properties": "a"}, InvalidValue, r"mapping of them, not 'a'"),
    "tags of one text": ({"tags": "a"}, InvalidValue, r"list of str, not 'a': write \['a'\]"),
    "a tag with a blank": ({"tags": ["a b"]}, InvalidName, r"'a b'.*letters, digits and '-'"),
    "a callback that is none": ({"abort_callback": "stop"}, InvalidValue, r"abort_callback.*'stop'"),
    "a hostname of a number": ({"hostname": 3}, InvalidValue, r"hostname must be a str, not 3"),
    "a notebook of a number": ({"notebook_id": 3}, InvalidValue, r"notebook_id must be a str, not 3"),
    "a notebook's path of a number": ({"notebook_path": 3}, InvalidValue, r"notebook_path must be a str, not 3"),
    "a source that is not there": (
        {"upload_source_files": ["no.py"]},
        ArtifactNotFound,
        r"'no\.py' does not exist.*pattern",
    ),
    "a logger that is none": ({"logger": "root"}, InvalidValue, r"logger.*'root'"),
    "a git that is none": ({"git_info": "main"}, InvalidValue, r"git_info.*'main'"),
}


@pytest.mark.parametrize("case", CREATION)
def test_create_experiment_refuses(project: hr.Project, case: str) -> None:
    """Neptune's ExperimentValidationError: no argument is guessed, and nothing runs afterwards."""
    given, error, says = CREATION[case]
    with pytest.raises(error, match=says):
        project.create_experiment(**{**QUIET, **given})
    assert alive() == []


PROJECT = {
    "a project without a workspace": Case(lambda p: hr.get_project("digits"), InvalidName, r"'digits'.*for example"),
    "an unknown store": Case(lambda p: hr.init("a/b", store="s4://x", direct=True), UnknownStore, r"s4"),
    "an unknown experiment": Case(lambda p: p.get_experiment("DIG-9"), ExperimentNotFound, r"'DIG-9'", LookupError),
    "an empty id": Case(lambda p: p.get_experiment(""), InvalidValue, r"empty: give one such as 'DIG-7'"),
    "ids of numbers": Case(
        lambda p: p.get_experiments(id=7), InvalidValue, r"id=7 must be a str or several", TypeError
    ),
    "an unknown state": Case(lambda p: p.get_experiments(state="done"), InvalidValue, r"'done' is none of running"),
    "states of numbers": Case(
        lambda p: p.get_experiments(state=[1]), InvalidValue, r"state=\[1\] must be a str or several"
    ),
    "owners of numbers": Case(lambda p: p.get_leaderboard(owner=3), InvalidValue, r"owner=3 must be a str or several"),
    "tags of numbers": Case(lambda p: p.get_leaderboard(tag=[None]), InvalidValue, r"tag=\[None\] must be a str"),
    "times of texts": Case(
        lambda p: p.get_leaderboard(min_running_time="1 h"), InvalidValue, r"'1 h' must be a number of seconds"
    ),
    "an unknown notebook": Case(
        lambda p: p.get_notebook("a"), NotebookNotFound, r"no notebook 'a'; it has none", LookupError
    ),
    "a project that is not stored": Case(lambda p: p.stored().record, ProjectNotFound, r"'vision/digits'", LookupError),
}


@pytest.mark.parametrize("case", PROJECT)
def test_a_project_refuses(project: hr.Project, case: str) -> None:
    """Likewise."""
    call, error, says, builtin = PROJECT[case]
    with pytest.raises(error, match=says) as told:
        call(project)
    assert isinstance(told.value, builtin)
