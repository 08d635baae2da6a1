"""The walk over events that no check covers: a run of points is stepped over at once, and ends where walking it would."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_proto import events
from headrace_proto.events import POINT_WIDTH, Kind
from headrace_proto.journal import verify

_NUMBERS = st.floats(width=64)
_POINT = st.builds(
    events.pack_point,
    st.integers(0, 1 << 31),
    _NUMBERS,
    st.integers(0, (1 << 64) - 1),
    _NUMBERS,
)
_OTHER = st.one_of(
    st.builds(lambda name: events.pack(Kind.PROPERTY, 1, "name", name), st.text(max_size=9)),
    st.just(msgpack.packb([1, 0, 1.0, 5, 2.0])),  # a point, not in its fixed layout
    st.just(events.pack_check(7, 0.5, 34)),
)
_TOLD = st.lists(st.one_of(_POINT, _POINT, _POINT, _POINT, _OTHER), max_size=30)


@given(_TOLD, st.integers(0, 40), st.integers(0, 1_100), st.integers(0, 1_100), st.integers(0, 255))
def test_a_run_of_points_ends_where_the_walk_would(
    told: list[bytes], short: int, start: int, at: int, byte: int
) -> None:
    """Cut anywhere, with any byte changed, asked for any beginning: the same bytes count as without the short cut."""
    data = bytearray(b"".join(told))
    if at < len(data):
        data[at] = byte
    cut = bytes(data[: max(len(data) - short, 0)])
    with pytest.MonkeyPatch.context() as patch:
        found = verify.whole_events(cut, start)
        patch.setattr(verify, "_run_of_points", lambda _: 0)
        assert found == verify.whole_events(cut, start)


def test_points_are_stepped_over() -> None:
    """Whole points count to the last, half a one behind them does not."""
    point = events.pack_point(3, 1.0, 5, 0.5)
    data = point * 100 + point[:20]
    assert verify.whole_events(data, 0) == verify.whole_events(data, 50 * POINT_WIDTH) == 100 * POINT_WIDTH
    assert verify.whole_events(data, 7) == 0
