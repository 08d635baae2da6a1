"""Notebooks: made, found again, and their files kept as they were."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import headrace as hr
from headrace.errors import ArtifactNotFound, InvalidValue, NotebookNotFound
from headrace_proto.home import Home
from headrace_proto.store.claims import projects
from tests.processes import in_threads


@pytest.fixture
def project(home: Home, store: str) -> hr.Project:
    """A project of nobody yet."""
    return hr.init("vision/digits", home=home.root, store=store, author="ada", direct=True)


def test_a_notebook_is_found_again(project: hr.Project) -> None:
    """By its id, from any process; an experiment can say that it was run from there."""
    notebook = project.create_notebook()
    found = hr.init("vision/digits", store=project.store).get_notebook(notebook.id)
    assert found == notebook
    assert (found.id, found.owner, found.project) == (notebook.id, "ada", "vision/digits")
    assert repr(found) == f"Notebook({notebook.id})"
    assert len({notebook, found, project.create_notebook()}) == 2
    assert projects(project.stored().store) == ["vision/digits"]
    with project.create_experiment(
        notebook_id=notebook.id, notebook_path="work/a.ipynb", upload_source_files=[], git_info=False
    ) as experiment:
        pass
    facts = experiment.stored().record.facts
    assert (facts["notebook_id"], facts["notebook_path"]) == (notebook.id, "work/a.ipynb")


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ("d1c1b494-0620-4e54-93d5-29f4e848a51a", NotebookNotFound),
        ("../project.json", NotebookNotFound),
        ("", NotebookNotFound),
        (3, InvalidValue),
        (None, InvalidValue),
    ],
    ids=repr,
)
def test_an_unknown_notebook_is_named(project: hr.Project, wrong: Any, error: type[Exception]) -> None:
    """With those that there are."""
    notebook = project.create_notebook()
    with pytest.raises(error) as told:
        project.get_notebook(wrong)
    assert repr(wrong) in str(told.value)
    assert notebook.id in str(told.value) or error is InvalidValue


def test_checkpoints_keep_the_file(project: hr.Project, tmp_path: Path) -> None:
    """Each as it was; the newest says where the notebook lies."""
    notebook = project.create_notebook()
    assert (notebook.get_path(), notebook.get_name(), notebook.checkpoint_urls()) == (None, None, [])
    path = tmp_path / "explore.ipynb"
    for content in ("one", "two"):
        path.write_text(content)
        checkpoint = notebook.add_checkpoint(path)
        assert (checkpoint.name, checkpoint.path) == ("explore.ipynb", str(path))
    assert [Path(url).read_text() for url in notebook.checkpoint_urls()] == ["one", "two"]
    assert (notebook.get_path(), notebook.get_name()) == (str(path), "explore.ipynb")
    with pytest.raises(ArtifactNotFound, match="no notebook at"):
        notebook.add_checkpoint(tmp_path / "nowhere.ipynb")
    with pytest.raises(InvalidValue, match="cannot be read"):
        notebook.add_checkpoint(tmp_path)


def test_beginning_an_experiment_makes_a_checkpoint(
    project: hr.Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the file as it was then; the experiment keeps its id. The notebook is the source that runs, unless none is wanted."""
    monkeypatch.setattr("sys.argv", [""])
    notebook, path = project.create_notebook(), tmp_path / "explore.ipynb"
    path.write_text("as it was")
    where: dict[str, Any] = {"notebook_id": notebook.id, "notebook_path": str(path), "git_info": False}
    with project.create_experiment(**where) as experiment:
        path.write_text("changed since")
    [url] = notebook.checkpoint_urls()
    assert Path(url).read_text() == "as it was"
    stored = experiment.stored()
    assert stored.record.facts["checkpoint_id"] in url
    assert list(stored.source_files) == ["explore.ipynb"]
    with project.create_experiment(**where, upload_source_files=[]) as bare:
        pass
    assert not bare.stored().source_files
    assert len(notebook.checkpoint_urls()) == 2


def test_a_checkpoint_that_cannot_be_made_is_told_and_no_more(
    project: hr.Project, tmp_path: Path, home: Home, recwarn: pytest.WarningsRecorder
) -> None:
    """A notebook that nobody made, a path of another machine. Where the store is elsewhere nobody is asked."""
    path, unknown = tmp_path / "explore.ipynb", "d1c1b494-0620-4e54-93d5-29f4e848a51a"
    path.touch()
    notebook = project.create_notebook()
    for notebook_id, place, told in (
        (unknown, str(path), f"no notebook {unknown!r}"),
        (notebook.id, "elsewhere/explore.ipynb", "no notebook at 'elsewhere/explore.ipynb'"),
    ):
        with project.create_experiment(
            notebook_id=notebook_id, notebook_path=place, upload_source_files=[], git_info=False
        ) as experiment:
            pass
        [warned] = [str(one.message) for one in recwarn.list if "no checkpoint" in str(one.message)]
        assert told in warned
        assert "checkpoint_id" not in experiment.stored().record.facts
        recwarn.clear()
    far = hr.init("vision/digits", home=home.root, store="s3://nobody-has-this/runs")
    with far.create_experiment(
        notebook_id=notebook.id, notebook_path=str(path), upload_source_files=[], git_info=False
    ):
        assert not recwarn.list


def test_checkpoints_at_once_are_all_kept(project: hr.Project, tmp_path: Path) -> None:
    """Each has a number of its own."""
    notebook = project.create_notebook()
    path = tmp_path / "explore.ipynb"
    path.write_text("x")
    in_threads(6, lambda _: notebook.add_checkpoint(os.fspath(path)))
    assert len(notebook.checkpoint_urls()) == 6
