"""Exceptions that strike in the middle, as Ctrl-C's does, and threads that stand still there: nothing is lost, written twice, or
waited for in vain."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from headrace_proto import ids
from headrace_proto.events import Outcome
from headrace_proto.home import Home
from headrace_proto.journal import JournalReader, JournalWriter
from headrace_proto.journal.gate import Gate
from headrace_proto.journal.turn import Turn, Waiter
from tests.proto.journal.reading import Clock, points_of, settle
from tests.waiting import wait_until

EXPERIMENT = ids.derived_id("a/b", "interrupt tests")
pytestmark = pytest.mark.usefixtures("kind")


def test_an_exception_between_turn_and_try_does_not_lock_for_ever(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn that no frame has any more is recognised and taken over."""
    monkeypatch.setattr("headrace_proto.journal.turn._LOST_S", 0.01)
    writer = JournalWriter(home, "a/b", EXPERIMENT)
    writer._turn.take()  # as KeyboardInterrupt leaves it when it strikes right after the taking
    writer.point("v", 1, 1.0, 1)
    writer.point("v", 2, 1.0, 1)
    writer.close(Outcome.SUCCEEDED)
    assert points_of(home, writer.source) == [(1.0, 1.0), (2.0, 1.0)]


def test_at_the_end_of_the_stack_no_turn_is_lost(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that has room to take the turn has room to end it: at no depth of a recursion does the next one wait."""

    def deep(call: Callable[[], object]) -> None:
        with suppress(RecursionError):
            deep(call)
        with suppress(RecursionError):
            call()

    waits: list[JournalWriter] = []
    plain = JournalWriter._wait_for_turn

    def counted(writer: JournalWriter) -> Turn | None:
        waits.append(writer)
        return plain(writer)

    monkeypatch.setattr(JournalWriter, "_wait_for_turn", counted)
    writer = JournalWriter(home, "a/b", EXPERIMENT)
    calls: list[Callable[[], None]] = [
        lambda: writer.point("v", 1, 1.0, 1),
        lambda: writer.point("v", None, 1.0, 1),
        lambda: writer.row({"a": 1.0, "b": 2.0}, 1, 1),
    ]
    for call in calls:
        call()
        deep(call)
        assert waits == []


def test_who_has_the_turn_and_not_the_interpreter_has_not_lost_it(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that compute keep those that log off the interpreter, also between being given the turn and using it: two at once
    would write over each other, and end a turn twice."""
    monkeypatch.setattr("headrace_proto.journal.turn._LOST_S", 0.0)  # every wait asks whether the turn is lost
    monkeypatch.setattr("headrace_proto.journal.turn.PATIENCE_S", 0.0)  # and every turn goes from hand to hand
    writer = JournalWriter(home, "a/b", EXPERIMENT)
    over, failures, calls = threading.Event(), [], 150

    def log(channel: int) -> None:
        try:
            for step in range(calls):
                writer.point(f"of {channel}", step, channel, 1)
        except Exception as error:
            failures.append(error)

    def compute() -> None:
        while not over.is_set():
            sum(range(100))

    switch_s = sys.getswitchinterval()
    sys.setswitchinterval(0.0002)
    threads = [threading.Thread(target=log, args=(channel,)) for channel in range(8)]
    busy = [threading.Thread(target=compute) for _ in range(3)]
    try:
        for thread in busy + threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        over.set()
        sys.setswitchinterval(switch_s)
    writer.close(Outcome.SUCCEEDED)
    assert failures == []
    points = points_of(home, writer.source)
    for channel in range(8):
        assert [step for step, value in points if value == channel] == [*range(calls)]


def test_a_turn_given_to_a_thread_that_sleeps_on_is_not_lost(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has been woken, and others run first: they wait for it, however often they ask, and however long."""
    monkeypatch.setattr("headrace_proto.journal.turn._LOST_S", 0.0)
    monkeypatch.setattr("headrace_proto.journal.turn.PATIENCE_S", 0.0)
    writer = JournalWriter(home, "a/b", EXPERIMENT)
    awake, asked = threading.Event(), []

    def sleep(waiter: Waiter, timeout_s: float) -> None:
        if threading.current_thread() is first:
            awake.wait()
        else:
            plain(waiter, 0.001)

    def is_lost(gate: Gate, turn: Turn) -> bool:
        asked.append(plain_is_lost(gate, turn))
        return asked[-1]

    plain, plain_is_lost = Waiter.sleep, Gate._is_lost
    monkeypatch.setattr(Waiter, "sleep", sleep)
    monkeypatch.setattr(Gate, "_is_lost", is_lost)
    first, second = (threading.Thread(target=writer.point, args=("v", step, 1.0, 1)) for step in (1, 2))
    writer.hold(1.0)
    first.start()
    wait_until(lambda: writer._turn.waiting, "the first waits")
    writer.let_go()
    asked.clear()
    second.start()
    wait_until(lambda: len(asked) > 20, "the second has asked")
    assert not any(asked)
    awake.set()
    first.join()
    second.join()
    assert [step for step, _ in points_of(home, writer.source)] == [1, 2]


def struck(monkeypatch: pytest.MonkeyPatch, target: str, times: int = 1) -> None:
    """Have KeyboardInterrupt raised, as by a signal's handler, behind the next call of this."""
    *path, name = target.rsplit(".", 1)
    left = times

    def then_struck(*given: Any, **named: Any) -> Any:
        nonlocal left
        found = plain(*given, **named)
        if left:
            left -= 1
            raise KeyboardInterrupt
        return found

    module, owner = path[0].rsplit(":", 1) if ":" in path[0] else (path[0], "")
    holder = getattr(importlib.import_module(module), owner) if owner else importlib.import_module(module)
    plain = getattr(holder, name)
    monkeypatch.setattr(holder, name, then_struck)


@pytest.mark.parametrize(
    "behind", ["segment:Segment.begin", "tape:Tape._use", "segment._create", "writer:JournalWriter._leave_segment"]
)
def test_an_exception_in_the_middle_of_a_change_of_segments_ends_no_journal(
    home: Home, monkeypatch: pytest.MonkeyPatch, behind: str
) -> None:
    """Ctrl-C between any two steps: the agent that has followed so far follows on, and all that was logged after it is there."""
    for segments in ("SEGMENT_BYTES_FIRST", "SEGMENT_BYTES"):
        monkeypatch.setattr(f"headrace_proto.journal.tape.{segments}", 24 * 1024)
    writer = JournalWriter(home, "a/b", EXPERIMENT)
    reader, clock = JournalReader(writer.folder), Clock()
    step = 0
    while writer._at + 200 < writer._hard:
        writer.point("v", step, 1.0, 1)
        step += 1
        if behind == "segment._create" and writer._at > writer._segment.size // 3:
            break
    settle(reader, clock)
    struck(monkeypatch, f"headrace_proto.journal.{behind}")
    logged = [*range(step)]
    for later in range(step, step + 1000):
        try:
            writer.point("v", later, 1.0, 1)
        except KeyboardInterrupt:
            settle(reader, clock)
        else:
            logged.append(later)
            if later % 100 == 0:
                settle(reader, clock)
                assert reader.end == writer.position
    writer.close(Outcome.SUCCEEDED)
    settle(reader, clock)
    assert writer.dropped == 0
    assert len(logged) == step + 999
    assert reader.end == writer.position
    assert reader.closed
    assert [at for at, _ in points_of(home, writer.source)] == logged
