"""Points that are added to a stored experiment stand beside those that its trainer logged."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from headrace.errors import ChannelNotFound, ChannelTypeMismatch, InvalidName, InvalidValue, TelemetryWarning
from headrace.images import encode_image
from headrace.live import stamps
from headrace.reading import StoredExperiment, StoredProject
from headrace_proto.limits import IMAGE_BYTES_MAX, INLINE_BYTES_MAX
from tests.sdk.editing.conftest import Refuses
from tests.sdk.reading.stored import PROJECT, Stored
from tests.stores import head_of


def test_points_are_added(experiment: StoredExperiment, stored: Stored) -> None:
    """Numbers with steps and without, by every form of the call; the trainer goes on beside."""
    experiment.log_metric("loss", 0.25)
    stored.owner.point("loss", 3, 0.125)
    stored.commit()
    experiment.log_metric("loss", 7, 0.0625)
    experiment.send_metric("loss", x=8, y=math.inf, timestamp=1_700_000_000)
    experiment.log_metric(log_name="loss", x=0.5, step=9)
    experiment.log_metrics({"acc": 0.9, "f1": np.float32(0.5)}, step=9)
    frame = experiment.get_numeric_channels_values("loss", "acc", "f1")
    assert frame["x"].tolist() == [1, 2, 3, 7, 8, 9]
    assert frame["loss"].tolist() == [0.5, 0.25, 0.125, 0.0625, math.inf, 0.5]
    assert (frame["acc"].iloc[-1], frame["f1"].iloc[-1]) == (0.9, 0.5)
    assert experiment.metrics == {"loss": 0.5, "acc": 0.9, "f1": 0.5}


def test_texts_and_images_are_added(experiment: StoredExperiment) -> None:
    """Of any length: what is too large for an event is put in place beside it."""
    long = "ä" * INLINE_BYTES_MAX
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    experiment.log_text("notes", "short")
    experiment.send_text("notes", 5, long)
    experiment.log_image("samples", np.zeros((2, 2)), image_name="a", description="b")
    experiment.send_image("samples", 4, noise, "c", "d", 1_700_000_000)
    assert experiment.get_channel("notes")["value"].tolist() == ["hello", "short", long]
    images = experiment.get_channel("samples")
    assert images[["step", "name", "description"]].to_numpy().tolist() == [[0.0, "a", "b"], [4.0, "c", "d"]]
    assert experiment.read_image("samples") == encode_image(noise).data
    assert not head_of(experiment._writing.chain).pending


def test_a_channel_is_reset(experiment: StoredExperiment, stored: Stored) -> None:
    """What it held is hidden, and it may be logged to anew; one that is not there is an error that names what is."""
    experiment.reset_log("loss")
    assert experiment.get_channel("loss")["value"].tolist() == []
    experiment.log_metric(log_name="loss", x=0.5)
    assert experiment.get_channel("loss")["value"].tolist() == [0.5]
    with pytest.raises(ChannelNotFound, match="'los' to reset; there is loss, notes"):
        experiment.reset_log("los")


def test_a_reset_hides_nothing_that_is_logged_after_it(
    experiment: StoredExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the clock was set back since this process changed something: points have the clock's times, not stamps."""
    monkeypatch.setattr(stamps, "_last_ns", time.time_ns() + 10**15)
    experiment.set_property("phase", "2")
    experiment.reset_log("loss")
    experiment.log_metric("loss", 0.25)
    assert experiment.get_channel("loss")["value"].tolist() == [0.25]


@pytest.mark.parametrize(
    ("call", "wrong", "error"),
    [
        ("log_metric", ["loss", "high"], InvalidValue),
        ("log_metric", ["loss", None], InvalidValue),
        ("log_metric", ["loss", 1, None], InvalidValue),
        ("log_metric", ["loss", "1", 0.5], InvalidValue),
        ("log_metric", ["loss", 1, 0.5, "yesterday"], InvalidValue),
        ("log_metric", ["", 0.5], InvalidName),
        ("log_metric", ["notes", 0.5], ChannelTypeMismatch),
        ("log_metrics", [{"a": 1, "notes": 2}], ChannelTypeMismatch),
        ("log_metrics", [[("a", 1)]], InvalidValue),
        ("log_text", ["notes", 3], InvalidValue),
        ("log_text", ["loss", "hello"], ChannelTypeMismatch),
        ("log_image", ["samples", 3], InvalidValue),
        ("log_image", ["samples", np.zeros((2, 2)), np.zeros(3)], InvalidValue),
        ("reset_log", [3], InvalidName),
    ],
    ids=lambda given: str(given)[:30],
)
def test_what_is_wrong_is_refused_and_commits_nothing(
    refuses: Refuses, call: str, wrong: list[Any], error: type[Exception]
) -> None:
    """By the errors of a live experiment."""
    refuses(call, wrong, error)


def test_what_has_no_place_is_dropped_with_a_warning(experiment: StoredExperiment, stored: Stored) -> None:
    """A step that is no number, an image that is too large: conditions of the data never raise."""
    number = stored.chain.load().number
    calls: list[Callable[[], None]] = [
        lambda: experiment.log_metric("loss", math.nan, 0.5),
        lambda: experiment.log_metrics({"loss": 0.5}, step=math.inf),
        lambda: experiment.log_text("notes", math.nan, "x"),
        lambda: experiment.log_image("samples", b"\x89PNG" + bytes(IMAGE_BYTES_MAX)),
    ]
    for call in calls:
        with pytest.warns(TelemetryWarning, match="was not logged"):
            call()
    assert stored.chain.load().number == number


def test_many_single_edits_leave_few_parts(experiment: StoredExperiment, stored: Stored) -> None:
    """Each is a commit with a part of its own; parts are merged as collectors merge them."""
    for step in range(70):
        experiment.log_metric("late", step, step)
    [again] = StoredProject(stored.store, PROJECT).get_experiments()
    assert again.get_numeric_channels_values("late")["late"].tolist() == list(range(70))
    assert len(again.part_urls()) < 64
