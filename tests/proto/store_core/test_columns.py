"""Decoding: bytes of a batch as columns, and nothing but whole events."""

from __future__ import annotations

from struct import pack
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_proto import events
from headrace_proto.events import Kind
from headrace_proto.limits import CHANNELS_MAX
from headrace_proto.store import columns
from headrace_proto.store.columns import BadCut, Poison, cut, decode, encoded_points, event_ends
from headrace_proto.store.points import Rows
from tests.proto.store_core.script import NOW_NS, Source

Model = list[tuple[int, int, float | None, int, float]]
"""Position, channel, step, time in microseconds, value."""

_floats = st.floats(width=64)
_times = st.integers(0, (1 << 64) - 1)
_hot = st.one_of(
    st.tuples(st.just("point"), st.integers(0, 9), st.one_of(st.none(), _floats), _times, _floats),
    st.tuples(st.just("row"), st.integers(0, 2), st.one_of(st.none(), _floats), _times, st.lists(_floats, min_size=3)),
)
_other = st.one_of(
    st.tuples(st.just("check")),
    st.tuples(st.just("text"), st.text(max_size=300)),
    st.tuples(st.just("unknown"), st.binary(max_size=40)),
    st.tuples(st.just("property"), st.text(max_size=9), st.one_of(st.none(), st.text(max_size=9))),
)
SCHEMAS = {0: np.array([0, 1], np.int32), 1: np.array([5], np.int32), 2: np.array([9, 3, 4], np.int32)}


def _write(told: list[Any]) -> tuple[bytes, Model, list[tuple[int, list[Any]]]]:
    source, model, others = Source(role=""), [], []
    for kind, *fields in told:
        at = source.position
        if kind == "point":
            number, step, time_ns, value = fields
            source._channels = {"x": number}
            source.point("x", step, value, time_ns)
            model.append((at, number, step, time_ns // 1000, value))
        elif kind == "row":
            schema, step, time_ns, values = fields
            channels = SCHEMAS[schema].tolist()
            source.raw_row(schema, values[: len(channels)], step, time_ns)
            model += [(at, c, step, time_ns // 1000, v) for c, v in zip(channels, values, strict=False)]
        elif kind == "check":
            source.check()
        elif kind == "text":
            source.event(Kind.TEXT, 1, None, 5, fields[0])
            others.append((at, [7, 1, None, 5, fields[0]]))
        elif kind == "unknown":
            source.write(msgpack.packb([100, fields[0], msgpack.ExtType(3, b"new")]))
            others.append((at, [100]))
        else:
            source.event(Kind.PROPERTY, 5, *fields)
            others.append((at, [14, 5, *fields]))
    return source.batch().raw, model, others


def _same(found: Any, expected: Any) -> bool:
    return pack(">d", found) == pack(">d", expected)


@given(st.lists(st.one_of(_hot, _hot, _hot, _other), max_size=40), st.integers(0, 1 << 40))
def test_decoding_gives_back_what_was_written(told: list[Any], first: int) -> None:
    """Any mix of kinds comes back complete, in order and bit for bit, with each event's position."""
    raw, model, others = _write(told)
    decoded = decode(raw, first, SCHEMAS)
    points = decoded.points.flat()
    assert len(points.value) == len(model)
    for i, (position, channel, step, time_us, value) in enumerate(model):
        assert (points.position[i], points.channel[i], points.time_us[i]) == (first + position, channel, time_us)
        assert points.automatic[i] == (step is None)
        assert step is None or _same(points.step[i], step)
        assert _same(points.value[i], value)
    assert [(e.position, [e.kind, *e.fields]) for e in decoded.events] == [(first + at, event) for at, event in others]
    ends = event_ends(raw)
    assert all(
        e.raw == raw[e.position - first : ends[np.searchsorted(ends, e.position - first, "right")]]
        for e in decoded.events
    )


@given(st.lists(st.tuples(st.integers(0, 9_999), st.floats(), st.integers(0, 2**63), st.floats()), max_size=50))
def test_columns_become_the_bytes_that_a_journal_has(points: list[tuple[int, float, int, float]]) -> None:
    """Byte for byte what the writer packs; and they are read back."""
    channel, step, time, value = zip(*points, strict=True) if points else [()] * 4
    raw = encoded_points(
        np.array(channel, np.int32), np.array(step, float), np.array(time, np.uint64), np.array(value, float)
    )
    assert raw == b"".join(events.pack_point(*point) for point in points)
    assert decode(raw, 0, {}).points.channel.tolist() == [point[0] for point in points]


def test_a_run_of_points_and_checks_is_one_array() -> None:
    """Checks have a point's width and are masked out of a run, so that runs of points stay one structured array."""
    source = Source(role="")
    source._channels = {"x": 7}
    for step in range(300):
        source.point("x", step, step / 2)
        if step % 100 == 0:
            source.check()
    points = decode(source.batch().raw, 1000, {}).points
    assert points.step.tolist() == list(range(300))
    assert points.position[:3].tolist() == [1000, 1000 + 68, 1000 + 102]
    assert set(points.channel.tolist()) == {7}


@given(st.integers(0, 200 * 34 - 1), st.integers(1, 255))
@settings(max_examples=200)
def test_a_flipped_byte_is_poison_or_a_value(at: int, flip: int) -> None:
    """A wrong byte in a run of points is noticed unless it lies in a number, whose every pattern means something."""
    source = Source(role="")
    source._channels = {"x": 7}
    for step in range(200):
        source.point("x", step, 0.5)
    raw = bytearray(source.batch().raw)
    raw[at] ^= flip
    inside = at % 34
    is_number = 3 <= inside < 7 or 8 <= inside < 16 or 17 <= inside < 25 or 26 <= inside < 34
    try:
        points = decode(bytes(raw), 0, {}).points.flat()
    except Poison:
        assert not is_number or 3 <= inside < 7  # a channel number above the limit
    else:
        assert is_number or inside == 1  # another kind of the same width
        assert len(points.value) >= 199


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"\xc1", "no msgpack at all"),
        (events.pack(Kind.TAGS, 1, [], [])[:-1], "an event that ends too early"),
        (b"\x91" * 5000, "nested deeper than any parser's stack"),
        (b"\xdd\xff\xff\xff\xff", "an array of four thousand million elements"),
        (b"\x01", "no array"),
        (b"\x90", "an empty array"),
        (b"\x91\xa1x", "a kind that is no number"),
        (msgpack.packb([1, 0, 1.0, 5, 2.0]), "a point not in its fixed layout"),
        (msgpack.packb([9, 0, 1.0, 5, 2.0]), "a check not in its fixed layout"),
        (events.pack(Kind.TAGS, 1, []), "too few fields"),
        (events.pack(Kind.TAGS, 1, [], [], []), "too many fields"),
        (events.pack(Kind.TAGS, 1, ["a"], "b"), "a text for a list"),
        (events.pack(Kind.TAGS, -1, [], []), "a negative time"),
        (events.pack(Kind.TAGS, True, [], []), "a truth value for a time"),
        (events.pack(Kind.CHANNEL, CHANNELS_MAX, "x", 1), "a channel number above the limit"),
        (events.pack(Kind.SCHEMA, 64, [0]), "a schema number above the limit"),
        (events.pack(Kind.SCHEMA, 1, []), "a schema of nothing"),
        (events.pack(Kind.SCHEMA, 0, [1, 2, 3]), "a schema defined a second time, and differently"),
        (events.pack(Kind.TEXT, 1, None, 5, {"file": "x", "size": -1, "sha256": ""}), "a file of negative size"),
        (events.point_prefix(CHANNELS_MAX) + bytes(8) + b"\xcf" + bytes(8) + b"\xcb" + bytes(8), "a point far off"),
        (Source(role="").raw_row(0, [1.0], 1.0, 5).batch().raw, "a row with a value too few"),
        (Source(role="").raw_row(64, [1.0], 1.0, 5).batch().raw, "a row of a schema above the limit"),
        (Source(role="").raw_row(2, [], 1.0, 5).batch().raw, "a row without values"),
    ],
)
def test_hostile_bytes_are_poison(raw: bytes, why: str) -> None:
    """What is not whole, well-formed events is refused as a whole, with a typed error."""
    with pytest.raises(Poison):
        decode(raw, 0, SCHEMAS)
    with pytest.raises(Poison):
        decode(events.pack(Kind.TAGS, 1, [], []) + raw, 0, SCHEMAS)


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_random_bytes_raise_nothing_but_poison(raw: bytes) -> None:
    """Whatever the bytes, decoding ends in columns or in Poison."""
    try:
        decode(raw, 0, SCHEMAS)
    except Poison:
        return


def test_a_batch_is_cut_at_events_only() -> None:
    """A batch that straddles the watermark is cut event by event; inside an event it cannot be."""
    source = Source(role="").text("note", None, "hello").point("loss", 1, 0.5).check()
    ends = source.ends
    raw = source.batch().raw
    assert cut(raw, ends[0], len(raw)) == raw[ends[0] :]
    assert cut(raw, ends[0], ends[1]) == raw[ends[0] : ends[1]]
    assert cut(raw, 0, len(raw)) == raw
    inside = [at for at in range(1, len(raw)) if at not in ends]
    for at in inside:
        with pytest.raises(BadCut):
            cut(raw, at, len(raw))
    with pytest.raises(BadCut):
        cut(raw, 0, len(raw) + 1)


_BLOCK = st.tuples(st.integers(0, 4), st.booleans())


def _outcome(raw: bytes) -> Any:
    try:
        points = decode(raw, 0, SCHEMAS).points.flat()
    except Poison:
        return "poison"
    return [column.tobytes() for column in points]


@given(
    st.lists(_BLOCK, min_size=1, max_size=12),
    st.sampled_from([0, 1, 2]),
    st.lists(_floats, min_size=3, max_size=3),
    st.lists(st.tuples(st.integers(0, 400), st.integers(1, 255)), max_size=2),
    st.integers(0, 40),
    st.booleans(),
)
def test_stepping_over_rows_finds_what_unpacking_finds(
    blocks: list[tuple[int, bool]],
    schema: int,
    values: list[float],
    flips: list[tuple[int, int]],
    short: int,
    automatic: bool,
) -> None:
    """Rows between checks, as many as there may be, damaged or cut short: the same points, or the same refusal."""
    source = Source(role="")
    for rows, checked in blocks:
        for row in range(rows):
            source.raw_row(schema, values[: len(SCHEMAS[schema])], None if automatic else row, NOW_NS)
        if checked:
            source.check()
    raw = bytearray(source.batch().raw)
    for at, flip in flips:
        if at < len(raw):
            raw[at] ^= flip
    told = bytes(raw[: len(raw) - short]) if short < 10 else bytes(raw)
    with pytest.MonkeyPatch.context() as patch:
        found = _outcome(told)
        patch.setattr(columns, "_row_ends", lambda _: None)
        assert found == _outcome(told)


@pytest.mark.parametrize("step", [7.0, None])
def test_rows_between_checks_are_stepped_over(monkeypatch: pytest.MonkeyPatch, step: float | None) -> None:
    """A batch of rows and checks is never unpacked event by event."""
    source = Source(role="")
    for row in range(100):
        source.raw_row(2, [1.0, 2.0, 3.0], step, NOW_NS)
        if row % 9 == 4:
            source.check()
    monkeypatch.setattr(columns, "event_ends", None)
    rows = decode(source.batch().raw, 0, SCHEMAS).points
    assert isinstance(rows, Rows)
    assert rows.values().tolist() == [[1.0, 2.0, 3.0]] * 100


def test_rows_of_an_unknown_schema_are_kept_apart() -> None:
    """A row whose schema lies in a lost range keeps its values, under numbers of their own."""
    first = Source(role="").raw_row(3, [1.0, 2.0], 1.0, NOW_NS).batch()
    points = decode(first.raw, 0, {}).points.flat()
    assert points.value.tolist() == [1.0, 2.0]
    assert len(set(points.channel.tolist())) == 2
    assert points.channel.min() >= CHANNELS_MAX
