"""Paths: each thing has one, in order, and no name can make one lead elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_proto.errors import InvalidName
from headrace_proto.store import layout
from headrace_proto.store.layout import checked_path

PROJECT, EXPERIMENT, SOURCE = "vision/digits", "e" * 32, "a" * 32
_numbers = st.integers(0, 10**20 - 1)


@given(st.lists(_numbers, min_size=2))
def test_names_of_commits_sort_as_their_numbers(numbers: list[int]) -> None:
    """The order of names is the order of commits, for ever, and a name says its number."""
    names = [layout.commit_file(PROJECT, EXPERIMENT, number).rpartition("/")[2] for number in numbers]
    assert [layout.commit_number(name) for name in sorted(names)] == sorted(numbers)


@pytest.mark.parametrize(
    "name", ["7.json", f"{7:020d}.json.part", f"{7:021d}.json", f"{7:020d}", "x", f"{-7:020d}.json", ""]
)
def test_other_names_are_no_commits(name: str) -> None:
    """What else may lie in the folder is not taken for a commit."""
    assert layout.commit_number(name) is None


@pytest.mark.parametrize("name", ["0.json", "07.json", "7", "7.json.part", "x.json", "-7.json"])
def test_other_names_are_no_claims(name: str) -> None:
    """One number has one name, which nothing else is taken for."""
    assert layout.claim_number(name) is None
    assert layout.claim_number("7.json") == 7


@pytest.mark.parametrize("number", [-1, 10**20])
def test_numbers_out_of_range(number: int) -> None:
    """A number that would break the order has no name."""
    with pytest.raises(ValueError, match="digits"):
        layout.digits(number)


@given(st.text(max_size=60))
def test_no_text_leaves_its_folder(text: str) -> None:
    """Whatever is given as a name gives a path below the experiment (of a store, relative, without '..'), or is refused."""
    folder = layout.experiment_folder(PROJECT, EXPERIMENT)
    made: list[Callable[[], str]] = [
        lambda: layout.image_file(PROJECT, EXPERIMENT, text, "1-abc.png"),
        lambda: layout.text_file(PROJECT, EXPERIMENT, "notes", text),
        lambda: layout.artifact_file(PROJECT, EXPERIMENT, text),
        lambda: layout.source_file(PROJECT, EXPERIMENT, text),
        lambda: layout.piece_file(PROJECT, EXPERIMENT, SOURCE, text, 0),
        lambda: layout.channel_part(PROJECT, EXPERIMENT, 1, text),
    ]
    for make in made:
        try:
            path = make()
        except InvalidName:
            continue
        assert checked_path(path).startswith(f"{folder}/")


@pytest.mark.parametrize("experiment", ["", "..", "E" * 32, "e" * 31, "e" * 33, "../" + "e" * 29])
def test_only_ids_name_experiments(experiment: str) -> None:
    """An experiment's folder is named by an id and nothing else."""
    with pytest.raises(InvalidName):
        layout.commits_folder(PROJECT, experiment)


@pytest.mark.parametrize("project", ["digits", "a/b/c", "../digits", "_headrace/keys", "a/.."])
def test_only_project_names_name_projects(project: str) -> None:
    """A project's folder cannot be another project's, nor the store's own."""
    with pytest.raises(InvalidName):
        layout.project_file(project)
    assert not layout.is_project(project)


def test_channels_of_like_names_have_folders_of_their_own() -> None:
    """Names that differ in case-free, separators or length alone never share a folder."""
    names = ["a/b", "a%2Fb", "a b", ".", "..", "x" * 500, "x" * 501, "ü"]
    folders = {layout.image_file(PROJECT, EXPERIMENT, name, "1.png") for name in names}
    assert len(folders) == len(names)
    assert all(len(part) <= 255 for folder in folders for part in folder.split("/"))
