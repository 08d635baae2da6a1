"""Whose turn it is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace_agent.turns import Turns


def test_new_data_waits_for_one_batch_of_a_backlog_at_most() -> None:
    """With a thousand sources catching up, a source that was just written to is next, or the one after."""
    turns: Turns[str] = Turns()
    for i in range(1000):
        turns.offer(f"old {i}", backlog=True)
    turns.take()
    turns.offer("new", backlog=False)
    assert "new" in (turns.take(), turns.take())


def test_a_backlog_is_not_starved_by_new_data() -> None:
    """Between two live batches there is one of a backlog."""
    turns: Turns[str] = Turns()
    turns.offer("old", backlog=True)
    seen = []
    for _ in range(10):
        turns.offer("new", backlog=False)
        turns.offer("newer", backlog=False)
        key = turns.take()
        seen.append(key)
        if key == "old":
            turns.offer("old", backlog=True)
    assert seen.count("old") == 5


def test_sources_of_one_ring_take_turns() -> None:
    """Each has one batch, then goes to the end."""
    turns: Turns[int] = Turns()
    for key in range(3):
        turns.offer(key, backlog=True)
    order = []
    for _ in range(6):
        first = turns.take()
        assert first is not None
        order.append(first)
        turns.offer(first, backlog=True)
    assert order == [0, 1, 2, 0, 1, 2]


def test_a_source_may_change_its_ring_and_leave() -> None:
    """It is in one ring at most."""
    turns: Turns[str] = Turns()
    turns.offer("a", backlog=True)
    turns.offer("a", backlog=False)
    assert len(turns) == 1
    assert "a" in turns
    turns.withdraw("a")
    assert turns.take() is None


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=50))
def test_everybody_who_was_offered_gets_exactly_one_turn(offers: list[tuple[int, bool]]) -> None:
    """No offer is lost, none is doubled."""
    turns: Turns[int] = Turns()
    for key, backlog in offers:
        turns.offer(key, backlog=backlog)
    taken = list(iter(turns.take, None))
    assert sorted(taken) == sorted({key for key, _ in offers})
