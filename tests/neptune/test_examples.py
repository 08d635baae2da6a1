"""Every example of the two references runs through the old names, by experiments that run and by experiments that are stored.

They are the pages of `tests/sdk/neptune_examples.py`, read with the import that old scripts would change it to.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
from matplotlib import pyplot as plt

import headrace as hr
from headrace import neptune
from headrace.neptune.experiments import Experiment
from headrace_proto.events import Role
from headrace_proto.store.backend import open_store
from tests.neptune.conftest import native
from tests.sdk import neptune_examples
from tests.sdk.reading.stored import SECOND_NS, START_NS, Source, Stored

SALT = "neptune-ai/Salt-Detection"
NATIVE, OLD = "import headrace as neptune", "import headrace.neptune as neptune"


def old_pages() -> Any:
    """The pages as a module that has been read with the other import."""
    text = Path(neptune_examples.__file__).read_text()
    assert text.count(NATIVE) == 1
    spec = spec_from_loader("old_pages", loader=None)
    assert spec is not None
    module = module_from_spec(spec)
    exec(compile(text.replace(NATIVE, OLD), "old_pages", "exec"), module.__dict__)
    return module


page = old_pages()


def live(experiment: Experiment) -> Experiment:
    """The one that runs."""
    return experiment


def stored(experiment: Experiment) -> Experiment:
    """The same out of a list."""
    return experiment._project.get_experiments(id=experiment.internal_id)[0]


Handles = Callable[[Experiment], Experiment]
both = pytest.mark.parametrize("handle", [live, stored])


@pytest.fixture(autouse=True)
def _a_folder_with_files(project: neptune.Project) -> Iterator[None]:
    """What the examples find in their working folder."""
    for name in ("training_with_pytorch.py", "net.py", "a.py", "src/my-module/b.py", ".hidden.py", "notes.txt"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(f"# {name}")
    for name in ("pictures/image.png", "images/wrong_prediction_1.png"):
        Path(name).parent.mkdir()
        Path(name).write_bytes(b"\x89PNG")
    mpl.use("agg")
    yield
    plt.close("all")


@pytest.fixture
def salt(store: str) -> neptune.Session:
    """A session over a store with the project of the examples."""
    files = open_store(store)
    for number, (author, outcome) in enumerate([("neyo", "aborted"), ("neyo", "succeeded"), ("josh", "aborted")]):
        made = Stored(files, SALT, name=f"run-{number}", author=author, params={"lr": number / 2})
        made.close(outcome, at_s=200_000)
    return neptune.Session(backend=neptune.Backend(session=hr.Session(store=store)))


def test_projects_list_and_show_as_on_the_page(salt: neptune.Session) -> None:
    """Members, lists and leaderboards; experiments are shown as on the page."""
    assert page.members(salt) == ["josh", "neyo"]
    assert repr(page.experiments(salt)) == "[Experiment(SAL-1)]"
    frame = page.leaderboard(salt)
    assert frame["id"].tolist() == ["SAL-1"]
    assert frame["parameter_lr"].tolist() == ["0.0"]  # text, as the old server's


def test_experiments_are_created(project: neptune.Project, capsys: pytest.CaptureFixture[str]) -> None:
    """In every form; each prints how to look at it."""
    made = page.create()
    assert neptune.get_experiment() is made[-1]
    for _ in range(len(made) + 1):
        neptune.stop()
    with pytest.raises(neptune.exceptions.NeptuneNoExperimentContextException):
        neptune.get_experiment()
    assert len(project.get_experiments(state="succeeded")) == len(made) + 1 == 10
    assert made[-1].get_tags() == sorted(["list-of", "tags", "goes-here", "as-list-of-strings"])
    assert made[-1].get_properties() == {"key1": "value1", "key2": "17", "key3": "other-value"}
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("headrace show ")]
    assert shown[1] == f"headrace show {made[0].internal_id} --project neptune-ai/sandbox"


def test_a_notebook_is_found_by_its_id(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made, and found by the id."""
    monkeypatch.setenv("NEPTUNE_PROJECT", SALT)
    monkeypatch.setenv("HEADRACE_STORE", store)
    notebook = page.new_notebook()
    assert page.old_notebook(notebook.id) == notebook


def test_identity_and_state(project: neptune.Project) -> None:
    """A short id of the project's key, a name, a state."""
    assert page.attributes(project, page.first(project)) == ("SAN-1", "exp_name", "running")


@both
def test_facts_come_back_as_on_the_page(experiment: Experiment, handle: Handles) -> None:
    """System properties, tags, properties, parameters."""
    experiment.append_tag(["tag-1", "tag-2"])
    experiment.set_property("host", "node-7")
    assert len(page.system_properties(handle(experiment))) == 13
    page.tags(handle(experiment))
    assert set(handle(experiment).get_tags()) == {"tag-2", "new-tag", "first-tag", "second-tag", "third-tag"}
    assert page.facts(handle(experiment)) == ({"lr": 0.5}, {"model": "LightGBM", "magic-number": "7"})


@both
def test_series_give_their_last_values_and_channels(experiment: Experiment, handle: Handles) -> None:
    """Metrics, texts, and their last values: as values, and as channels."""
    logs = page.metrics(handle(experiment))
    assert logs == {"accuracy": 0.8}
    assert (logs["accuracy"].x, logs["accuracy"].y, logs["accuracy"].name) == (2, 0.8, "accuracy")
    page.texts({"a": 1}, 0.25)
    assert handle(experiment).get_logs()["my_text_data"].y == "{'a': 1}"
    for name in ("batch-1-loss", "batch-2-metric", "epoch-1-loss", "epoch-2-metric"):
        experiment.log_metric(name, 1, 0.5)
    batch, epoch = page.channels(handle(experiment))
    assert list(batch.columns) == ["x", "batch-1-loss", "batch-2-metric"]
    assert epoch.to_numpy().tolist() == [[1, 0.5, 0.5]]
    experiment.log_metric("my_metric", 0.5)
    page.reset(handle(experiment))
    assert len(stored(experiment).get_numeric_channels_values("my_metric")) == 0


@both
def test_images_of_every_form_on_the_page_are_stored(experiment: Experiment, handle: Handles) -> None:
    """Paths, pictures, arrays of every shape, figures."""
    page.images(handle(experiment))
    page.figures(handle(experiment))
    logs = stored(experiment).get_logs()
    assert {name: (log.type, log.x, log.y) for name, log in logs.items()} == {
        "bbox_images": ("image", 6, None),
        "diagrams": ("image", 0, None),
        "fig": ("image", 4, None),
        "plots": ("image", 0, None),
    }


@both
def test_files_are_logged_downloaded_and_deleted_as_on_the_page(
    experiment: Experiment, handle: Handles, tmp_path: Path
) -> None:
    """Logged, downloaded, deleted. Of an empty path the old code said that it refuses to delete everything; so do we."""
    page.artifacts(handle(experiment))
    for name in ("forest_results.pkl", "other_results.pkl", "data/images/a.png", "directory/a"):
        experiment.log_artifact(io.StringIO(name), name)
    native(experiment).note_sources(["src", "net.py"])
    page.downloads(handle(experiment), str(tmp_path / "home"), str(tmp_path / "tmp"))
    assert (tmp_path / "home/user/files/forest_results.pkl").read_text() == "forest_results.pkl"
    for archive in ("my-module.zip", "images.zip", "sources/my-module.zip", "artifacts/images.zip"):
        assert Path(archive).is_file()
    assert len(list((tmp_path / "tmp").rglob("*.zip"))) == 2
    handle(experiment).delete_artifacts("forest_results.pkl")
    handle(experiment).delete_artifacts(["other_results.pkl", "directory"])  # forest_results.pkl on the page, once more
    with pytest.raises(ValueError, match="remove it"):
        handle(experiment).delete_artifacts("")
    with pytest.raises(neptune.exceptions.FileNotFound, match="forest_results"):
        stored(experiment).download_artifact("forest_results.pkl")


def test_hardware_is_read_as_on_the_page(store: str) -> None:
    """The page's own reading: after 3 seconds the experiment used 16.7 GB of memory."""
    made = Stored(open_store(store), SALT)
    agent = Source(Role.SYSTEM)
    agent.point("system/memory", 3, 16.7, START_NS + 3 * SECOND_NS)
    made.commit(agent)
    session = neptune.Session(backend=neptune.Backend(session=hr.Session(store=store)))
    frame = page.hardware(session.get_project(SALT).get_experiments()[0])
    assert frame.to_dict("list") == {"x_ram": [3000], "y_ram": [16.7]}


@both
def test_an_end_is_what_was_said_of_it(project: neptune.Project, experiment: Experiment, handle: Handles) -> None:
    """Succeeded, and failed with what was said."""
    page.success(handle(experiment))
    other = project.create_experiment(upload_source_files=[])
    page.failure(handle(other), ValueError("loss is nan"))
    assert [one.state for one in (stored(experiment), stored(other))] == ["succeeded", "failed"]
