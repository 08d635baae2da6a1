"""What the document says of a channel after a commit: how many points, the highest step, and which point is last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace_proto.store.apply.draft import Draft
from headrace_proto.store.commits import PartKind
from headrace_proto.store.documents import ChannelRecord, Last
from headrace_proto.store.times import at_us, us_of

UNTIED: Final = ("", -1)
"""Source and position of a last point that was read back from parts, which do not hold them."""


class Point(NamedTuple):
    """What decides which point is last, and what it shows."""

    step: float
    time_us: int
    source: str
    position: int
    value: Any
    name: str | None = None


def update(
    draft: Draft,
    kind: PartKind,
    name: str,
    times_us: NDArray[np.int64],
    highest: float,
    point: Callable[[int], Point],
) -> None:
    """Add a commit's points of one channel, sorted, to its record. `point` tells of the i-th."""
    record = draft.channels[kind].get(name) or ChannelRecord()
    hidden_us = draft.resets.get(name, -1)
    visible = None if hidden_us < 0 else np.flatnonzero(times_us > hidden_us)
    count, last = len(times_us) if visible is None else len(visible), record.last
    if count:
        newest = point(count - 1 if visible is None else int(visible[-1]))
        tie = draft.ties[kind].get(name, UNTIED)
        if last is None or newest[:4] > (last.step, us_of(last.time), *tie):
            last = Last(step=newest.step, time=at_us(newest.time_us), value=newest.value, name=newest.name)
            draft.ties[kind][name] = (newest.source, newest.position)
    draft.channels[kind][name] = ChannelRecord(
        count=record.count + count,
        last=last,
        max_step=highest if record.max_step is None else max(record.max_step, highest),
        reset_at=at_us(hidden_us) if hidden_us >= 0 else None,
    )
