"""Hostile sources: whatever bytes arrive in whole frames, an experiment goes on."""

from __future__ import annotations

from typing import Any

import msgpack
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_proto.store.chain import Batch, FileDone
from headrace_proto.store.commits import PART_KINDS
from headrace_proto.store.documents import ChannelRecord
from tests.proto.store_core.script import NOW_NS, Source, chain_of, memory_store, points_of, spooled

_deep: Any = "x"
for _ in range(500):
    _deep = [_deep]

_words = ["", "x", "a/b", "../x", "name", "git", "params", "kind", "rank", "\x00", "\u202e", "created_at", "owner"]
_scalar = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, 2, 63, 64, 9999, 10_000, -1, NOW_NS, (1 << 64) - 1]),
    st.sampled_from([0.0, -1.5, 1e308, float("nan"), float("inf")]),
    st.sampled_from(_words),
    st.sampled_from([b"", b"bytes", b"x" * 300]),
    st.sampled_from([spooled(0), spooled(1), spooled(2) | {"file": "../../x"}, spooled(3) | {"sha256": "x"}]),
    st.just(_deep),
)
_value = st.recursive(
    _scalar,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from([*_words, "created_ns"]), inner, max_size=3)
    ),
    max_leaves=6,
)
_time = st.sampled_from([0, NOW_NS, (1 << 64) - 1])
_facts = st.dictionaries(
    st.sampled_from([*_words, "created_ns", "tags", "properties", "role", "attempt", "suffix"]), _value, max_size=5
)
_number = st.sampled_from([0, 1, 9999])
_step = st.sampled_from([None, 0, 1.5, -3, float("nan"), float("inf"), 1e308])
_payload = st.sampled_from(
    ["text", b"bytes", spooled(0), spooled(1), spooled(2) | {"file": "../../x"}, spooled(3) | {"sha256": "x"}]
)
_event = st.one_of(
    st.tuples(st.integers(0, 22), _value, _value, _value, _value),
    st.tuples(st.integers(0, 22), _time, _value),
    st.tuples(st.just(5), _number, st.sampled_from(_words), st.integers(0, 9)),
    st.tuples(st.just(7), _number, _step, _time, _payload),
    st.tuples(st.just(8), _number, _step, _time, _payload, _facts),
    st.tuples(st.sampled_from([10, 11, 13, 16]), _time, _facts),
    st.tuples(st.just(12), _time, st.sampled_from(["succeeded", "exploded"]), st.sampled_from([None, "why"])),
    st.tuples(st.just(14), _time, st.sampled_from(_words), st.sampled_from([None, "text"])),
    st.tuples(
        st.just(15), _time, st.lists(st.sampled_from(_words), max_size=2), st.lists(st.sampled_from(_words), max_size=2)
    ),
    st.tuples(st.just(17), _time, st.sampled_from(_words), _payload, _facts),
    st.tuples(st.just(18), _time, st.lists(st.sampled_from(_words), max_size=2)),
    st.tuples(st.just(19), _time, st.sampled_from(_words)),
    st.tuples(st.just(20), _time, st.integers(0, 9), st.sampled_from(_words)),
)


@settings(max_examples=150)
@given(st.lists(st.lists(_event, max_size=5), max_size=4), st.lists(_step, max_size=3))
def test_no_event_stops_an_experiment(told: list[list[tuple[Any, ...]]], steps: list[float | None]) -> None:
    """Well-framed events of any fields are stored, refused or poison; commits go on, and what is written can be read."""
    store = memory_store()
    chain = chain_of(store)
    first = 0
    for events in told:
        raw = b"".join(msgpack.packb(event) for event in events)
        chain.commit([Batch("a" * 32, first, first + len(raw), raw)], now_ns=NOW_NS)
        first += len(raw)
    good = Source("b")
    for step in steps:
        good.point("fine", step, 0.5)
    chain.commit([good.batch()], now_ns=NOW_NS)
    chain.commit(
        [], files_done=[FileDone("a" * 32, spooled(n)["file"], "" if n else "bad") for n in range(4)], now_ns=NOW_NS
    )
    chain.compact(now_ns=NOW_NS, final=True)
    found = chain_of(store)
    assert found.watermark("a" * 32) == first
    assert found.head == chain.head
    stored = [name for name, *_ in points_of(found)]
    assert stored == ["fine"] * sum(step is None or abs(step) <= 1e308 for step in steps)
    for kind in PART_KINDS:
        records: dict[str, ChannelRecord] = getattr(found.document.channels, kind)
        assert found.read(kind).num_rows >= sum(record.count for record in records.values())
