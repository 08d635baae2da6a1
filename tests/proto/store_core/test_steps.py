"""Automatic steps: a channel's highest step + 1, in commit order."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_proto.store.steps import NO_STEP, fill_automatic

CHANNELS = 6
_steps = st.integers(-40, 40).map(lambda quarter: quarter / 4)
_event = st.tuples(
    st.one_of(
        st.integers(0, CHANNELS - 1).map(lambda channel: (channel,)),
        st.sampled_from([(0, 1, 2), (3, 4)]),
        st.lists(st.integers(0, CHANNELS - 1), min_size=1, max_size=CHANNELS, unique=True).map(tuple),
    ),
    st.one_of(st.none(), st.none(), _steps),
)
_highest = st.one_of(st.just(NO_STEP), st.integers(0, 40).map(lambda quarter: quarter / 4))
Events = list[tuple[tuple[int, ...], float | None]]


def _naive(told: Events, highest: list[float]) -> list[float]:
    """The rule as it is written."""
    highest, steps = list(highest), []
    for channels, step in told:
        given_step = max(highest[c] for c in channels) + 1 if step is None else step
        for c in channels:
            highest[c] = max(highest[c], given_step)
            steps.append(given_step)
    return steps


def _filled(told: Events, highest: list[float]) -> list[float]:
    channel = np.array([c for channels, _ in told for c in channels], np.int32)
    step = np.array([0.0 if s is None else s for channels, s in told for _ in channels])
    automatic = np.array([s is None for channels, s in told for _ in channels], np.bool_)
    begins = np.array([i == 0 for channels, _ in told for i in range(len(channels))], np.bool_)
    rows: list[Any] = [np.array(channels, np.int32) for channels, s in told if s is None and len(channels) > 1]
    fill_automatic(channel, step, automatic, begins, rows, np.array(highest))
    filled: list[float] = step.tolist()
    return filled


@given(st.lists(_event, max_size=60), st.lists(_highest, min_size=CHANNELS, max_size=CHANNELS))
@settings(max_examples=500)
def test_vectors_give_the_steps_that_the_rule_gives(told: Events, highest: list[float]) -> None:
    """Any mix of points, rows, explicit and automatic steps has the steps that counting one event after another gives."""
    assert _filled(told, highest) == _naive(told, highest)


@given(st.lists(_event, max_size=40), st.data())
def test_steps_do_not_depend_on_where_commits_are_cut(told: Events, data: st.DataObject) -> None:
    """Two commits give the same steps as one: only the highest step is carried over."""
    at = data.draw(st.integers(0, len(told)))
    before, highest = _filled(told[:at], [NO_STEP] * CHANNELS), [NO_STEP] * CHANNELS
    channels = [c for row, _ in told[:at] for c in row]
    for c, step in zip(channels, before, strict=True):
        highest[c] = max(highest[c], step)
    assert before + _filled(told[at:], highest) == _filled(told, [NO_STEP] * CHANNELS)


def test_the_first_automatic_step_is_zero() -> None:
    """A channel without points begins at 0; one whose highest step is 7 goes on at 8."""
    assert _filled([((0,), None), ((0,), None), ((1,), None)], [NO_STEP, 7.0]) == [0.0, 1.0, 8.0]


def test_a_row_shares_the_highest_step_of_its_channels() -> None:
    """An automatic row's step is above every point of every one of its channels."""
    assert _filled([((0,), 5.0), ((0, 1), None), ((1,), None)], [NO_STEP, NO_STEP]) == [5.0, 6.0, 6.0, 7.0]
