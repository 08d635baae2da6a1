"""Reading an experiment: facts, series in Neptune's shapes, hardware, texts and images."""

from __future__ import annotations

from math import inf, isnan, nan
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.reading import StoredExperiment, StoredProject
from headrace.reading.snapshot import Snapshot
from headrace_proto.errors import ArtifactNotFound, ChannelNotFound, ExperimentNotFound, InvalidValue
from headrace_proto.events import Kind, Role
from headrace_proto.ids import random_id
from headrace_proto.store.backend import open_store
from tests.sdk.reading.stored import PROJECT, SECOND_NS, START_NS, Source, Stored

if TYPE_CHECKING:
    from headrace_proto.store.backend import Store


def _open(stored: Stored) -> StoredExperiment:
    return StoredExperiment(stored.store, stored.project, stored.id)


def test_facts_come_back_with_their_types(files: Store) -> None:
    """What was said about the experiment comes back, with the types that it had."""
    stored = Stored(
        files,
        name="mlp",
        params={"lr": 0.1, "deep": {"n": [1, None]}, "inf": inf},
        properties={"k": "v"},
        tags=["b", "a"],
    )
    stored.owner.event(Kind.FACTS, START_NS, {"hostname": "node-1", "description": "why"})
    stored.close(at_s=12.5)
    experiment = _open(stored)
    assert experiment.get_parameters() == experiment.params == {"lr": 0.1, "deep": {"n": [1, None]}, "inf": inf}
    assert experiment.get_properties() == {"k": "v"}
    assert experiment.get_tags() == ["a", "b"]
    properties = experiment.get_system_properties()
    assert list(properties) == [
        *("id", "name", "created", "finished", "running_time", "owner", "storage_size", "channels_size", "size"),
        *("tags", "notes", "description", "hostname"),
    ]
    assert (properties["id"], properties["running_time"], properties["hostname"]) == ("DIG-1", 12.5, "node-1")
    assert properties["size"] == properties["storage_size"] + properties["channels_size"]
    assert experiment.url == f"{files.url}/{PROJECT}/experiments/{stored.id}"
    assert repr(experiment) == str(experiment) == "Experiment(DIG-1)"


def test_there_is_no_such_experiment(files: Store) -> None:
    """An id of which nothing is stored is an error when it is opened."""
    with pytest.raises(ExperimentNotFound):
        StoredExperiment(files, PROJECT, random_id())


def test_numeric_channels_side_by_side(files: Store) -> None:
    """Neptune's frame: `x`, then the channels in the order asked for, outer-merged on the step, float64, NaN in holes."""
    stored = Stored(files)
    for step in (0.0, 1.0, 2.0):
        stored.owner.point("loss", step, 1.0 / (step + 1))
    for step in (2.0, 0.5, 4.0):
        stored.owner.point("auc", step, step)
    stored.commit()
    frame = _open(stored).get_numeric_channels_values("loss", "auc")
    expected = pd.DataFrame(
        {
            "x": [0.0, 0.5, 1.0, 2.0, 4.0],
            "loss": [1.0, nan, 0.5, 1 / 3, nan],
            "auc": [nan, 0.5, nan, 2.0, 4.0],
        }
    )
    pd.testing.assert_frame_equal(frame, expected)
    assert list(_open(stored).get_numeric_channels_values("auc", "loss", "auc").columns) == ["x", "auc", "loss"]
    assert list(_open(stored).get_numeric_channels_values().columns) == ["x"]


def test_unknown_channels_are_named(files: Store) -> None:
    """A misspelt channel, or one of another type, is an error that shows what is there, and a `KeyError` too."""
    stored = Stored(files)
    stored.owner.point("val/loss", 0, 1.0)
    stored.owner.text("notes", 0, "x")
    stored.commit()
    experiment = _open(stored)
    for call in (experiment.get_numeric_channels_values, experiment.get_channel):
        with pytest.raises(ChannelNotFound, match="it has val/loss"):
            call("val/los")
    with pytest.raises(KeyError, match="numeric channel 'notes'"):
        experiment.get_numeric_channels_values("notes")
    with pytest.raises(InvalidValue, match="newest"):
        experiment.get_channel("val/loss", duplicates="newest")  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="value"):
        experiment.get_channel("val/loss", order="value")  # type: ignore[arg-type]


def test_of_several_points_of_a_step_the_reader_chooses(files: Store) -> None:
    """Of several points of one step: the last in time, the first, or all, whatever the order in which they arrived."""
    stored = Stored(files)
    other = Source(Role.RANK)
    for source, seconds, value in ((stored.owner, 5, 50.0), (other, 9, 90.0), (stored.owner, 1, 10.0)):
        source.point("loss", 7, value, START_NS + seconds * SECOND_NS)
        stored.commit(other)
    stored.owner.point("loss", 3, nan, START_NS + 100 * SECOND_NS)
    stored.commit()
    experiment = _open(stored)
    assert experiment.get_channel("loss")["value"].tolist()[1:] == [90.0]
    assert experiment.get_channel("loss", duplicates="first")["value"].tolist()[1:] == [10.0]
    everything = experiment.get_channel("loss", duplicates="all")
    assert everything["value"].tolist()[1:] == [10.0, 50.0, 90.0]
    assert everything["step"].tolist() == [3.0, 7.0, 7.0, 7.0]
    assert experiment.metrics["loss"] == 90.0
    by_time = experiment.get_channel("loss", order="time", duplicates="all")
    assert by_time["value"].tolist()[:3] == [10.0, 50.0, 90.0]
    assert by_time["step"].tolist() == [7.0, 7.0, 7.0, 3.0]
    assert isnan(by_time["value"].iloc[3])
    assert str(by_time["time"].dtype) == "datetime64[us, UTC]"


@settings(max_examples=20)
@given(
    commits=st.lists(
        st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4), st.floats(allow_nan=False)), max_size=6),
        min_size=1,
        max_size=5,
    ),
    final=st.booleans(),
)
def test_a_channel_is_its_points_in_order(
    tmp_path_factory: pytest.TempPathFactory, commits: list[list[tuple[int, int, float]]], final: bool
) -> None:
    """However points are spread over commits and merged, a channel is all of them by step, time and order of commit."""
    stored = Stored(open_store(str(tmp_path_factory.mktemp("store"))))
    stored.owner.point("loss", -1, 0.0, START_NS)
    for points in commits:
        for step, second, value in points:
            stored.owner.point("loss", step, value, START_NS + second * SECOND_NS)
        stored.owner.event(Kind.PROPERTY, START_NS, "k", "v")
        stored.commit()
    if final:
        stored.chain.compact(now_ns=START_NS, final=True)
    model = sorted([(-1, 0, 0.0), *(point for points in commits for point in points)], key=lambda point: point[:2])
    frame = _open(stored).get_channel("loss", duplicates="all")
    assert frame["value"].tolist() == [value for *_, value in model]
    last = {step: value for step, _, value in model}
    merged = _open(stored).get_numeric_channels_values("loss")
    assert dict(zip(merged["x"], merged["loss"], strict=True)) == last


def test_reset_points_are_hidden(files: Store) -> None:
    """After a reset only later points are seen; a channel whose points are all hidden is there and empty."""
    stored = Stored(files)
    for step in range(4):
        stored.owner.point("loss", step, step, START_NS + step * SECOND_NS)
        stored.owner.point("acc", step, step, START_NS + step * SECOND_NS)
    stored.owner.event(Kind.RESET, START_NS + 2 * SECOND_NS, "loss")
    stored.owner.event(Kind.RESET, START_NS + 9 * SECOND_NS, "acc")
    stored.commit()
    experiment = _open(stored)
    assert experiment.get_channel("loss")["value"].tolist() == [3.0]
    assert len(experiment.get_channel("acc")) == 0
    assert experiment.get_numeric_channels_values("loss", "acc")["x"].tolist() == [3.0]


def test_logs_have_last_values(files: Store) -> None:
    """`get_logs` has what the program logged, with last values; `channels` has steps, counts, hardware and captured output."""
    stored = Stored(files)
    stored.owner.point("loss", 4, 0.25)
    stored.owner.point("loss", 2, 9.0)
    stored.owner.text("notes", 1, "hello")
    stored.owner.text("stdout", 1, "epoch")
    stored.owner.image("samples", 1, b"png")
    stored.owner.point("system/cpu", 1, 3.0)
    stored.commit()
    experiment = _open(stored)
    assert experiment.get_logs() == experiment.get_channels() == {"loss": 0.25, "notes": "hello", "samples": None}
    channels = {channel.name: channel for channel in experiment.channels}
    assert list(channels) == ["loss", "notes", "samples", "stdout", "system/cpu"]
    assert channels["loss"][1:5] == ("numeric", 2, 4.0, 0.25)
    assert channels["notes"][1:5] == ("text", 1, 1.0, "hello")


def test_texts_come_whole_in_the_order_of_steps(files: Store) -> None:
    """A text channel's values are the texts, whole, in the order of steps."""
    stored = Stored(files)
    long = "ü" * 30_000
    for step, text in ((2, "c"), (0, "a"), (1, long)):
        stored.owner.text("notes", step, text)
    stored.commit()
    frame = _open(stored).get_channel("notes")
    assert frame["value"].tolist() == ["a", long, "c"]
    assert list(frame.columns) == ["step", "time", "value"]


def test_images_are_listed_by_address_and_read_as_logged(files: Store) -> None:
    """An image channel lists the files' addresses with what was said about them; their bytes are as they were logged."""
    stored = Stored(files)
    stored.owner.image("misread digits", 1, b"\x89PNG one", name="three", description="as eight")
    stored.owner.image("misread digits", 2, b"\x89PNG two")
    stored.commit()
    experiment = _open(stored)
    frame = experiment.get_channel("misread digits")
    assert list(frame.columns) == ["step", "time", "value", "name", "description", "size"]
    assert frame["name"].tolist()[0] == "three"
    assert frame["size"].tolist() == [8, 8]
    with open(frame["value"][1], "rb") as file:
        assert file.read() == b"\x89PNG two"
    assert experiment.read_image("misread digits") == b"\x89PNG two"
    assert experiment.read_image("misread digits", step=1) == b"\x89PNG one"
    with pytest.raises(ChannelNotFound, match="step 3"):
        experiment.read_image("misread digits", step=3)


def test_bytes_on_their_way(files: Store) -> None:
    """A long text or image whose row is stored before its bytes: the others are read, this one is told to be missing."""
    stored = Stored(files)
    spooled = {"file": "000001-0a1b2c3d", "size": 70_000, "sha256": "0" * 64}
    stored.owner.text("notes", 0, "short")
    stored.owner.text("notes", 1, spooled)
    stored.owner.image("samples", 0, {**spooled, "file": "000002-0a1b2c3d"})
    stored.commit()
    experiment = _open(stored)
    texts = experiment.get_channel("notes")["value"].tolist()
    assert texts[0] == "short"
    assert isnan(texts[1])
    assert len(experiment.get_channel("samples")) == 1
    with pytest.raises(ArtifactNotFound, match="yet"):
        experiment.read_image("samples")


def test_one_name_of_two_types(files: Store) -> None:
    """A name that is numeric in one process and text in another can be read as either."""
    stored = Stored(files)
    other = Source(Role.RANK)
    stored.owner.point("mixed", 0, 1.5)
    other.text("mixed", 0, "text")
    stored.commit(other)
    experiment = _open(stored)
    assert experiment.get_channel("mixed")["value"].tolist() == [1.5]
    assert experiment.get_channel("mixed", type="text")["value"].tolist() == ["text"]
    assert isinstance(experiment.get_logs()["mixed"], float)


def test_hardware_comes_in_neptunes_pairs_of_columns(files: Store) -> None:
    """Neptune's pairs of columns: milliseconds from the start, zero readings kept, shorter columns padded."""
    stored = Stored(files, created_s=0)
    system = Source(Role.SYSTEM)
    for second, cpu in ((3, 0.0), (6, 55.5)):
        system.point("system/cpu", second, cpu, START_NS + second * SECOND_NS)
    for name, value in (("memory", 16.7), ("gpu0/utilization", 0.0), ("gpu0/memory", 2.0), ("gpu10/memory", 3.0)):
        system.point(f"system/{name}", 3, value, START_NS + 3 * SECOND_NS)
    system.point("system/net_sent", 3, 1.0)
    stored.commit(system)
    frame = _open(stored).get_hardware_utilization()
    assert list(frame.columns) == [
        *("x_ram", "y_ram", "x_cpu", "y_cpu", "x_gpu_util_0", "y_gpu_util_0", "x_gpu_mem_0", "y_gpu_mem_0"),
        *("x_gpu_mem_10", "y_gpu_mem_10"),
    ]
    assert frame["x_cpu"].tolist() == [3000, 6000]
    assert frame["y_cpu"].tolist() == [0.0, 55.5]
    assert frame["y_gpu_util_0"].tolist()[0] == 0.0
    assert frame["y_ram"].tolist()[0] == 16.7
    assert isnan(frame["y_ram"].tolist()[1])


def test_no_hardware_is_an_empty_frame(files: Store) -> None:
    """An experiment without readings has an empty DataFrame."""
    assert _open(Stored(files)).get_hardware_utilization().empty


def test_methods_see_what_was_stored_since(files: Store) -> None:
    """A handle that was opened while the experiment ran reads its later points and its end."""
    stored = Stored(files)
    stored.owner.point("loss", 0, 1.0)
    stored.commit()
    experiment = _open(stored)
    assert len(experiment.get_channel("loss")) == 1
    stored.owner.point("loss", 1, 0.5)
    stored.close()
    assert experiment.state == "running"
    assert experiment.get_channel("loss")["value"].tolist() == [1.0, 0.5]
    assert experiment.state == "succeeded"
    assert experiment.metrics == {"loss": 0.5}


def test_who_waits_for_the_end_sees_it(files: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what was listed as running the state is looked at again, once a second; what has ended is believed to have."""
    stored = Stored(files)
    listed = StoredProject(files, PROJECT).get_experiments()[0]
    stored.close("failed", "Traceback")
    assert listed.state == "running"
    monkeypatch.setattr("headrace.reading.experiment.STATE_FRESH_S", 0.0)
    assert listed.state == "failed"
    monkeypatch.setattr(Snapshot, "newest", lambda _: pytest.fail("looked again"))
    assert listed.state == "failed"


def test_a_long_channel_among_others(files: Store) -> None:
    """A channel of 200,000 points is read exactly, from parts in which others lie before and behind it."""
    stored = Stored(files)
    steps = np.arange(100_000)
    for half in (steps, steps + 100_000):
        for name in ("a", "z"):
            stored.owner.point(name, float(half[0]), 0.0)
        for step in half.tolist():
            stored.owner.point("loss", step, step * 0.5, START_NS + step)
        stored.commit()
    frame = _open(stored).get_channel("loss")
    np.testing.assert_array_equal(frame["step"], np.arange(200_000.0))
    np.testing.assert_array_equal(frame["value"], np.arange(200_000) * 0.5)


def test_reading_from_s3(s3_url: str) -> None:
    """The same from an object store: facts, series, images and artifacts, by a reader that only reads."""
    stored = Stored(open_store(s3_url), params={"lr": 0.1})
    stored.owner.point("loss", 0, 1.0)
    stored.owner.image("samples", 0, b"\x89PNG")
    stored.owner.artifact("model.bin", b"weights")
    stored.close()
    experiment = StoredExperiment(open_store(s3_url, writable=False), PROJECT, stored.id)
    assert experiment.params == {"lr": 0.1}
    assert experiment.get_numeric_channels_values("loss")["loss"].tolist() == [1.0]
    assert experiment.get_channel("samples")["value"][0].startswith(
        f"{s3_url}/{PROJECT}/experiments/{stored.id}/images/"
    )
    assert experiment.read_image("samples") == b"\x89PNG"
    assert experiment.artifacts["model.bin"].size == 7
