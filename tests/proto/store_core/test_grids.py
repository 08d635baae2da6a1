"""Rows that stay grids: what is stored is, bit for bit, what sorting them value by value would have stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_proto.events import Kind
from headrace_proto.store.apply import numeric
from tests.proto.store_core.script import NOW_NS, Source, chain_of, memory_store
from tests.stores import head_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_STEPS = st.sampled_from([0.0, -0.0, 1.0, 2.0, 2.0, 1e300, -5.0, float("nan"), float("inf")])
_VALUES = st.floats(width=64)
_TIMES = st.integers(0, 3).map(lambda second: NOW_NS + second * 1_000)
_ROW = st.tuples(st.just("row"), st.sampled_from([("a", "b"), ("a", "b", "c"), ("d",), ("b", "a")]), _STEPS, _TIMES)
_AUTO = st.tuples(st.just("row"), st.sampled_from([("a", "b"), ("e", "f")]), st.none(), _TIMES)
_POINT = st.tuples(st.just("point"), st.sampled_from(["a", "d", "g"]), st.one_of(st.none(), _STEPS), _TIMES)
_RESET = st.tuples(st.just("reset"), st.sampled_from(["a", "d"]), st.none(), _TIMES)
_TOLD = st.lists(st.one_of(_ROW, _ROW, _ROW, _AUTO, _POINT, _RESET), max_size=12)


@pytest.fixture(autouse=True)
def _rows_min() -> Iterator[None]:
    """Left as it was."""
    before = numeric.GRID_ROWS_MIN
    yield
    numeric.GRID_ROWS_MIN = before  # type: ignore[misc]


def _stored(commits: list[list[list[Any]]], values: list[float], rows_min: int) -> tuple[dict[str, Any], list[Any]]:
    """What is stored of these commits, each of which is a list of events for each of two sources."""
    numeric.GRID_ROWS_MIN = rows_min  # type: ignore[misc]
    chain = chain_of(memory_store())
    sources, taken = [Source("a").create(), Source("b", "rank")], iter(values * 1_000)
    for commit in commits:
        for source, told in zip(sources, commit, strict=True):
            for kind, name, step, time_ns in told:
                if kind == "row":
                    source.row({channel: next(taken) for channel in name}, step, time_ns)
                elif kind == "point":
                    source.point(name, step, next(taken), time_ns)
                else:
                    source.event(Kind.RESET, time_ns, name)
        chain.commit([source.batch() for source in sources], now_ns=NOW_NS)
    shown = head_of(chain).model_dump(mode="json", exclude={"nonce", "parts", "store", "document"})
    return shown | chain.document.model_dump(mode="json"), [
        [repr(value) for value in column] for column in chain.read("numeric").to_pydict().values()
    ]


@given(st.lists(st.tuples(_TOLD, _TOLD).map(list), min_size=1, max_size=3), st.lists(_VALUES, min_size=1, max_size=9))
def test_a_grid_stores_what_sorting_value_by_value_would(commits: list[list[list[Any]]], values: list[float]) -> None:
    """Steps in any order, ties, two sources, several kinds of rows, points and automatic steps beside them, resets: the same
    points in the same order, and the same document."""
    assert _stored(commits, values, 1) == _stored(commits, values, 1_000_000)


def test_the_columns_of_a_grid_are_one_array(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows alone, in order, are never sorted value by value: their channels share the array of steps."""
    source = Source().create()
    for step in range(300):
        source.row({"loss": step / 2, "acc": step / 3}, step)
    monkeypatch.setattr(numeric, "_sorted", None)
    chain = chain_of(memory_store())
    chain.commit([source.batch()], now_ns=NOW_NS)
    table = chain.read("numeric")
    assert table["step"].to_pylist() == [*range(300), *range(300)]
    assert table["value"].to_pylist() == [step / 3 for step in range(300)] + [step / 2 for step in range(300)]


def test_rows_without_steps_stay_grids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their steps go on from the highest that any of the row's channels had, in this commit and in those before."""
    source, chain = Source().create(), chain_of(memory_store())
    chain.commit([source.point("acc", 41, 0.0).batch()], now_ns=NOW_NS)
    monkeypatch.setattr(numeric, "_sorted", None)
    for _ in range(2):
        for _ in range(300):
            source.row({"loss": 1.0, "acc": 2.0}, None)
        automatic = source.batch()
        explicit = source.row({"loss": 1.0, "acc": 2.0}, 1000).batch()
        chain.commit([automatic, explicit], now_ns=NOW_NS)
    steps = [*range(42, 342), 1000, 1000, *range(1001, 1301)]
    assert chain.read("numeric", ["loss"])["step"].to_pylist() == steps
    assert chain.read("numeric", ["acc"])["step"].to_pylist() == [41, *steps]
