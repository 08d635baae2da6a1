"""Go-back-N, as arithmetic."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace_agent.budget import Budget
from headrace_agent.window import Flight, Window

BUDGET = 1 << 20


def filled(frames: int) -> tuple[Window, Budget]:
    budget = Budget(BUDGET)
    window = Window(0, budget)
    for i in range(frames):
        window.add(i * 10, i * 10 + 10, b"x" * 10)
    return window, budget


def sent(window: Window) -> list[Flight]:
    flights = []
    while (flight := window.send()) is not None:
        flights.append(flight)
    return flights


def test_acknowledgements_in_any_order_move_the_position_without_a_gap() -> None:
    """`acked` follows only what is contiguous."""
    window, budget = filled(3)
    first, second, third = sent(window)
    assert not window.acknowledged(third)
    assert window.acked == 0
    assert window.acknowledged(first)
    assert window.acked == 10
    assert window.acknowledged(second)
    assert (window.acked, budget.held, len(window)) == (30, 0, 0)


def test_after_a_failure_nothing_is_sent_until_all_is_answered() -> None:
    """Retries never overtake what is still in flight."""
    window, _ = filled(3)
    first, second, third = sent(window)
    window.failed(first)
    assert window.send() is None
    assert not window.waits
    assert not window.room
    window.failed(second)
    assert window.send() is None
    window.failed(third)
    assert [flight.first for flight in sent(window)] == [0, 10, 20]


def test_a_retry_is_the_same_message() -> None:
    """The stream's duplicate window recognises it: same bytes, same epoch."""
    window, _ = filled(1)
    (flight,) = sent(window)
    window.failed(flight)
    (again,) = sent(window)
    assert again is flight
    assert again.epoch == 0


def test_what_was_acknowledged_above_a_failure_is_sent_again_under_another_identity() -> None:
    """It lies in the stream above a gap; under its old identity the stream would swallow the repetition."""
    window, _ = filled(3)
    first, second, third = sent(window)
    window.failed(first)
    window.acknowledged(second)
    window.failed(third)
    assert [(flight.first, flight.epoch) for flight in sent(window)] == [(0, 0), (10, 1), (20, 0)]


def test_a_rewind_forgets_what_is_in_flight() -> None:
    """Late answers to forgotten frames change nothing, and their bytes are free again."""
    window, budget = filled(2)
    first, second = sent(window)
    window.rewind(0)
    assert (budget.held, window.cut, window.epoch) == (0, 0, 1)
    assert not window.acknowledged(first)
    window.failed(second)
    window.add(0, 10, b"y" * 10)
    (again,) = sent(window)
    assert again.epoch == 1
    assert window.acknowledged(again)
    assert window.acked == 10


def test_a_window_has_room_for_so_many_frames_and_so_many_bytes() -> None:
    """Memory is bounded by both."""
    window, _ = filled(16)
    assert not window.room
    budget = Budget(15)
    window = Window(0, budget)
    window.add(0, 10, b"x" * 10)
    assert window.room
    window.add(10, 20, b"x" * 10)
    assert not window.room


@given(st.data())
def test_whatever_the_link_does_the_stream_can_be_put_in_order(data: st.DataObject) -> None:
    """A stream that took any subset of what was sent, in sending order, and dropped repeated identities, holds every byte, and a
    reader that takes only what is contiguous (and may ask again) gets to the end."""
    count = data.draw(st.integers(1, 12), label="frames")
    window, budget = filled(count)
    stream: list[tuple[int, int]] = []
    known: set[tuple[int, int, int]] = set()
    in_flight: list[Flight] = []
    steps = 0
    while window.acked < count * 10:
        steps += 1
        flight = window.send() if steps > 200 or data.draw(st.booleans(), label="send") else None
        if flight is not None:
            in_flight.append(flight)
            lands = steps > 200 or data.draw(st.booleans(), label="lands")
            identity = (flight.first, flight.end, flight.epoch)
            if lands and identity not in known:
                known.add(identity)
                stream.append((flight.first, flight.end))
            flight_landed[id(flight)] = lands
        elif in_flight:
            answered = in_flight.pop(
                0 if steps > 200 else data.draw(st.integers(0, len(in_flight) - 1), label="answer")
            )
            heard = flight_landed[id(answered)] and (steps > 200 or data.draw(st.booleans(), label="heard"))
            if heard:
                window.acknowledged(answered)
            else:
                window.failed(answered)
    assert budget.held == 0
    watermark = 0
    above: dict[int, int] = {}
    for first, end in stream:
        above[first] = end
        while watermark in above:
            watermark = above.pop(watermark)
    assert watermark == count * 10


flight_landed: dict[int, bool] = {}
