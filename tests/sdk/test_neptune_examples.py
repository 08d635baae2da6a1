"""Every example of Neptune's references runs, and does what its page says."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
from matplotlib import pyplot as plt

import headrace as hr
from headrace import api
from headrace.errors import InvalidName
from headrace.experiment import alive
from headrace.reading import StoredExperiment, StoredProject
from headrace_proto.events import Role
from headrace_proto.home import Home
from headrace_proto.store.backend import open_store
from tests.quiet import QUIET
from tests.sdk import neptune_examples as page
from tests.sdk.reading.stored import SECOND_NS, START_NS, Source, Stored

SALT = "neptune-ai/Salt-Detection"


@pytest.fixture(autouse=True)
def _a_folder_with_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the examples find in their working folder."""
    work = tmp_path / "work"
    for name in ("training_with_pytorch.py", "net.py", "a.py", "src/my-module/b.py", ".hidden.py", "notes.txt"):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(f"# {name}")
    for name in ("pictures/image.png", "images/wrong_prediction_1.png"):
        (work / name).parent.mkdir()
        (work / name).write_bytes(b"\x89PNG")
    monkeypatch.chdir(work)
    monkeypatch.setattr(api, "_project", None)
    monkeypatch.setattr(api, "_session", None)
    mpl.use("agg")
    yield
    plt.close("all")
    for experiment in alive():
        experiment.stop()


@pytest.fixture
def project(home: Home, store: str) -> hr.Project:
    """What `neptune.init` gives: a project whose store answers at once."""
    return hr.init("neptune-ai/sandbox", home=home.root, store=store, direct=True)


@pytest.fixture
def experiment(project: hr.Project) -> hr.Experiment:
    """A live experiment."""
    return hr.create_experiment(**QUIET)


@pytest.fixture
def salt(store: str) -> hr.Session:
    """A session over a store with the project of the examples: two of its experiments are what they look for."""
    files = open_store(store)
    for number, (author, outcome, seconds) in enumerate(
        [
            ("neyo", "aborted", 200_000),
            ("neyo", "aborted", 99),
            ("josh", "aborted", 200_000),
            ("neyo", "aborted", 100_000),
        ]
    ):
        stored = Stored(files, SALT, name=f"run-{number}", author=author, params={"lr": number})
        stored.owner.point("loss", 1, number)
        stored.close(outcome, at_s=seconds)
    return hr.Session(store=store)


def test_projects_members_and_lists(salt: hr.Session) -> None:
    """Members are who was seen; lists meet every criterion; handles are shown as on the page."""
    assert page.members(salt) == ["josh", "neyo"]
    found = page.experiments(salt)
    assert repr(found) == "[Experiment(SAL-1), Experiment(SAL-4)]"
    frame = page.leaderboard(salt)
    assert frame["id"].tolist() == ["SAL-1", "SAL-4"]
    assert list(frame.columns)[-2:] == ["channel_loss", "parameter_lr"]


def test_experiments_are_created(project: hr.Project) -> None:
    """In every form; which source files are kept is what the page's comments say."""
    made = page.create()
    for experiment in reversed(alive()):
        experiment.stop()
    assert len(project.get_experiments(state="succeeded")) == 1 + len(made) == 10
    first, _, bare, top, all_below, everything, hidden, single, larger = [
        project.get_experiment(experiment.internal_id) for experiment in made
    ]
    assert (first.name, first.description, first.params, first.tags) == ("Untitled", "", {}, [])
    assert (bare.name, bare.description) == ("neural-net-mnist", "neural net trained on MNIST")
    assert list(bare.source_files) == []
    assert list(top.source_files) == ["a.py", "net.py", "training_with_pytorch.py"]
    assert list(all_below.source_files) == ["a.py", "net.py", "src/my-module/b.py", "training_with_pytorch.py"]
    assert "notes.txt" in everything.source_files
    assert ".hidden.py" not in everything.source_files
    assert ".hidden.py" in hidden.source_files
    assert list(single.source_files) == ["a.py"]
    assert (larger.params, larger.properties) == (
        {"lr": 0.0005, "dropout": 0.2},
        {"key1": "value1", "key2": "17", "key3": "other-value"},
    )
    assert set(larger.tags) == {"list-of", "tags", "goes-here", "as-list-of-strings"}
    assert list(larger.source_files) == ["net.py", "training_with_pytorch.py"]


def test_a_notebook_is_found_by_its_id(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made, and found by the id."""
    monkeypatch.setenv("HEADRACE_PROJECT", SALT)
    monkeypatch.setenv("HEADRACE_STORE", store)
    notebook = page.new_notebook()
    assert page.old_notebook(notebook.id) == notebook


def test_identity_and_state(project: hr.Project) -> None:
    """A short id of the project's key, a name, a state."""
    experiment = page.first(project)
    assert page.attributes(project, experiment) == ("SAN-1", "exp_name", "running")


Handles = Callable[[hr.Experiment], Any]


def live(experiment: hr.Experiment) -> hr.Experiment:
    """The handle that logs."""
    return experiment


def stored(experiment: hr.Experiment) -> StoredExperiment:
    """A handle out of a list, of the same experiment."""
    experiment.save()
    origin = experiment.origin
    return StoredProject(origin.store, origin.project).get_experiment(experiment.internal_id)


both = pytest.mark.parametrize("handle", [live, stored])


@both
def test_facts_come_back_live_and_stored(experiment: hr.Experiment, handle: Handles) -> None:
    """System properties, tags, properties and parameters, of a live and of a stored experiment."""
    experiment.append_tag(["tag-1", "tag-2"])
    experiment.set_property("host", "node-7")
    assert len(page.system_properties(handle(experiment))) == 13
    page.tags(handle(experiment))
    assert set(handle(experiment).get_tags()) == {"tag-2", "new-tag", "first-tag", "second-tag", "third-tag"}
    page.facts(handle(experiment))
    assert stored(experiment).get_properties() == {"model": "LightGBM", "magic-number": "7"}


@both
def test_metrics_are_logged_with_steps_and_without(experiment: hr.Experiment, handle: Handles) -> None:
    """Values without steps and with them."""
    assert page.metrics(handle(experiment)) == {"accuracy": 0.8}
    points = handle(experiment).get_channel("accuracy", duplicates="all")
    assert sorted(points["value"]) == [0.5, 0.5, 0.65, 0.65, 0.8, 0.8]
    assert points["step"].tolist() == [0, 0, 1, 1, 2, 2]


def test_texts_have_the_time_that_was_given(experiment: hr.Experiment) -> None:
    """Of the current experiment, with the time that was given."""
    page.texts({"a": 1}, 0.25)
    assert experiment.get_channel("my_text_data")["value"].tolist() == ["{'a': 1}"]
    [point] = experiment.get_channel("logging_losses_as_text").to_dict("records")
    assert (point["value"], point["time"].timestamp()) == ("0.25", 1560430912)


@both
def test_images_and_figures(experiment: hr.Experiment, handle: Handles) -> None:
    """Paths, pictures, arrays of every shape, figures."""
    page.images(handle(experiment))
    page.figures(handle(experiment))
    found = stored(experiment)
    assert [len(found.get_channel(name)) for name in ("bbox_images", "fig", "plots", "diagrams")] == [3, 5, 1, 1]
    assert found.get_channel("bbox_images")["step"].tolist() == [0, 5, 6]
    assert found.read_image("bbox_images") == b"\x89PNG"


@both
def test_artifacts_lie_where_the_page_has_them(experiment: hr.Experiment, handle: Handles) -> None:
    """Logged under their name, elsewhere, and under another one."""
    page.artifacts(handle(experiment))
    assert list(stored(experiment).artifacts) == [
        "images/my_image_1.png",
        "validation/images/wrong_prediction_1.png",
        "wrong_prediction_1.png",
    ]


@both
def test_files_come_as_they_are_and_folders_as_archives(
    experiment: hr.Experiment, handle: Handles, tmp_path: Path
) -> None:
    """Files as they are, folders as ZIP archives of their name, into the folder that was named or the working folder."""
    experiment.note_sources(["src", "net.py"])
    for name in ("forest_results.pkl", "data/images/a.png", "data/b.csv"):
        experiment.log_artifact(io.StringIO(name), name)
    page.downloads(handle(experiment), str(tmp_path / "home"), str(tmp_path / "tmp"))

    def members(path: Path) -> list[str]:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()

    work = Path.cwd()
    assert (tmp_path / "home/user/files/forest_results.pkl").read_text() == "forest_results.pkl"
    for folder in (work, tmp_path / "tmp" / "sources"):
        assert members(folder / f"{experiment.id}-sources.zip") == ["net.py", "src/my-module/b.py"]
    for folder in (work, work / "sources"):
        assert members(folder / "my-module.zip") == ["src/my-module/b.py"]
    for folder in (work, tmp_path / "tmp" / "artifacts"):
        assert len(members(folder / f"{experiment.id}-artifacts.zip")) == 3
    for folder in (work, work / "artifacts"):
        assert members(folder / "images.zip") == ["data/images/a.png"]


def test_deletions_take_files_and_folders_and_no_empty_path(experiment: hr.Experiment) -> None:
    """Files, folders, and all of them by their names: an empty path is refused."""
    for name in ("forest_results.pkl", "other_results.pkl", "directory/a", "kept"):
        experiment.log_artifact(io.StringIO(name), name)
    with pytest.raises(InvalidName, match="empty"):
        experiment.delete_artifacts("")
    page.deletions(experiment)
    assert experiment.stored().artifacts == {}


@both
def test_a_reset_log_is_empty_and_may_be_used(experiment: hr.Experiment, handle: Handles) -> None:
    """All data is gone from the log, which goes on to be used."""
    experiment.log_metric("my_metric", 0.5)
    page.reset(handle(experiment))
    assert stored(experiment).get_channel("my_metric")["value"].tolist() == []
    handle(experiment).log_metric("my_metric", 0.25)
    assert stored(experiment).get_channel("my_metric")["value"].tolist() == [0.25]


@both
def test_channels_come_beside_their_x(experiment: hr.Experiment, handle: Handles) -> None:
    """`x` and the channels asked for."""
    for name in ("batch-1-loss", "batch-2-metric", "epoch-1-loss", "epoch-2-metric"):
        experiment.log_metric(name, 1, 0.5)
    batch, epoch = page.channels(handle(experiment))
    assert list(batch.columns) == ["x", "batch-1-loss", "batch-2-metric"]
    assert epoch.to_numpy().tolist() == [[1, 0.5, 0.5]]


def test_hardware_is_read_as_on_the_page(store: str) -> None:
    """The page's own reading: after 3 seconds the experiment used 16.7 GB of memory; and idle parts read 0."""
    made = Stored(open_store(store), SALT)
    agent = Source(Role.SYSTEM)
    agent.point("system/memory", 3, 16.7, START_NS + 3 * SECOND_NS)
    for name in ("system/cpu", "system/gpu0/utilization", "system/gpu0/memory"):
        agent.point(name, 3, 0.0, START_NS + 3 * SECOND_NS)
    made.commit(agent)
    [found] = hr.Session(store=store).get_project(SALT).get_experiments()
    frame = page.hardware(found)
    assert list(frame.columns) == [
        *("x_ram", "y_ram", "x_cpu", "y_cpu", "x_gpu_util_0", "y_gpu_util_0", "x_gpu_mem_0", "y_gpu_mem_0")
    ]
    assert frame.to_numpy().tolist() == [[3000, 16.7, 3000, 0, 3000, 0, 3000, 0]]


@both
def test_a_stopped_experiment_has_succeeded(experiment: hr.Experiment, handle: Handles) -> None:
    """Succeeded."""
    page.success(handle(experiment))
    assert StoredProject(experiment.origin.store, experiment.project).get_experiments()[0].state == "succeeded"


@both
def test_the_end_by_an_exception(experiment: hr.Experiment, handle: Handles) -> None:
    """Failed, with what was said."""
    page.failure(handle(experiment), ValueError("loss is nan"))
    [found] = StoredProject(experiment.origin.store, experiment.project).get_experiments(state="failed")
    assert found.record.traceback == "loss is nan"
