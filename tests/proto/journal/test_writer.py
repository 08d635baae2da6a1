"""What a call to the journal's writer promises."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace_proto import ids
from headrace_proto.errors import (
    ChannelTypeMismatch,
    ExperimentStopped,
    HomeUnusable,
    InvalidName,
    InvalidValue,
    TelemetryWarning,
)
from headrace_proto.events import ChannelType, Kind, Outcome
from headrace_proto.home import Home
from headrace_proto.journal import JournalReader, JournalWriter, SourceFacts
from headrace_proto.limits import EVENT_BYTES_MAX, SCHEMAS_MAX, SEGMENT_BYTES_FIRST
from tests.processes import in_threads
from tests.proto.journal.reading import events_of, points_of, settle, sources

EXPERIMENT = ids.derived_id("a/b", "journal tests")
pytestmark = pytest.mark.usefixtures("kind")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def open_writer(home: Home) -> JournalWriter:
    return JournalWriter(home, "a/b", EXPERIMENT)


def test_every_kind_comes_back_as_it_went_in(home: Home) -> None:
    """What was logged is in the journal, in order, readable by msgpack alone."""
    writer = open_writer(home)
    writer.point("loss", 3, 0.5, 1)
    writer.point("loss", None, math.inf, 2)
    writer.row({"a": 1.0, "b": float("nan")}, 7.5, 3)
    writer.row({"a": 1.0, "b": 2.0}, None, 4)
    writer.channel_event(Kind.TEXT, "notes", ChannelType.TEXT, None, 5, "hello")
    writer.event(Kind.TAGS, 6, ["x"], [])
    writer.close(Outcome.FAILED, "traceback")
    opened, *events = events_of(home, writer.source)
    assert opened[0] == Kind.OPEN
    assert opened[2]["role"] == "owner"
    one, two = np.array([1.0, np.nan], ">f8").tobytes(), np.array([1.0, 2.0], ">f8").tobytes()
    assert events[:-1] == [
        [Kind.CHANNEL, 0, "loss", ChannelType.NUMERIC],
        [Kind.POINT, 0, 3.0, 1, 0.5],
        [Kind.AUTO_POINT, 0, 2, math.inf],
        [Kind.CHANNEL, 1, "a", ChannelType.NUMERIC],
        [Kind.CHANNEL, 2, "b", ChannelType.NUMERIC],
        [Kind.SCHEMA, 0, [1, 2]],
        [Kind.ROW, 0, 7.5, 3, one],
        [Kind.AUTO_ROW, 0, 4, two],
        [Kind.CHANNEL, 3, "notes", ChannelType.TEXT],
        [Kind.TEXT, 3, None, 5, "hello"],
        [Kind.TAGS, 6, ["x"], []],
    ]
    assert events[-1][0] == Kind.CLOSED
    assert events[-1][2:] == [Outcome.FAILED, "traceback"]


def test_whatever_struct_takes_for_a_number_is_a_value(home: Home) -> None:
    """NumPy scalars, booleans and integers are values without a conversion by the caller."""
    writer = open_writer(home)
    given: list[Any] = [1, True, np.float32(0.5), np.int64(7), np.array(2.5), -0.0]
    for step, value in enumerate(given):
        writer.point("v", step, value, 1)
    writer.close(Outcome.SUCCEEDED)
    assert [value for _, value in points_of(home, writer.source)] == [float(v) for v in given]


@pytest.mark.parametrize("value", ["0.5", None, [1], {}, 1j, 10**400, b"1", object()])
def test_what_is_no_number_is_refused_by_name_and_nothing_else_is_lost(home: Home, value: object) -> None:
    """A bad value raises InvalidValue that names the channel; the events around it are kept."""
    writer = open_writer(home)
    writer.point("v", 1, 1.0, 1)
    with pytest.raises(InvalidValue, match="'v': the value"):
        writer.point("v", 2, value, 1)  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="'bad': the value"):
        writer.row({"good": 1.0, "bad": value}, 3, 1)  # type: ignore[dict-item]
    writer.point("v", 4, 4.0, 1)
    writer.close(Outcome.SUCCEEDED)
    assert points_of(home, writer.source) == [(1.0, 1.0), (4.0, 4.0)]
    assert not [event for event in events_of(home, writer.source) if event[0] == Kind.ROW]


@pytest.mark.parametrize("step", ["1", [], 1j])
def test_what_is_no_step_is_refused(home: Home, step: object) -> None:
    """A step of a wrong type raises InvalidValue that says so."""
    writer = open_writer(home)
    with pytest.raises(InvalidValue, match="'v': the step"):
        writer.point("v", step, 1.0, 1)  # type: ignore[arg-type]
    writer.close(Outcome.SUCCEEDED)


@pytest.mark.parametrize("name", ["", " ", 5, None, ["x"], "a\nb", "x" * 2000, "\ud800"])
def test_a_bad_channel_name_is_refused(home: Home, name: object) -> None:
    """A name that no store can hold raises InvalidName, for points and rows alike."""
    writer = open_writer(home)
    with pytest.raises(InvalidName):
        writer.point(name, 1, 1.0, 1)  # type: ignore[arg-type]
    if not isinstance(name, list):
        with pytest.raises(InvalidName):
            writer.row({name: 1.0}, 1, 1)  # type: ignore[dict-item]
    writer.close(Outcome.SUCCEEDED)


def test_a_channel_keeps_its_type(home: Home) -> None:
    """A text in a numeric channel, or a number in a text channel, is refused at the call."""
    writer = open_writer(home)
    writer.point("loss", 1, 1.0, 1)
    with pytest.raises(ChannelTypeMismatch, match="numeric"):
        writer.channel_event(Kind.TEXT, "loss", ChannelType.TEXT, None, 1, "x")
    writer.channel_event(Kind.TEXT, "notes", ChannelType.TEXT, None, 1, "x")
    with pytest.raises(ChannelTypeMismatch, match="text"):
        writer.point("notes", 1, 1.0, 1)
    with pytest.raises(ChannelTypeMismatch, match="text"):
        writer.point("notes", None, 1.0, 1)
    writer.close(Outcome.SUCCEEDED)


@pytest.mark.parametrize("step", [math.nan, math.inf, -math.inf])
def test_a_step_that_is_not_finite_is_a_gap(home: Home, step: float) -> None:
    """It is dropped, counted and warned about once; the journal says how many."""
    writer = open_writer(home)
    with pytest.warns(TelemetryWarning, match="step not finite") as caught:
        for _ in range(2):
            writer.row({"a": 1.0, "b": 2.0}, step, 1)
            writer.point("v", step, 1.0, 1)
    assert len(caught) == 1
    assert writer.dropped == 6
    writer.close(Outcome.SUCCEEDED)
    gaps = [event for event in events_of(home, writer.source) if event[0] == Kind.GAP]
    assert [gap[2:] for gap in gaps] == [[2, "step not finite"], [1, "step not finite"]] * 2


def test_rows_whose_names_always_change_become_points(home: Home) -> None:
    """Past SCHEMAS_MAX schemas a row is logged as points: nothing is lost and the schemas stay bounded."""
    writer = open_writer(home)
    for i in range(SCHEMAS_MAX + 3):
        writer.row({f"n{i}": float(i), "same": 1.0}, i, 1)
    writer.row({"fresh": 5.0}, None, 1)
    writer.close(Outcome.SUCCEEDED)
    events = events_of(home, writer.source)
    assert sum(event[0] == Kind.SCHEMA for event in events) == SCHEMAS_MAX
    assert sum(event[0] == Kind.POINT for event in events) == 6
    assert sum(event[0] == Kind.AUTO_POINT for event in events) == 1


def test_a_journal_rolls_over_many_segments(home: Home) -> None:
    """Positions run on over segments; points, rows and large events come back whole and in order."""
    writer = open_writer(home)
    count = 3 * SEGMENT_BYTES_FIRST // 34
    for i in range(count):
        writer.point("v", i, i * 0.5, 1)
        if i % 1000 == 0:
            writer.row({f"r{k}": float(k) for k in range(200)}, i, 1)
            writer.event(Kind.PROPERTY, 1, "k", "x" * (i % EVENT_BYTES_MAX // 2))
    position = writer.position
    writer.close(Outcome.SUCCEEDED)
    assert writer.position > position
    assert len(list(Path(home.journal(writer.source)).glob("*.seg"))) >= 2
    assert points_of(home, writer.source) == [(float(i), i * 0.5) for i in range(count)]


# -- Fault 20: refused at the call by its name and size; a small broker gets small batches ---------------------------


def test_an_oversize_event_is_refused(home: Home) -> None:
    """An event over EVENT_BYTES_MAX raises at the call; one just below is kept."""
    writer = open_writer(home)
    with pytest.raises(InvalidValue, match="artifact"):
        writer.event(Kind.PROPERTY, 1, "k", "x" * EVENT_BYTES_MAX)
    writer.event(Kind.PROPERTY, 1, "k", "x" * (EVENT_BYTES_MAX - 32))
    with pytest.raises(InvalidValue):
        writer.event(Kind.FACTS, 1, {"x": object()})
    writer.close(Outcome.SUCCEEDED)
    assert [len(e[3]) for e in events_of(home, writer.source) if e[0] == Kind.PROPERTY] == [EVENT_BYTES_MAX - 32]


# -- A source's life -------------------------------------------------------------------------------------------------


def test_after_close_a_call_says_so(home: Home) -> None:
    """close() twice is one close; a later call raises ExperimentStopped."""
    writer = open_writer(home)
    writer.close(Outcome.SUCCEEDED)
    writer.close(Outcome.FAILED)
    for call in (
        lambda: writer.point("v", 1, 1.0, 1),
        lambda: writer.point("v", None, 1.0, 1),
        lambda: writer.row({"v": 1.0}, 1, 1),
        lambda: writer.event(Kind.TAGS, 1, [], []),
    ):
        with pytest.raises(ExperimentStopped):
            call()
    assert [e[2] for e in events_of(home, writer.source) if e[0] == Kind.CLOSED] == [Outcome.SUCCEEDED]


def test_the_facts_of_a_source_and_its_first_events_lead_the_journal(home: Home) -> None:
    """Header and OPEN carry the source's facts, and what `first_events` returns follows OPEN."""
    facts = SourceFacts(role="rank", rank=3, label="eval", attempt=2, hardware=False)
    writer = JournalWriter(home, "a/b", EXPERIMENT, facts, lambda f: [(Kind.CREATE, 1, {"rank": f.rank})])
    reader = JournalReader(home.journal(writer.source))
    assert reader.header[:3] == (writer.source, EXPERIMENT, "a/b")
    assert SourceFacts(*(getattr(reader.header, name) for name in SourceFacts._fields)) == facts
    reader.close()
    writer.close(Outcome.SUCCEEDED)
    opened, created, _ = events_of(home, writer.source)
    assert (opened[2]["rank"], opened[2]["label"]) == (3, "eval")
    assert created == [Kind.CREATE, 1, {"rank": 3}]


def test_threads_log_whole_events_in_one_sequence(home: Home) -> None:
    """Eight threads lose nothing, and each one's points stay in its own order."""
    writer = open_writer(home)
    count = 4000

    def log(number: int) -> None:
        for i in range(count):
            writer.point(f"t{number}", i, float(i), 1)

    in_threads(8, log)
    writer.close(Outcome.SUCCEEDED)
    events = events_of(home, writer.source)
    names = {event[1]: event[2] for event in events if event[0] == Kind.CHANNEL}
    for number in names:
        assert [e[2] for e in events if e[0] == Kind.POINT and e[1] == number] == [float(i) for i in range(count)]
    assert len(names) == 8


# -- Fault 5: calls return; what is dropped is counted and stored as a gap; logging goes on when there is room -------


def test_a_quota_that_is_used_up_drops_counts_and_recovers(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the marker exists no segment is opened; what is dropped is in a GAP once there is room again."""
    monkeypatch.setattr("headrace_proto.journal.tape.RETRY_S", 0.0)
    writer = open_writer(home)
    Path(home.quota_marker).touch()
    count = 2 * SEGMENT_BYTES_FIRST // 34
    with pytest.warns(TelemetryWarning, match="quota"):
        for i in range(count):
            writer.point("v", i, 1.0, 1)
    dropped = writer.dropped
    assert dropped > 0
    Path(home.quota_marker).unlink()
    writer.point("v", -1, 1.0, 1)
    writer.close(Outcome.SUCCEEDED)
    events = events_of(home, writer.source)
    assert [e[2:] for e in events if e[0] == Kind.GAP] == [[dropped, "quota"]]
    assert sum(e[0] == Kind.POINT for e in events) == count + 1 - dropped


def test_where_no_segment_can_follow_the_reserve_holds_the_closing_record(home: Home) -> None:
    """Without room for another segment, the reserve takes the gap report, the outcome and a check."""
    writer = open_writer(home)
    Path(home.quota_marker).touch()
    with pytest.warns(TelemetryWarning):
        for i in range(2 * SEGMENT_BYTES_FIRST // 34):
            writer.point("v", i, 1.0, 1)
    writer.close(Outcome.FAILED, "x" * 5000 + "the end")
    *_, gap, closed = events_of(home, writer.source)
    assert gap[:1] + gap[2:] == [Kind.GAP, writer.dropped, "quota"]
    assert closed[2] == Outcome.FAILED
    assert closed[3].endswith("the end")
    reader = JournalReader(home.journal(writer.source))
    settle(reader)
    assert reader.closed
    reader.close()


# -- The home --------------------------------------------------------------------------------------------------------


def test_a_home_that_cannot_be_written_is_refused_with_a_remedy(tmp_path: Path) -> None:
    """A file in the place of the home raises HomeUnusable that names it and the variable."""
    (tmp_path / "file").write_text("")
    with pytest.raises(HomeUnusable, match="HEADRACE_HOME"):
        open_writer(Home(tmp_path / "file"))


def test_folders_and_files_are_their_owners_alone(home: Home) -> None:
    """Journal folders are 0700, segments and locks 0600, whatever the umask."""
    writer = open_writer(home)
    folder = Path(home.journal(writer.source))
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert sources(home) == [writer.source]
    writer.close(Outcome.SUCCEEDED)


def test_sync_covers_finished_segments_too(home: Home) -> None:
    """sync() works across a roll, after a trim, and on a closed journal."""
    writer = open_writer(home)
    for i in range(2 * SEGMENT_BYTES_FIRST // 34):
        writer.point("v", i, 1.0, 1)
    reader = JournalReader(home.journal(writer.source))
    settle(reader)
    assert reader.trim(writer.position) > 0
    reader.close()
    writer.sync()
    writer.sync()
    writer.close(Outcome.SUCCEEDED)
    writer.sync()
