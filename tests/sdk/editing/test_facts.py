"""Facts of a stored experiment are changed by commits: seen by every reader when the call has returned."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

import headrace as hr
from headrace.errors import InvalidName, InvalidValue
from headrace.reading import StoredExperiment, StoredProject
from headrace_proto.events import Kind
from headrace_proto.store.chain import CURATION_SOURCE, Chain
from headrace_proto.store.curation import CHANGES_MAX
from tests.sdk.editing.conftest import Refuses
from tests.sdk.reading.stored import PROJECT, START_NS, Stored


def seen(stored: Stored) -> StoredExperiment:
    """The experiment as somebody else's list shows it."""
    [found] = StoredProject(stored.store, PROJECT).get_experiments()
    return found


def test_what_is_known_is_changed(experiment: StoredExperiment, stored: Stored) -> None:
    """Tags, properties and parameters, with the arguments and names of a live experiment; this handle sees it, and so do lists."""
    experiment.append_tag("b")
    experiment.append_tag("c", "d")
    experiment.append_tags(["e", "a"])
    experiment.remove_tag("c")
    experiment.remove_tag("never-there")
    experiment.set_property("epochs", 7)
    experiment.remove_property("model")
    experiment.remove_property("never set")
    experiment.log_parameter("seed", 3)
    experiment.log_parameters({"adam": {"eps": 1e-8}}, flatten="/")
    for one in (experiment, seen(stored)):
        assert one.tags == one.get_tags() == ["a", "b", "d", "e"]
        assert one.properties == one.get_properties() == {"epochs": "7"}
        assert one.params == one.get_parameters() == {"lr": 0.1, "seed": 3, "adam/eps": 1e-8}
    assert [one.internal_id for one in StoredProject(stored.store, PROJECT).get_experiments(tag=["a", "e"])] == [
        stored.id
    ]


def test_a_parameter_of_the_creation_is_fixed(experiment: StoredExperiment) -> None:
    """Others may be changed; and a refused call changes nothing."""
    experiment.log_parameters({"lr": 0.1, "seed": 1})
    experiment.log_parameter("seed", 2)
    with pytest.raises(InvalidValue, match=r"'lr' was fixed at creation as 0\.1"):
        experiment.log_parameters({"other": 1, "lr": 0.2})
    assert experiment.get_parameters() == {"lr": 0.1, "seed": 2}


@pytest.mark.parametrize(
    ("call", "wrong", "error"),
    [
        ("append_tag", ["no blanks"], InvalidName),
        ("append_tag", [3], InvalidValue),
        ("append_tag", [["good", "b!"]], InvalidName),
        ("append_tag", [None], InvalidValue),
        ("remove_tag", [""], InvalidName),
        ("remove_tag", [3], InvalidName),
        ("set_property", ["", 1], InvalidName),
        ("set_property", [3, 1], InvalidName),
        ("set_property", ["big", "x" * 20_000], InvalidValue),
        ("remove_property", [""], InvalidName),
        ("log_parameters", [[1]], InvalidValue),
        ("log_parameter", ["", 1], InvalidName),
    ],
    ids=lambda given: str(given)[:20],
)
def test_what_is_wrong_is_refused_and_commits_nothing(
    refuses: Refuses, call: str, wrong: list[Any], error: type[Exception]
) -> None:
    """By the errors of a live experiment."""
    refuses(call, wrong, error)


def test_secrets_are_masked_here_too(experiment: StoredExperiment) -> None:
    """What is stored is for everybody to read."""
    with pytest.warns(hr.errors.TelemetryWarning, match="looks like a secret"):
        experiment.set_property("stored_api_key", "0123456789abcdef")
    assert experiment.properties["stored_api_key"] == "***"


def test_a_clock_that_is_behind_changes_all_the_same(stored: Stored, experiment: StoredExperiment) -> None:
    """A curator has seen what is stored: a trainer's clock that was an hour fast does not give it the last word for an hour."""
    fast = time.time_ns() + 3600 * 10**9
    stored.owner.event(Kind.PROPERTY, fast, "model", "theirs")
    stored.owner.event(Kind.TAGS, fast, ["theirs"], [])
    stored.owner.event(Kind.ARTIFACT, fast, "model.bin", b"theirs", {})
    stored.owner.event(Kind.PARAMETERS, fast, {"seed": 1})
    stored.commit()
    experiment.set_property("model", "ours")
    experiment.remove_tag("theirs")
    experiment.log_parameter("seed", 2)
    experiment.delete_artifacts("model.bin")
    assert (experiment.properties, experiment.tags, experiment.params["seed"]) == ({"model": "ours"}, ["a"], 2)
    assert experiment.artifacts == {}


def test_curators_and_a_trainer_meet_without_harm(stored: Stored) -> None:
    """Commits are compare-and-swap: of two curators and a collector at once, nobody's word is lost."""

    def tag(name: str) -> None:
        handle = seen(stored)
        for number in range(8):
            handle.append_tag(f"{name}-{number}")

    threads = [threading.Thread(target=tag, args=(name,)) for name in ("ann", "bob")]
    for thread in threads:
        thread.start()
    for number in range(8):
        stored.owner.event(Kind.PROPERTY, START_NS, f"p{number}", "x")
        stored.commit()
    for thread in threads:
        thread.join()
    found = Chain(stored.store, PROJECT, stored.id).load().document
    assert set(found.tags) == {"a", *(f"{name}-{number}" for name in ("ann", "bob") for number in range(8))}
    assert len(found.properties) == 9
    assert CURATION_SOURCE in found.sources
    assert found.state == "running"


def test_a_block_is_one_commit(experiment: StoredExperiment, stored: Stored) -> None:
    """Of each experiment; from blocks within it too, and from another handle of the same experiment."""
    number = stored.chain.load().number
    with hr.buffered():
        experiment.set_property("a", 1)
        with hr.buffered():
            experiment.append_tag("b")
        for step in range(100):
            seen(stored).log_metric("late", step, step / 2)
        experiment.log_artifact(__file__, "test.py")
        assert stored.chain.load().number == number
    assert stored.chain.load().number == number + 1
    assert (experiment.properties["a"], experiment.tags) == ("1", ["a", "b"])
    assert experiment.get_numeric_channels_values("late")["late"].sum() == sum(range(100)) / 2
    assert list(experiment.artifacts) == ["model.bin", "test.py"]


def test_a_block_that_fails_keeps_what_was_said_before(experiment: StoredExperiment) -> None:
    """A call that returned is stored, whatever comes after it."""

    def work() -> None:
        with hr.buffered():
            experiment.set_property("a", 1)
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        work()
    assert experiment.get_properties()["a"] == "1"


def test_a_block_is_its_threads(experiment: StoredExperiment, stored: Stored) -> None:
    """Another thread's changes are commits of their own, at once."""
    with hr.buffered():
        thread = threading.Thread(target=lambda: experiment.set_property("b", 1))
        thread.start()
        thread.join()
        assert seen(stored).get_properties()["b"] == "1"


def test_thousands_of_changes_are_a_few_commits(experiment: StoredExperiment, stored: Stored) -> None:
    """Each bounded; all of them there, once, in their order."""
    number = stored.chain.load().number
    with hr.buffered():
        for step in range(20_000):
            experiment.log_metric("many", step, step)
    assert stored.chain.load().number == number + 3
    assert experiment.get_channel("many", duplicates="all")["value"].tolist() == list(range(20_000))


def test_a_commit_takes_as_many_changes_as_it_says(experiment: StoredExperiment, stored: Stored) -> None:
    """Also when each of them defines a channel: one that became two could be made half again after a conflict."""
    number = stored.chain.load().number
    with hr.buffered():
        for channel in range(CHANGES_MAX):
            experiment.log_text(f"log {channel}", "x")
    assert stored.chain.load().number == number + 1
    assert len(stored.chain.document.channels.text) == CHANGES_MAX + 1


def test_an_edit_is_no_sign_of_life(experiment: StoredExperiment, stored: Stored) -> None:
    """An experiment whose node went silent is not heard of again because somebody tags it."""
    seen_at = experiment.row.seen_at
    experiment.append_tag("dead")
    assert experiment.row.seen_at == seen(stored).row.seen_at == seen_at
