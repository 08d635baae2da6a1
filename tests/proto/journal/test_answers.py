"""What a writer answers about itself: last values, positions, where an event would go."""

from __future__ import annotations

import os

import pytest

from headrace_proto.errors import TelemetryWarning
from headrace_proto.events import Kind
from headrace_proto.home import Home
from headrace_proto.ids import random_id
from headrace_proto.journal import JournalWriter
from tests.proto.journal.reading import events_of


@pytest.fixture
def writer(home: Home) -> JournalWriter:
    """A writer of a new source."""
    return JournalWriter(home, "a/b", random_id())


def test_the_last_value_of_each_channel_is_known(writer: JournalWriter) -> None:
    """Whatever it was logged by, and however many segments ago."""
    writer.point("early", 1, 0.5, 0)
    writer.row({"a": 1.0, "b": 2.0}, 1, 0)
    for step in range(200_000):
        writer.point("loss", step, step, 0)
    writer.row({"a": 3.0, "b": 4.0}, None, 0)
    writer.point("b", None, 5.0, 0)
    known = {"early": 0.5, "a": 3.0, "b": 5.0, "loss": 199_999.0}
    assert writer.latest() == known
    writer.forget("loss")
    del known["loss"]
    assert writer.latest() == known
    writer.close("succeeded")
    assert writer.latest() == known


def test_rows_that_are_points_are_known_too(writer: JournalWriter) -> None:
    """A row of names that change at every call is logged as points."""
    for number in range(100):
        writer.row({f"x{number}": number, "same": number}, number, 0)
    latest = writer.latest()
    assert latest["same"] == 99.0
    assert len(latest) == 101
    writer.close("succeeded")


def test_a_forked_child_knows_what_its_parent_logged(writer: JournalWriter) -> None:
    """And goes on from there; the parent does not notice."""
    writer.point("loss", 1, 0.5, 0)
    writer.point("acc", 1, 0.75, 0)
    child = os.fork()
    if child == 0:
        writer.point("loss", 2, 0.25, 0)
        os._exit(0 if writer.latest() == {"loss": 0.25, "acc": 0.75} else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert writer.latest() == {"loss": 0.5, "acc": 0.75}
    writer.close("succeeded")


def test_an_event_of_a_forked_child_goes_to_a_source_of_its_own(writer: JournalWriter) -> None:
    """`here` says so before the first event, so that a spooled file can lie with it."""
    assert writer.here() is writer
    assert writer.positions() == {writer.source: writer.position}
    parent = writer.source
    child = os.fork()
    if child == 0:
        silent = writer.positions() == {}
        begun = writer.here() is writer and writer.source != parent
        os._exit(0 if silent and begun and list(writer.positions()) == [writer.source] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    writer.close("succeeded")


def test_what_was_lost_before_it_came_here_is_a_gap_too(writer: JournalWriter, home: Home) -> None:
    """Counted, warned about once, and said in the journal."""
    with pytest.warns(TelemetryWarning, match="spool full") as warned:
        writer.lose(2, "spool full")
        writer.lose(1, "spool full")
    assert len(warned) == 1
    assert writer.dropped == 3
    writer.close("succeeded")
    gaps = [event[2:] for event in events_of(home, writer.source) if event[0] == Kind.GAP]
    assert gaps == [[2, "spool full"], [1, "spool full"]]
