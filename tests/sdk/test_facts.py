"""Facts: what an experiment is created with, and what changes afterwards; told to the journal, answered from memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import headrace as hr
from headrace.errors import HomeUnusable, InvalidName, InvalidValue
from headrace_proto.events import Kind
from tests.sdk.journals import journal_of

Create = Callable[..., hr.Experiment]


def test_creation_is_one_event(create: Create) -> None:
    """All that `create_experiment` was given stands in the journal's CREATE, and is known at once."""
    given = {"lr": 1e-3, "layers": [64, 32], "adam": {"betas": (0.9, 0.999)}, "fast": True, "seed": None, "name": "mlp"}
    experiment = create(
        name="mlp",
        description="a first try",
        params=given,
        properties={"data": "v3", "epochs": 7},
        tags=["baseline", "digits", "baseline"],
        author="ada",
    )
    created = journal_of(experiment).created
    assert created["name"] == experiment.name == "mlp"
    assert created["description"] == "a first try"
    assert created["params"] == experiment.get_parameters() == {**given, "adam": {"betas": [0.9, 0.999]}}
    assert created["properties"] == experiment.get_properties() == {"data": "v3", "epochs": "7"}
    assert created["tags"] == experiment.get_tags() == ["baseline", "digits"]
    assert (created["author"], created["hostname"]) == ("ada", "node-7")
    assert created["created_ns"] > 0


def test_everything_has_a_default(create: Create) -> None:
    """The shortest call makes an untitled experiment."""
    created = journal_of(create()).created
    assert (created["name"], created["description"], created["params"], created["tags"]) == ("Untitled", "", {}, [])
    assert created.get("author") is None


def test_the_author_comes_from_the_project(home: Any) -> None:
    """Unless the experiment says otherwise."""
    project = hr.init("vision/digits", home=home.root, author="ada")
    with project.create_experiment(upload_source_files=[], git_info=False) as experiment:
        assert journal_of(experiment).created["author"] == "ada"


def test_a_creation_of_any_size_is_kept(create: Create) -> None:
    """Thousands of parameters, properties and tags are more than one event holds."""
    params = {f"p{i}": "x" * 1000 for i in range(300)}
    properties = {f"q{i}": "y" * 1000 for i in range(100)}
    tags = [f"tag-{i}-" + "z" * 200 for i in range(500)]
    journal = journal_of(create(params=params, properties=properties, tags=tags))
    kept = dict(journal.created["params"])
    for [more] in journal.of(Kind.PARAMETERS):
        kept.update(more)
    assert kept == params
    assert journal.created["properties"] | dict(journal.of(Kind.PROPERTY)) == properties
    assert journal.created["tags"] + [tag for added, _ in journal.of(Kind.TAGS) for tag in added] == tags


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (2**70, str(2**70)),
        ((1, 2), [1, 2]),
        ({1: {"a": np.int8(2)}}, {"1": {"a": 2}}),
        (math.inf, math.inf),
        (ValueError, "<class 'ValueError'>"),
        ("\udcff", "?"),
    ],
    ids=repr,
)
def test_parameters_are_what_json_can_hold(create: Create, value: Any, kept: Any) -> None:
    """Numbers of other libraries become Python's; anything else is kept as its text."""
    assert journal_of(create(params={"p": value})).created["params"] == {"p": kept}


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"name": 3}, InvalidValue),
        ({"description": ["a"]}, InvalidValue),
        ({"params": [1]}, InvalidValue),
        ({"params": {"": 1}}, InvalidName),
        ({"params": {3: 1}}, InvalidName),
        ({"params": {"big": "x" * 20_000}}, InvalidValue),
        ({"properties": "a"}, InvalidValue),
        ({"properties": {"a\nb": 1}}, InvalidName),
        ({"properties": {"a": "x" * 20_000}}, InvalidValue),
        ({"tags": "baseline"}, InvalidValue),
        ({"tags": ["no blanks"]}, InvalidName),
        ({"tags": [3]}, InvalidName),
        ({"author": 3}, InvalidValue),
        ({"hostname": 3}, InvalidValue),
        ({"key": 3}, InvalidValue),
        ({"key": ""}, InvalidValue),
        ({"resume": "perhaps"}, InvalidValue),
        ({"key": "a", "rank": -1}, InvalidValue),
        ({"label": 3}, InvalidValue),
        ({"on_error": "ignore"}, InvalidValue),
    ],
    ids=lambda given: str(given)[:30],
)
def test_a_wrong_argument_creates_nothing(
    create: Create, home: Any, wrong: dict[str, Any], error: type[Exception]
) -> None:
    """It is refused by a typed error before there is a journal."""
    with pytest.raises(error):
        create(**wrong)
    assert list(__import__("os").listdir(home.journals)) == []


@pytest.mark.parametrize("name", ["digits", "a/b/c", "/b", "a/", "a b/c", "", 3, None], ids=repr)
def test_a_project_has_a_workspace_and_a_name(name: Any) -> None:
    """Anything else is refused at `init`."""
    with pytest.raises(InvalidName, match="workspace/name"):
        hr.init(name)


def test_a_home_that_cannot_be_written_is_refused(tmp_path: Any) -> None:
    """The message says what to do."""
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(HomeUnusable, match="HEADRACE_HOME"):
        hr.init("a/b", home=tmp_path / "file").create_experiment()


def test_properties_are_set_and_removed(experiment: hr.Experiment) -> None:
    """A property is the text of its value."""
    experiment.set_property("model", "mlp")
    experiment.set_property("epochs", 7)
    experiment.set_property("model", "cnn")
    experiment.remove_property("epochs")
    experiment.remove_property("never set")
    assert experiment.properties == {"model": "cnn"}
    assert journal_of(experiment).of(Kind.PROPERTY) == [
        ["model", "mlp"],
        ["epochs", "7"],
        ["model", "cnn"],
        ["epochs", None],
        ["never set", None],
    ]


@pytest.mark.parametrize(("key", "value"), [("", "a"), (3, "a"), ("a\0", "b"), ("big", "x" * 20_000)], ids=repr)
def test_a_wrong_property_is_refused(experiment: hr.Experiment, key: Any, value: str) -> None:
    """At the call, and nothing is logged."""
    with pytest.raises((InvalidName, InvalidValue)):
        experiment.set_property(key, value)
    assert experiment.properties == {}
    assert journal_of(experiment).of(Kind.PROPERTY) == []


def test_tags_come_one_by_one_several_or_as_a_list(experiment: hr.Experiment) -> None:
    """Neptune's three forms, and its other name."""
    experiment.append_tag("a")
    experiment.append_tag("b", "c")
    experiment.append_tags(["d", "a"])
    experiment.remove_tag("b")
    experiment.remove_tag("never-there")
    assert experiment.get_tags() == ["a", "c", "d"]
    assert journal_of(experiment).of(Kind.TAGS) == [
        [["a"], []],
        [["b", "c"], []],
        [["d", "a"], []],
        [[], ["b"]],
        [[], ["never-there"]],
    ]


@pytest.mark.parametrize("tag", ["", "two words", "ünder", "x" * 256, 3, ["a", "b!"]], ids=lambda t: repr(t)[:12])
def test_a_wrong_tag_adds_none(experiment: hr.Experiment, tag: Any) -> None:
    """Not even the good ones beside it."""
    with pytest.raises(InvalidName if tag != 3 else (InvalidName, TypeError)):
        experiment.append_tag("good", tag) if not isinstance(tag, list) else experiment.append_tag(tag)
    assert experiment.get_tags() == []


def test_parameters_are_added(experiment: hr.Experiment) -> None:
    """One by one, many, and nested ones flattened; what this process added it may overwrite."""
    experiment.log_parameter("lr", 0.1)
    experiment.log_parameter("lr", 0.2)
    experiment.log_parameters({"adam": {"beta": {"one": 0.9}, "eps": 1e-8}, "empty": {}}, flatten="/")
    added = {"lr": 0.2, "adam/beta/one": 0.9, "adam/eps": 1e-8, "empty": {}}
    assert experiment.params == added
    journaled: dict[str, Any] = {}
    for [some] in journal_of(experiment).of(Kind.PARAMETERS):
        journaled.update(some)
    assert journaled == added


def test_parameters_of_the_creation_are_fixed(create: Create) -> None:
    """Giving one again is fine, changing it is not; and a refused call adds nothing."""
    experiment = create(params={"lr": 0.1})
    experiment.log_parameters({"lr": 0.1, "seed": 1})
    with pytest.raises(InvalidValue, match="fixed at creation"):
        experiment.log_parameters({"other": 1, "lr": 0.2})
    assert experiment.params == {"lr": 0.1, "seed": 1}


def test_what_is_asked_for_is_a_copy(create: Create) -> None:
    """Changing an answer changes nothing."""
    experiment = create(params={"lr": 0.1}, properties={"a": "b"}, tags=["a"])
    experiment.params.clear()
    experiment.properties.clear()
    experiment.tags.clear()
    assert (experiment.params, experiment.properties, experiment.tags) == ({"lr": 0.1}, {"a": "b"}, ["a"])
