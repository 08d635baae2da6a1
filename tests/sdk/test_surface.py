"""Neptune's surface: every member and argument of its two references is here, under its name, in its place."""

from __future__ import annotations

import inspect
import io
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from headrace.errors import ExperimentNotFound, InvalidValue, NotAFolder, StaleRead
from headrace_proto.events import Kind
from headrace_proto.home import Home
from headrace_proto.limits import IMAGE_BYTES_MAX
from tests.quiet import QUIET
from tests.sdk.journals import journal_of

Create = Callable[..., hr.Experiment]

EXPERIMENT = {
    "get_system_properties": "",
    "get_tags": "",
    "append_tag": "tag tags",
    "append_tags": "tag tags",
    "remove_tag": "tag",
    "get_channels": "",
    "get_logs": "",
    "send_metric": "channel_name x y timestamp",
    "log_metric": "log_name x y timestamp",
    "send_text": "channel_name x y timestamp",
    "log_text": "log_name x y timestamp",
    "send_image": "channel_name x y name description timestamp",
    "log_image": "log_name x y image_name description timestamp",
    "send_artifact": "artifact destination",
    "log_artifact": "artifact destination",
    "delete_artifacts": "path",
    "download_artifact": "path destination_dir",
    "download_sources": "path destination_dir",
    "download_artifacts": "path destination_dir",
    "reset_log": "log_name",
    "get_parameters": "",
    "get_properties": "",
    "set_property": "key value",
    "remove_property": "key",
    "get_hardware_utilization": "",
    "get_numeric_channels_values": "channel_names",
    "stop": "exc_tb",
}
"""Each method's arguments, in order."""
PROJECT = {
    "get_members": "",
    "get_experiments": "id state owner tag min_running_time",
    "get_leaderboard": "id state owner tag min_running_time",
    "create_experiment": "name description params properties tags upload_source_files abort_callback logger upload_stdout "
    "upload_stderr send_hardware_metrics run_monitoring_thread handle_uncaught_exceptions git_info hostname notebook_id "
    "notebook_path",
    "create_notebook": "",
    "get_notebook": "notebook_id",
}
DEFAULTS = dict.fromkeys(
    (
        "upload_stdout",
        "upload_stderr",
        "send_hardware_metrics",
        "run_monitoring_thread",
        "handle_uncaught_exceptions",
    ),
    True,
)
"""Every other default is None."""


@pytest.fixture
def direct(home: Home, store: str) -> hr.Experiment:
    """A live experiment whose store answers at once."""
    project = hr.init("vision/digits", home=home.root, store=store, direct=True)
    return project.create_experiment(
        name="mlp",
        description="a first try",
        tags=["a"],
        author="ada",
        hostname="node-7",
        **QUIET,
    )


def arguments(of: type, method: str) -> list[inspect.Parameter]:
    """What the method takes, without `self` and what is ours: behind Neptune's, or by keyword only."""
    given = list(inspect.signature(getattr(of, method)).parameters.values())[1:]
    return [one for one in given if one.kind is not inspect.Parameter.KEYWORD_ONLY and one.name != "step"]


@pytest.mark.parametrize("method", EXPERIMENT)
def test_every_method_of_an_experiment(method: str) -> None:
    """With the arguments of the reference, in their order."""
    assert " ".join(one.name for one in arguments(hr.Experiment, method)) == EXPERIMENT[method]


@pytest.mark.parametrize("argument", ["timestamp", "image_name", "name", "description", "destination", "exc_tb"])
def test_what_may_be_left_out_is_none(argument: str) -> None:
    """In every method that has it. (A missing `y` is told from one that is None, which is refused: a loss that came out as None
    must not have its step stored in its place.)"""
    found = [one for method in EXPERIMENT for one in arguments(hr.Experiment, method) if one.name == argument]
    assert {one.default for one in found} == {None}


def test_every_attribute_of_an_experiment(experiment: hr.Experiment) -> None:
    """Those that have a value."""
    assert hr.Experiment.IMAGE_SIZE_LIMIT_MB == 15
    assert experiment.limits == {"channels": dict.fromkeys(("numeric", "text", "image"), 10_000)}
    assert (experiment.id, experiment.name, experiment.state) == (experiment.internal_id, "mlp", "running")
    assert str(experiment) == repr(experiment) == f"Experiment({experiment.internal_id})"
    assert experiment.get_channels() == experiment.get_logs() == {}


def test_handles_of_one_experiment_are_equal(create: Create) -> None:
    """However many a process has; and each of them ends."""
    one, other = create(), create()
    again = hr.attach(one.internal_id, label="again")
    assert one == again
    assert not one != again  # noqa: SIM202 - `!=` has a method of its own in the reference
    assert one != other
    assert one != one.internal_id
    assert len({one, again, other}) == 2
    again.stop()
    one.log_metric("loss", 0.5)
    assert (one.state, again.state) == ("running", "succeeded")


def test_keyword_names_are_neptunes(experiment: hr.Experiment) -> None:
    """Calls that name each argument need no change."""
    experiment.log_metric(log_name="loss", x=1, y=0.5, timestamp=1_700_000_000)
    experiment.send_metric(channel_name="loss", x=2, y=0.25, timestamp=None)
    experiment.log_text(log_name="notes", x="hello", timestamp=1_560_430_912)
    experiment.send_text(channel_name="notes", x=1, y="hello")
    experiment.log_image(log_name="samples", x=1, y=np.zeros((2, 2)), image_name="a", description="b")
    experiment.send_image(channel_name="samples", x=np.zeros((2, 2)), name="a", description="b")
    experiment.reset_log(log_name="loss")
    assert [point.step for point in journal_of(experiment).points()] == [1, 2, None, 1, 1, None]


def test_system_properties_of_a_live_experiment(direct: hr.Experiment) -> None:
    """All thirteen, with what this process has logged before."""
    direct.append_tag("b")
    direct.log_metric("loss", 0.5)
    direct.log_artifact(io.BytesIO(b"weights"), "model.bin")
    found = direct.get_system_properties()
    assert list(found) == [
        *("id", "name", "created", "finished", "running_time", "owner", "storage_size", "channels_size", "size"),
        *("tags", "notes", "description", "hostname"),
    ]
    assert (found["id"], found["name"], found["owner"], found["tags"]) == ("DIG-1", "mlp", "ada", ["a", "b"])
    assert (found["notes"], found["description"], found["hostname"]) == ("a first try", "a first try", "node-7")
    assert found["storage_size"] == len(b"weights")
    assert found["channels_size"] > 0
    assert found["finished"] is None
    assert found["running_time"] > 0


def test_system_properties_before_anything_is_stored(create: Create) -> None:
    """What this process knows, and a word that it is not the store's."""
    experiment = create(name="mlp", description="a first try", tags=["a"], author="ada")
    with pytest.warns(StaleRead, match="no agent serves this home"):
        found = experiment.get_system_properties()
    assert len(found) == 13
    assert (found["id"], found["name"], found["owner"], found["tags"], found["size"]) == (
        *(experiment.internal_id, "mlp", "ada", ["a"]),
        0,
    )
    assert (found["hostname"], found["description"], found["finished"]) == ("node-7", "a first try", None)


def test_other_reads_before_anything_is_stored(experiment: hr.Experiment, tmp_path: Path) -> None:
    """Say that they could not see what was logged, and that there is nothing."""
    reads: list[Callable[[], Any]] = [
        lambda: experiment.get_numeric_channels_values("loss"),
        experiment.get_hardware_utilization,
        lambda: experiment.download_artifact("model.bin", str(tmp_path)),
        experiment.download_artifacts,
        experiment.download_sources,
    ]
    for read in reads:
        with pytest.warns(StaleRead, match="0 of .* bytes"), pytest.raises(ExperimentNotFound):
            read()


def test_a_live_experiment_downloads_what_it_has_logged(
    direct: hr.Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Artifacts and sources, singly and as archives, the line after they were logged; with progress to whoever asks."""
    monkeypatch.chdir(tmp_path)
    direct.log_artifact(io.BytesIO(b"w" * 3_000_000), "model.bin")
    direct.log_artifact(io.StringIO("a"), "plots/a.svg")
    direct.note_sources(__file__)
    told: list[tuple[int, int]] = []
    path = direct.download_artifact("model.bin", str(tmp_path), progress=lambda *how: told.append(how))
    assert Path(path).read_bytes() == b"w" * 3_000_000
    assert told[-1] == (3_000_000, 3_000_000)
    assert len(told) == 3
    assert direct.download_artifacts("plots", str(tmp_path)) == str(tmp_path / "plots.zip")
    with zipfile.ZipFile(direct.download_sources(destination_dir=str(tmp_path))) as archive:
        assert archive.namelist() == [Path(__file__).name]
        assert archive.read(Path(__file__).name) == Path(__file__).read_bytes()
    (tmp_path / "file").touch()
    with pytest.raises(NotAFolder, match="no folder"):
        direct.download_artifacts(destination_dir=str(tmp_path / "file"))


def test_an_image_of_more_than_15_mb_is_not_logged(create: Create, tmp_path: Path) -> None:
    """It is dropped with a warning that says what to do, counted, and training goes on; one just below is kept."""
    experiment = create()
    (tmp_path / "large.png").write_bytes(b"\x89PNG" + bytes(IMAGE_BYTES_MAX))
    (tmp_path / "small.png").write_bytes(b"\x89PNG" + bytes(IMAGE_BYTES_MAX - 4))
    for image in (tmp_path / "large.png", b"\x89PNG" + bytes(IMAGE_BYTES_MAX)):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            experiment.log_image("samples", image)
        assert any(re.search("'samples'.*larger than 15 MB.*artifact", str(one.message)) for one in told)
    experiment.log_image("samples", tmp_path / "small.png")
    experiment.stop()
    journal = journal_of(experiment)
    assert [point.value["size"] for point in journal.points()] == [IMAGE_BYTES_MAX]
    assert sum(dropped for dropped, _ in journal.of(Kind.GAP)) == 2


# -- The project --------------------------------------------------------------------------------------------------------


def test_creating_takes_all_arguments_in_order() -> None:
    """The seventeen of the reference, by position or by name, with its defaults."""
    given = arguments(hr.Project, "create_experiment")
    assert " ".join(one.name for one in given) == PROJECT["create_experiment"]
    assert {one.name: one.default for one in given} == {
        **dict.fromkeys(PROJECT["create_experiment"].split()),
        **DEFAULTS,
    }


@pytest.mark.parametrize("method", PROJECT)
def test_every_method_of_a_project(method: str) -> None:
    """With the arguments of the reference, in their order."""
    assert " ".join(one.name for one in arguments(hr.Project, method)) == PROJECT[method]


@pytest.mark.parametrize("method", EXPERIMENT)
def test_every_method_of_a_stored_experiment(method: str) -> None:
    """What a list hands out is an experiment like the live one."""
    from headrace.reading import StoredExperiment

    assert " ".join(one.name for one in arguments(StoredExperiment, method)) == EXPERIMENT[method]
    assert StoredExperiment.IMAGE_SIZE_LIMIT_MB == 15


def test_a_project_is_its_name_in_a_store(home: Home, store: str) -> None:
    """Two handles of it are equal; what Neptune's is made of, it has."""
    project = hr.init("vision/digits", home=home.root, store=store)
    assert project == hr.get_project("vision/digits")
    assert project != hr.get_project("vision/letters")
    assert project != hr.init("vision/digits", home=home.root)
    assert len({project, hr.Session(home.root, store).get_project("vision/digits")}) == 1
    assert (project.full_id, project.namespace) == ("vision/digits", "vision")
    assert len(project.internal_id) == 32
    assert str(project) == repr(project) == "Project(vision/digits)"


def test_members_are_the_names_that_were_seen(home: Home, store: str) -> None:
    """Of those who have experiments here, each once."""
    project = hr.init("vision/digits", home=home.root, store=store, direct=True)
    assert project.get_members() == []
    for author in ("josh", "ada", "josh"):
        with project.create_experiment(author=author, upload_source_files=[], git_info=False):
            pass
    assert project.get_members() == ["ada", "josh"]


def test_a_notebook_is_noted(create: Create) -> None:
    """Which one, and where it lies."""
    created = journal_of(create(notebook_id="d1c1b494", notebook_path="a/b.ipynb")).created
    assert (created["notebook_id"], created["notebook_path"]) == ("d1c1b494", "a/b.ipynb")
    assert "notebook_id" not in journal_of(create()).created


@pytest.mark.parametrize(
    "wrong",
    [{"abort_callback": "stop"}, {"notebook_id": 3}, {"notebook_path": Path("a")}, {"params": []}, {"tags": ""}],
    ids=lambda given: str(given)[:30],
)
def test_a_wrong_argument_is_named(create: Create, wrong: dict[str, Any]) -> None:
    """And nothing is created."""
    with pytest.raises(InvalidValue, match=re.escape(repr(next(iter(wrong.values())))[:10])):
        create(**wrong)
    assert hr.experiment.alive() == []


class Twice:
    """A mapping that has a name twice, as some libraries' do."""

    def items(self) -> list[tuple[str, int]]:
        return [("lr", 1), ("lr", 2)]


def test_a_parameter_or_property_is_given_once(experiment: hr.Experiment, create: Create) -> None:
    """Which of two values was meant nobody can say: neither at creation, nor where flattening makes two names one."""
    for what in ("params", "properties"):
        with pytest.raises(InvalidValue, match="'lr' is given twice"):
            create(**{what: Twice()})
    with pytest.raises(InvalidValue, match="'adam/lr' is given twice"):
        experiment.log_parameters({"adam": {"lr": 1}, "adam/lr": 2}, flatten="/")
    assert experiment.params == {}
