"""Listing a project: Neptune's criteria, Neptune's leaderboard, and experiments by any of their ids."""

from __future__ import annotations

import pickle
from math import inf, isnan
from typing import TYPE_CHECKING

import numpy as np
import pytest

from headrace.reading import StoredProject
from headrace_proto.errors import ExperimentNotFound, InvalidName, InvalidValue, ProjectNotFound
from headrace_proto.store import layout
from headrace_proto.store.catalog import CatalogRow, append_rows
from headrace_proto.store.claims import claim_project
from tests.sdk.reading.stored import PROJECT, Stored

if TYPE_CHECKING:
    from headrace_proto.store.backend import Store


def _three(store: Store) -> list[Stored]:
    """A succeeded, a failed and a running experiment."""
    one = Stored(store, name="one", author="josh", tags=["cnn", "best"], params={"lr": 0.1}, created_s=0)
    one.close(at_s=100)
    two = Stored(store, name="two", author="frederic", tags=["cnn"], created_s=10)
    two.close("failed", "Traceback", at_s=20)
    return [one, two, Stored(store, name="three", author="josh", tags=[], created_s=20)]


def test_criteria_are_alternatives_within_and_all_met_together(files: Store) -> None:
    """Values of one criterion are alternatives, tags must all be there, and all criteria must be met."""
    one, two, three = _three(files)
    project = StoredProject(files, PROJECT)

    def found(**criteria: object) -> list[str]:
        return [experiment.name for experiment in project.get_experiments(**criteria)]  # type: ignore[arg-type]

    assert found() == ["one", "two", "three"]
    assert found(id="DIG-2") == ["two"]
    assert found(id=["DIG-1", three.id, "DIG-9"]) == ["one", "three"]
    assert found(state=["failed", "running"]) == ["two", "three"]
    assert found(owner="josh", state="succeeded") == ["one"]
    assert found(owner=["josh", "frederic"]) == ["one", "two", "three"]
    assert found(tag="cnn") == ["one", "two"]
    assert found(tag=["cnn", "best"]) == ["one"]
    assert found(tag=["cnn", "best"], state="failed") == []
    assert found(tag=[]) == ["one", "two", "three"]
    assert found(state=[]) == []
    with pytest.raises(InvalidValue, match="'done' is none of running, succeeded"):
        found(state="done")
    assert found(min_running_time=10) == ["one", "two", "three"]
    assert found(min_running_time=11) == ["one", "three"]
    assert found(min_running_time=101) == ["three"]
    assert found(min_running_time=np.int64(11)) == found(min_running_time=10.5) == ["one", "three"]
    assert [len(project), [experiment.internal_id for experiment in project]] == [3, [one.id, two.id, three.id]]


@pytest.mark.parametrize("criteria", [{"state": 7}, {"tag": [1]}, {"min_running_time": "1 h"}])
def test_criteria_of_the_wrong_type(files: Store, criteria: dict[str, object]) -> None:
    """A criterion that can match nothing is an error that names it, not an empty list."""
    with pytest.raises(InvalidValue, match=next(iter(criteria))):
        StoredProject(files, PROJECT).get_experiments(**criteria)  # type: ignore[arg-type]


def test_numbers_order_the_list(files: Store) -> None:
    """DIG-10 comes after DIG-9."""
    append_rows(
        files,
        PROJECT,
        [
            CatalogRow(experiment=f"{number:032x}", commit=1, id=f"DIG-{number}", name="", state="running")
            for number in (10, 9, 1, 100)
        ],
    )
    ids = [experiment.id for experiment in StoredProject(files, PROJECT).get_experiments()]
    assert ids == ["DIG-1", "DIG-9", "DIG-10", "DIG-100"]


def test_the_leaderboard_has_neptunes_columns_in_its_order(files: Store) -> None:
    """Columns come as Neptune's: system properties, then channels, parameters and properties, each by name."""
    first = Stored(
        files,
        name="mlp",
        description="a note",
        params={"lr": 0.1, "deep": {"a": [1]}, "bad": inf},
        properties={"model": "mlp"},
        tags=["b", "a"],
        created_s=0,
    )
    first.owner.point("val/loss", 1, 0.5)
    first.owner.point("val/loss", 0, 9.0)
    first.owner.point("acc", 0, float("nan"))
    first.owner.point("system/cpu", 0, 1.0)
    first.owner.text("notes", 0, "x" * 300)
    first.owner.text("stdout", 0, "epoch 1")
    first.close(at_s=90.5)
    Stored(files, name="other", params={"layers": 2}, created_s=1)
    frame = StoredProject(files, PROJECT).get_leaderboard()
    assert list(frame.columns) == [
        *("id", "name", "created", "finished", "owner", "notes", "running_time", "size", "tags"),
        *("channel_acc", "channel_notes", "channel_val/loss"),
        *("parameter_bad", "parameter_deep", "parameter_layers", "parameter_lr"),
        "property_model",
    ]
    assert list(frame.index) == [0, 1]
    row = frame.iloc[0]
    assert (row["id"], row["name"], row["owner"], row["notes"], row["tags"]) == (
        "DIG-1",
        "mlp",
        "josh",
        "a note",
        ["a", "b"],
    )
    assert (row["running_time"], row["parameter_bad"], row["parameter_deep"]) == (90.5, inf, {"a": [1]})
    assert row["created"].isoformat() == "2026-01-01T00:00:00+00:00"
    assert row["size"] > 0
    assert row["channel_val/loss"] == 0.5
    assert isnan(row["channel_acc"])
    assert row["channel_notes"] == "x" * 255
    assert isnan(frame.iloc[1]["parameter_lr"])


def test_an_empty_leaderboard_has_its_columns(files: Store) -> None:
    """A project without experiments, or a filter that nothing meets, gives no rows and the system columns."""
    frame = StoredProject(files, PROJECT).get_leaderboard(state="running")
    assert frame.shape == (0, 9)


def test_lists_open_no_experiment(files: Store) -> None:
    """Listing, filtering and the attributes of what was listed read the catalog only: documents may all be gone."""
    for stored in _three(files):
        files.delete(f"{stored.chain.folder}/commits/{name}" for name in files.names(f"{stored.chain.folder}/commits"))
    experiments = StoredProject(files, PROJECT).get_experiments(tag="best")
    assert [(e.id, e.name, e.state, e.tags, e.params, e.owner) for e in experiments] == [
        ("DIG-1", "one", "succeeded", ["best", "cnn"], {"lr": 0.1}, "josh")
    ]


def test_what_was_listed_can_be_sent_to_another_process(files: Store) -> None:
    """An experiment of a list is pickled with its own row and none of the list's."""
    _three(files)
    experiments = StoredProject(files, PROJECT).get_experiments()
    data = pickle.dumps(experiments[1])
    assert len(data) < 5_000
    copied = pickle.loads(data)
    assert (copied, copied.name, copied.state) == (experiments[1], "two", "failed")


def test_a_list_is_fresh(files: Store) -> None:
    """A project that was listed before shows what was stored since."""
    project = StoredProject(files, PROJECT)
    assert project.get_experiments() == []
    stored = Stored(files)
    (running,) = project.get_experiments()
    stored.close()
    (finished,) = project.get_experiments()
    assert (running.state, finished.state) == ("running", "succeeded")
    assert running == finished
    running.refresh()
    assert running.state == "succeeded"


def test_any_id_finds_an_experiment(files: Store) -> None:
    """The short id, the internal id and any beginning of that which is unique mean the experiment."""
    stored = [Stored(files) for _ in range(3)]
    project = StoredProject(files, PROJECT)
    first = stored[0]
    length = next(n for n in range(1, 33) if not any(other.id.startswith(first.id[:n]) for other in stored[1:]))
    for given in ("DIG-1", first.id, first.id[:length]):
        assert project.get_experiment(given).internal_id == first.id


def test_a_key_finds_an_experiment(files: Store) -> None:
    """As it was given to `create_experiment`; its beginning means nothing, nor does it in another project."""
    Stored(files)
    keyed = Stored(files, key="night-7")
    project = StoredProject(files, PROJECT)
    assert project.get_experiment("night-7").internal_id == keyed.id
    for given in ("night", "night-70"):
        with pytest.raises(ExperimentNotFound, match=given):
            project.get_experiment(given)
    with pytest.raises(ExperimentNotFound, match="night-7"):
        StoredProject(files, "vision/other").get_experiment("night-7")


def test_ids_that_mean_none_or_several(files: Store) -> None:
    """An ambiguous beginning names what it fits; an unknown id, a longer number and an empty one fit nothing."""
    rows = [
        CatalogRow(experiment=start + "0" * 28, commit=1, id=f"DIG-{n}", name="", state="running")
        for n, start in ((1, "ab01"), (12, "ab02"), (3, "cd03"))
    ]
    append_rows(files, PROJECT, rows)
    project = StoredProject(files, PROJECT)
    with pytest.raises(ExperimentNotFound, match=r"fits 2 .*DIG-1 \(ab01.*DIG-12 \(ab02"):
        project.get_experiment("ab")
    assert project.get_experiment("ab02").id == "DIG-12"
    for given in ("DIG-2", "DIG", "zz", "f" * 32):
        with pytest.raises(ExperimentNotFound, match=given):
            project.get_experiment(given)
    with pytest.raises(InvalidValue):
        project.get_experiment("")


def test_an_experiment_before_the_catalog_has_it(files: Store) -> None:
    """An experiment that is committed is found by its internal id, whatever the catalog shows."""
    stored = Stored(files)
    folder = layout.catalog_folder(PROJECT, 0)
    files.delete([f"{folder}/{name}" for name in files.names(folder)])
    assert StoredProject(files, PROJECT).get_experiment(stored.id).id == "DIG-1"


def test_a_project_that_is_not_there(files: Store) -> None:
    """A project without anything stored is empty; asking for its record says which projects there are."""
    claim_project(files, PROJECT)
    missing = StoredProject(files.url, "vision/other")
    assert missing.get_experiments() == []
    with pytest.raises(ProjectNotFound, match=PROJECT):
        _ = missing.record
    assert StoredProject(files.url, PROJECT).key == "DIG"
    with pytest.raises(InvalidName):
        StoredProject(files, "../vision")
