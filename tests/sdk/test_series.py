"""Series: what a call returns from is in the journal, as it was given; what cannot be logged says so, and leaves nothing."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

import headrace as hr
from headrace.errors import (
    ChannelTypeMismatch,
    ExperimentStopped,
    InvalidName,
    InvalidValue,
    TelemetryWarning,
)
from headrace_proto.events import ChannelType, Kind
from headrace_proto.limits import INLINE_BYTES_MAX
from tests.sdk.journals import journal_of


def test_one_positional_is_the_value_and_the_step_is_automatic(experiment: hr.Experiment) -> None:
    """`log_metric(name, value)` leaves the step to the store."""
    experiment.log_metric("loss", 0.5)
    assert journal_of(experiment).series("loss") == [(None, 0.5)]


def test_two_positionals_are_step_and_value(experiment: hr.Experiment) -> None:
    """`log_metric(name, x, y)` is Neptune's order, by position and by keyword."""
    experiment.log_metric("loss", 3, 0.5)
    experiment.log_metric("loss", x=4.5, y=0.25)
    experiment.log_metric("loss", None, 0.125)
    assert journal_of(experiment).series("loss") == [(3.0, 0.5), (4.5, 0.25), (None, 0.125)]


def test_step_keyword_goes_with_a_single_value(experiment: hr.Experiment) -> None:
    """`log_metric(name, value, step=...)` is the other libraries' order."""
    experiment.log_metric("loss", 0.5, step=7)
    assert journal_of(experiment).series("loss") == [(7.0, 0.5)]


def test_a_step_given_twice_is_a_type_error(experiment: hr.Experiment) -> None:
    """Nobody can say which of two steps was meant."""
    with pytest.raises(TypeError, match="not both"):
        experiment.log_metric("loss", 1, 0.5, step=2)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="not both"):
        experiment.log_text("notes", 1, "hello", step=2)  # type: ignore[call-overload]


def test_timestamps_are_unix_seconds_and_default_to_now(experiment: hr.Experiment) -> None:
    """A given time is kept to the microsecond; without one it is the time of the call."""
    before = time.time_ns()
    experiment.log_metric("loss", 0.5)
    experiment.log_metric("loss", 0.5, timestamp=1_700_000_000.25)
    experiment.log_metric("loss", 1, 0.5, 1_700_000_001)
    now, given, positional = [point.time_ns for point in journal_of(experiment).points()]
    assert before <= now <= time.time_ns()
    assert given == 1_700_000_000_250_000_000
    assert positional == 1_700_000_001_000_000_000


@pytest.mark.parametrize(
    "value",
    [2, True, np.float32(2), np.float64(2), np.int64(2), np.array(2.0), Decimal(2)],
    ids=lambda v: type(v).__name__,
)
def test_every_kind_of_number_is_a_number(experiment: hr.Experiment, value: Any) -> None:
    """Python's, NumPy's and other libraries' numbers need no conversion by the caller."""
    experiment.log_metric("n", value, step=value)
    assert journal_of(experiment).series("n") == [(float(value), float(value))]


def test_nan_and_infinities_are_values(experiment: hr.Experiment) -> None:
    """What a diverging run logs comes back as it went in."""
    for value in (math.nan, math.inf, -math.inf):
        experiment.log_metric("loss", value)
    values = [value for _, value in journal_of(experiment).series("loss")]
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf]


@pytest.mark.parametrize("step", [math.nan, math.inf])
def test_a_step_without_a_place_is_dropped_counted_and_warned_about_once(
    create: Callable[..., hr.Experiment], step: float
) -> None:
    """A condition of the data never raises, and never goes unseen."""
    experiment = create()
    with pytest.warns(TelemetryWarning, match="step not finite") as warned:
        experiment.log_metric("loss", step, 0.5)
        experiment.log_metrics({"a": 1, "b": 2}, step=step)
        experiment.log_text("notes", step, "hello")
        experiment.log_image("samples", step, np.zeros((2, 2)))
    assert len(warned) == 1
    experiment.stop()
    assert journal_of(experiment).points() == []
    assert sum(dropped for dropped, _ in journal_of(experiment).of(Kind.GAP)) == 5


@pytest.mark.parametrize("value", ["0.5", b"1", None, [1], {}, 1j, 10**400, np.array([1.0, 2.0])], ids=repr)
def test_what_is_no_number_is_refused_by_name_and_value(experiment: hr.Experiment, value: Any) -> None:
    """The message names the channel and the value; nothing is journaled, and the next call works."""
    with pytest.raises(InvalidValue, match="'loss'"):
        experiment.log_metric("loss", value)
    experiment.log_metric("loss", 1.0)
    assert [value for _, value in journal_of(experiment).series("loss")] == [1.0]


@pytest.mark.parametrize("step", ["3", [3], {}, 1j], ids=repr)
def test_what_is_no_step_is_refused(experiment: hr.Experiment, step: Any) -> None:
    """For numbers, texts and images alike."""
    with pytest.raises(InvalidValue, match="step"):
        experiment.log_metric("loss", step, 0.5)
    with pytest.raises(InvalidValue, match="step"):
        experiment.log_text("notes", step, "hello")
    assert journal_of(experiment).points() == []


@pytest.mark.parametrize("timestamp", ["yesterday", math.nan, -1, [], 1e30], ids=repr)
def test_what_is_no_time_is_refused(experiment: hr.Experiment, timestamp: Any) -> None:
    """A time is Unix time in seconds."""
    with pytest.raises(InvalidValue, match="Unix time"):
        experiment.log_metric("loss", 0.5, timestamp=timestamp)


@pytest.mark.parametrize("name", ["", " ", "a\nb", 3, None, "x" * 2000, "\ud800"], ids=lambda n: repr(n)[:12])
def test_what_is_no_name_is_refused(experiment: hr.Experiment, name: Any) -> None:
    """Channel names are checked at the call, in every kind of channel."""
    with pytest.raises(InvalidName):
        experiment.log_metric(name, 0.5)
    with pytest.raises(InvalidName):
        experiment.log_text(name, "hello")
    with pytest.raises(InvalidName):
        experiment.log_metrics({name: 0.5})
    with pytest.raises(InvalidName):
        experiment.reset_log(name)


def test_a_channel_keeps_its_type(experiment: hr.Experiment) -> None:
    """A text where a channel is numeric, and the other way round, is refused at the call."""
    experiment.log_metric("loss", 0.5)
    experiment.log_text("notes", "hello")
    with pytest.raises(ChannelTypeMismatch, match="loss"):
        experiment.log_text("loss", "hello")
    with pytest.raises(ChannelTypeMismatch, match="notes"):
        experiment.log_metric("notes", 0.5)
    with pytest.raises(ChannelTypeMismatch, match="notes"):
        experiment.log_image("notes", np.zeros((2, 2)))
    with pytest.raises(ChannelTypeMismatch, match="notes"):
        experiment.log_metrics({"loss": 1, "notes": 2})
    assert journal_of(experiment).types() == {"loss": ChannelType.NUMERIC, "notes": ChannelType.TEXT}


def test_metrics_of_one_step_are_one_event(experiment: hr.Experiment) -> None:
    """All values of a row are logged at one time, with its step or with an automatic one."""
    experiment.log_metrics({"loss": 0.5, "acc": 0.9}, step=3)
    experiment.log_metrics({"loss": 0.25, "acc": np.float32(1)})
    journal = journal_of(experiment)
    assert journal.series("loss") == [(3.0, 0.5), (None, 0.25)]
    assert journal.series("acc") == [(3.0, 0.9), (None, 1.0)]
    assert [event[0] for event in journal.events[-3:]] == [Kind.SCHEMA, Kind.ROW, Kind.AUTO_ROW]


def test_a_row_with_a_bad_value_logs_none_of_it(experiment: hr.Experiment) -> None:
    """The message names the bad one."""
    with pytest.raises(InvalidValue, match="'acc'"):
        experiment.log_metrics({"loss": 0.5, "acc": "high"})  # type: ignore[dict-item]
    assert journal_of(experiment).points() == []


@pytest.mark.parametrize("values", [[("loss", 1)], 5, None, "loss"], ids=repr)
def test_metrics_are_a_mapping(experiment: hr.Experiment, values: Any) -> None:
    """Anything else is refused as such."""
    with pytest.raises(InvalidValue, match="mapping"):
        experiment.log_metrics(values)


def test_texts_are_kept_whole(experiment: hr.Experiment, project: hr.Project) -> None:
    """A short text is in its event, a long one in the spool, byte by byte."""
    long = "ä" * INLINE_BYTES_MAX
    experiment.log_text("notes", "hello")
    experiment.log_text("notes", 3, long)
    (_, short), (step, payload) = journal_of(experiment).series("notes")
    assert short == "hello"
    assert step == 3.0
    assert payload["size"] == len(long.encode())
    with open(f"{project.home.spool(experiment._writer.source)}/{payload['file']}", encoding="utf-8") as file:
        assert file.read() == long


@pytest.mark.parametrize("value", [3, None, b"bytes", ["a"]], ids=repr)
def test_a_text_is_a_str(experiment: hr.Experiment, value: Any) -> None:
    """As Neptune's."""
    with pytest.raises(InvalidValue, match="str"):
        experiment.log_text("notes", value)


def test_a_lone_surrogate_does_not_stop_a_text(experiment: hr.Experiment) -> None:
    """A file name that is no UTF-8 can still be logged."""
    experiment.log_text("notes", "file-\udcff.txt")
    assert journal_of(experiment).texts("notes") == ["file-?.txt"]


def test_reset_hides_what_came_before(experiment: hr.Experiment) -> None:
    """A reset names the channel; which points it hides is decided by its time."""
    experiment.log_metric("loss", 0.5)
    experiment.log_text("notes", "hello")
    experiment.reset_log("loss")
    experiment.reset_log("notes")
    assert experiment.get_logs() == {}
    experiment.log_metric("loss", 0.25)
    assert experiment.get_logs() == {"loss": 0.25}
    assert journal_of(experiment).of(Kind.RESET) == [["loss"], ["notes"]]


def test_the_other_names_of_the_calls(experiment: hr.Experiment) -> None:
    """Neptune's `send_*` do what `log_*` do."""
    experiment.send_metric("loss", 1, 0.5)
    experiment.send_text("notes", "hello")
    experiment.send_image("samples", np.zeros((2, 2)), name="blank")
    assert [point.channel for point in journal_of(experiment).points()] == ["loss", "notes", "samples"]


def test_exchanged_arguments_are_warned_about_once(experiment: hr.Experiment) -> None:
    """Steps with fractions beside values that count up are what `log_metric(name, value, step)` of other libraries looks like."""
    with pytest.warns(TelemetryWarning, match="exchanged") as warned:
        for step in range(10):
            experiment.log_metric("loss", 0.5 + step / 10, step)
    assert len(warned) == 1


def test_ordinary_steps_are_not_warned_about(experiment: hr.Experiment) -> None:
    """Neither fractional steps of other values, nor counts, nor a long run."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in range(300):
            experiment.log_metric("time", step / 10, 0.5)
            experiment.log_metric("epoch", step, step)


def test_last_values_are_known_at_once(experiment: hr.Experiment) -> None:
    """A live handle answers from memory what this process logged last, over segments, rows and automatic steps."""
    for step in range(50_000):  # more than one segment
        experiment.log_metric("loss", step, 1.0 / (step + 1))
        if step == 10:
            experiment.log_metric("once", 0.75)
            experiment.log_metrics({"a": 1, "b": 2}, step=step)
    experiment.log_metrics({"a": 3, "b": 4})
    experiment.log_text("notes", "x" * 1000)
    experiment.log_image("samples", np.zeros((2, 2)))
    assert experiment.metrics == {"loss": 1 / 50_000, "once": 0.75, "a": 3.0, "b": 4.0}
    assert experiment.get_logs() == {**experiment.metrics, "notes": "x" * 255, "samples": None}
    experiment.stop()
    assert experiment.metrics["loss"] == 1 / 50_000


def test_a_call_after_stop_raises_once_and_then_warns(create: Callable[..., hr.Experiment]) -> None:
    """The mistake is seen, and does not end a loop twice."""
    experiment = create()
    experiment.log_metric("loss", 0.5)
    experiment.stop()
    with pytest.raises(ExperimentStopped, match=experiment.internal_id):
        experiment.log_metric("loss", 0.25)
    calls: list[Callable[[], None]] = [
        lambda: experiment.log_metric("loss", 1, 0.25),
        lambda: experiment.log_metrics({"loss": 0.25}),
        lambda: experiment.log_text("notes", "late"),
        lambda: experiment.log_image("samples", np.zeros((2, 2))),
        lambda: experiment.set_property("a", "b"),
        lambda: experiment.append_tag("late"),
        lambda: experiment.reset_log("loss"),
        lambda: experiment.log_artifact(__file__),
    ]
    for call in calls:
        with pytest.warns(TelemetryWarning, match="was stopped"):
            call()
    assert journal_of(experiment).series("loss") == [(None, 0.5)]


def test_wrong_calls_may_warn_instead(create: Callable[..., hr.Experiment]) -> None:
    """`on_error="warn"`: a typo in a log call does not cost a night's training."""
    experiment = create(on_error="warn")
    with pytest.warns(TelemetryWarning, match="'loss'") as warned:
        experiment.log_metric("loss", "high")  # type: ignore[call-overload]
    assert warned[0].filename == __file__
    with pytest.warns(TelemetryWarning, match="no file"):
        experiment.log_artifact("nowhere.bin")
    with pytest.warns(TelemetryWarning, match="tag"):
        experiment.append_tag("not a tag")
    experiment.log_metric("loss", 0.5)
    assert journal_of(experiment).series("loss") == [(None, 0.5)]


def test_an_error_of_the_machine_is_not_blamed_on_an_argument(experiment: hr.Experiment) -> None:
    """A call at the end of the stack raises RecursionError, which the program may expect, and the next one logs."""

    def dive() -> None:
        try:
            dive()
        except RecursionError:
            experiment.log_metric("loss", 0.5)
            raise

    with pytest.raises(RecursionError):
        dive()
    with pytest.raises(MemoryError):
        experiment.log_metric("loss", Starved())
    experiment.log_metric("loss", 0.25)


class Starved:
    """A number that takes more memory than there is."""

    def __float__(self) -> float:
        raise MemoryError


def test_a_value_that_is_none_is_refused_and_not_replaced_by_its_step(experiment: hr.Experiment) -> None:
    """`log_metric("loss", step, loss)` with a loss of None is an error, for texts and images alike."""
    with pytest.raises(InvalidValue, match="'loss'"):
        experiment.log_metric("loss", 3, None)  # type: ignore[call-overload]
    with pytest.raises(InvalidValue, match="'notes'"):
        experiment.log_text("notes", 3, None)  # type: ignore[call-overload]
    with pytest.raises(InvalidValue):
        experiment.log_image("samples", 3, None)
    experiment.log_metric("loss", None, 0.5)  # no step: the channel counts up
