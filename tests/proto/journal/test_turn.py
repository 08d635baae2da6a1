"""The turn: one thread at a time, nobody starved, and no token ever lost or doubled by a waiter that goes."""

from __future__ import annotations

import threading

import pytest

from headrace_proto.journal.turn import Turn, Waiter
from tests.processes import in_threads
from tests.waiting import wait_until

THREADS = 4
ROUNDS = 5_000


def is_free(turn: Turn) -> bool:
    """Whether there is exactly one token, for the taking."""
    turn.take()
    with pytest.raises(IndexError):
        turn.take()
    turn.give(None)
    return not turn.waiting


def test_one_thread_at_a_time_has_the_turn() -> None:
    """What is read, changed and written in turn loses no change, and in the end the one token is there."""
    turn, box = Turn(), {"count": 0}

    def work(_: int) -> None:
        for _ in range(ROUNDS):
            try:
                turn.take()
            except IndexError:
                assert turn.acquire(60)
            seen = box["count"]
            for _ in range(3):  # a switch of threads is likely within
                seen += 0
            box["count"] = seen + 1
            turn.release()

    in_threads(THREADS, work)
    assert box["count"] == THREADS * ROUNDS
    assert is_free(turn)


def test_who_waits_gets_the_turn_from_a_thread_that_takes_it_again_at_once() -> None:
    """Handing over beats the loop that would always be first at the deque."""
    turn, over = Turn(), threading.Event()

    def greedy() -> None:
        while not over.is_set():
            try:
                turn.take()
            except IndexError:
                assert turn.acquire(60)
            turn.release()

    loop = threading.Thread(target=greedy)
    loop.start()
    for _ in range(20):
        assert turn.acquire(60)
        turn.release()
    over.set()
    loop.join()
    assert is_free(turn)


def test_a_waiter_that_gives_up_leaves_the_turn_to_the_next() -> None:
    """It leaves the queue; what it was given in that very moment it has."""
    turn = Turn()
    turn.take()
    assert not turn.acquire(0.0)
    assert not turn.waiting
    turn.release()
    assert is_free(turn)
    turn.take()
    late = Waiter()
    late.looks = False
    turn.waiting.append(late)
    assert not late.may_have(turn)
    turn.waiting.popleft()  # as a hand that is struck down before it can wake whom it gave the token
    assert late.may_have(turn)


def test_a_waiter_that_is_struck_down_passes_on_what_it_was_given() -> None:
    """KeyboardInterrupt out of the sleep of one that has been handed the token, and of one that has not."""

    class Struck(Waiter):
        def sleep(self, timeout_s: float) -> None:
            if given:
                turn.waiting.remove(self)
            raise KeyboardInterrupt

    for given in (False, True):
        turn = Turn()
        turn.take()
        with pytest.raises(KeyboardInterrupt):
            turn.wait(Struck(), 60, lambda: False)
        if not given:
            turn.release()
        assert is_free(turn)


def test_the_first_in_the_queue_replaces_a_lost_token_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """All who wait find it lost; one new token is made, and all have it, one after the other."""
    monkeypatch.setattr("headrace_proto.journal.turn._LOST_S", 0.0)
    turn, inside, most = Turn(), [0], [0]
    turn.take()  # and gone

    def work(_: int) -> None:
        assert turn.wait(
            Waiter(), 60, lambda: inside[0] == 0 and not any(one.may_have(turn) for one in [*turn.waiting])
        )
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        inside[0] -= 1
        turn.release()

    in_threads(THREADS, work)
    assert most == [1]
    assert is_free(turn)


def test_a_token_given_back_just_before_the_waiting_began_is_found() -> None:
    """Whoever gives back without seeing the waiter leaves the token in the deque, where the waiter looks again."""
    turn = Turn()
    turn.take()
    got: list[bool] = []
    waiter = threading.Thread(target=lambda: got.append(turn.acquire(60)))
    waiter.start()
    wait_until(lambda: turn.waiting, "the thread waits")
    turn.give(None)
    waiter.join()
    assert got == [True]
    turn.release()
    assert is_free(turn)
