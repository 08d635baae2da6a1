"""One source: what is due, how it is cut, where a rewind goes, when it is over."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from headrace_agent.batch import Cutter
from headrace_agent.budget import Budget
from headrace_agent.source import Death, Due, Source
from headrace_proto.events import POINT_WIDTH, Outcome
from headrace_proto.frame import Codec, Frame, FrameKind, decode, raw_body
from headrace_proto.home import Home
from headrace_proto.journal import JournalReader, JournalWriter
from headrace_proto.limits import BATCH_RAW_TARGET, MIB
from headrace_proto.messages import Mark
from tests.agent.conftest import journal_bytes, log_points, new_writer

MS = 1_000_000
SECOND = 1_000 * MS


class Bench:
    """A writer, its source, and a clock that is moved by hand."""

    def __init__(self, home: Home) -> None:
        self.writer: JournalWriter = new_writer(home)
        self.budget = Budget(64 * MIB)
        self.now_ns = SECOND
        self.cutter = Cutter(home, "local")
        self.source = Source(JournalReader(self.writer.folder), self.budget, None, self.now_ns)

    def look(self, after_ns: int = 100 * MS) -> Due:
        self.source.poll(self.now_ns)
        self.now_ns += 2 * MS
        self.source.poll(self.now_ns)
        self.now_ns += after_ns
        return self.source.due(self.now_ns)

    def cut(self) -> Frame | None:
        return self.cutter.cut(self.source, BATCH_RAW_TARGET, self.now_ns)

    def cut_all(self) -> list[Frame]:
        self.look()
        frames = []
        while (frame := self.cut()) is not None:
            frames.append(frame)
        return frames

    def ack_all(self) -> None:
        while (flight := self.source.window.send()) is not None:
            self.source.acknowledged(flight)

    def tell_death(self) -> None:
        """Ten points and the proven end of their writer, all of which the stream has."""
        log_points(self.writer, 10)
        self.look()
        self.source.death = Death.PROVEN
        while self.cut():
            pass
        self.ack_all()

    def mark(self, position: int, commit: int = 1, *, dead: bool = False) -> None:
        self.source.marked(Mark("s", self.source.header.experiment, self.source.id, position, commit, dead=dead))


@pytest.fixture
def bench(home: Home) -> Iterator[Bench]:
    bench = Bench(home)
    yield bench
    bench.source.sleep()
    bench.writer.close(Outcome.SUCCEEDED)


def test_batches_are_the_journal_itself(bench: Bench, home: Home) -> None:
    """Contiguous, none above the target, together every byte; compressed where that helps."""
    log_points(bench.writer, 60_000)
    frames = bench.cut_all()
    assert [frame.first for frame in frames] == [0, *(frame.end for frame in frames[:-1])]
    assert max(frame.end - frame.first for frame in frames) <= BATCH_RAW_TARGET
    assert b"".join(raw_body(frame) for frame in frames) == journal_bytes(home, bench.source.id)
    assert all(frame.codec is Codec.ZSTD for frame in frames)
    assert decode(bench.source.window.send().data) == frames[0]  # type: ignore[union-attr]


def test_new_data_is_due_by_age_and_a_backlog_by_size(bench: Bench) -> None:
    """After a pause an event waits 50 ms for company, else until the frame before it is 0.4 s old; what fills a batch waits for
    nothing."""
    bench.cut_all()
    bench.ack_all()
    for pause_ns, age_ns in ((2 * SECOND, 50 * MS), (0, 400 * MS)):
        bench.now_ns += pause_ns
        log_points(bench.writer, 1)
        assert bench.look(after_ns=0) is Due.NOTHING
        bench.now_ns += age_ns - 3 * MS
        assert bench.source.due(bench.now_ns) is Due.NOTHING
        bench.now_ns += 3 * MS
        assert bench.source.due(bench.now_ns) is Due.LIVE
        assert bench.cut() is not None
        bench.ack_all()
    log_points(bench.writer, BATCH_RAW_TARGET // POINT_WIDTH + 100)
    assert bench.look(after_ns=0) is Due.BACKLOG


def test_a_slower_collector_makes_larger_batches(bench: Bench) -> None:
    """A batch's age is a tenth of the commit interval that the marks name."""
    bench.cut_all()
    bench.ack_all()
    bench.source.marked(Mark("s", "e", bench.source.id, bench.source.end, 1, interval_s=10.0))
    log_points(bench.writer, 1)
    assert bench.look(after_ns=900 * MS) is Due.NOTHING
    assert bench.look(after_ns=200 * MS) is Due.LIVE


def test_a_flush_request_hastens_the_batch_and_marks_it(bench: Bench) -> None:
    """Somebody waits: what is committed goes now, and asks for a commit."""
    bench.cut_all()
    bench.ack_all()
    log_points(bench.writer, 3)
    bench.look(after_ns=0)
    bench.source.asked_to_flush()
    assert bench.source.due(bench.now_ns) is Due.LIVE
    frame = bench.cut()
    assert frame is not None
    assert frame.flush
    assert bench.source.flush_to is None


def test_a_flush_of_what_was_sent_already_asks_without_bytes(bench: Bench) -> None:
    """A frame of no length carries the question."""
    bench.cut_all()
    bench.source.asked_to_flush()
    frame = bench.cut()
    assert frame is not None
    assert (frame.kind, frame.first == frame.end, frame.flush) == (FrameKind.EVENTS, True, True)
    assert bench.cut() is None


def test_a_flush_of_what_is_stored_asks_nothing(bench: Bench) -> None:
    """There is nothing to wait for."""
    bench.cut_all()
    bench.ack_all()
    bench.mark(bench.source.end)
    bench.source.asked_to_flush()
    assert bench.cut() is None


def test_the_first_and_the_last_batch_of_a_journal_ask_for_a_commit(bench: Bench) -> None:
    """An experiment's beginning and end are shown soon."""
    log_points(bench.writer, 60_000)
    bench.writer.close(Outcome.SUCCEEDED)
    assert [frame.flush for frame in bench.cut_all()] == [True, False, False, True]


def test_a_rewind_goes_to_an_event_boundary_whatever_it_asks(bench: Bench, home: Home) -> None:
    """A position from the network that is not the end of a batch becomes the nearest one before it."""
    log_points(bench.writer, 60_000)
    frames = bench.cut_all()
    bench.ack_all()
    bench.source.rewind(frames[1].end)
    assert bench.source.window.cut == frames[1].end
    bench.source.rewind(frames[0].end + 17)
    assert bench.source.window.cut <= frames[0].end
    again = bench.cut_all()
    whole = journal_bytes(home, bench.source.id)
    assert b"".join(raw_body(frame) for frame in again) == whole[again[0].first :]


def test_a_rewind_below_what_is_left_gives_the_difference_up(bench: Bench) -> None:
    """What was trimmed cannot be sent again: the store is told, and the rest follows."""
    log_points(bench.writer, 100_000)
    bench.cut_all()
    bench.ack_all()
    bench.mark(bench.source.end)
    bench.source.trim(Mark("s", "e", bench.source.id, bench.source.end, 1))
    assert bench.source.oldest > 0
    bench.source.rewind(0)
    bench.look()
    assert bench.cut() is None  # damage must be seen again before it is believed
    bench.now_ns += 3 * SECOND
    bench.look()
    lost = bench.cut()
    assert lost is not None
    assert (lost.kind, lost.first, lost.end) == (FrameKind.LOST, 0, bench.source.oldest)
    following = bench.cut()
    assert following is not None
    assert following.first == lost.end


def test_a_store_that_is_ahead_spares_what_it_has(bench: Bench) -> None:
    """After a restart with an old mark, the first mark heard moves the cursor forward."""
    log_points(bench.writer, 60_000)
    frames = bench.cut_all()
    bench.source.rewind(0)
    bench.mark(frames[2].end)
    assert bench.source.window.cut == frames[2].end
    assert bench.cut_all()[0].first == frames[2].end


def test_a_damaged_block_is_given_up_alone_and_kept(bench: Bench, home: Home) -> None:
    """Everything before and after it is sent; its bytes are set aside for people."""
    log_points(bench.writer, 10_000)
    with open(os.path.join(bench.writer.folder, "000000.seg"), "r+b") as file:
        file.seek(8192 + 100_000)
        byte = file.read(1)
        file.seek(8192 + 100_000)
        file.write(bytes([byte[0] ^ 1]))
    frames = bench.cut_all()
    bench.now_ns += 3 * SECOND
    frames += bench.cut_all()
    assert [frame.kind for frame in frames] == [FrameKind.EVENTS, FrameKind.LOST, FrameKind.EVENTS]
    lost = frames[1]
    assert lost.first <= 100_000 < lost.end
    assert lost.end - lost.first < 8192
    assert frames[2].end == bench.source.end
    with open(home.damaged(bench.source.id, lost.first, lost.end), "rb") as file:
        assert len(file.read()) == lost.end - lost.first


def test_a_death_is_told_behind_all_the_rest_and_believed_when_the_store_says_so(bench: Bench) -> None:
    """The stream's word for it does not count, nor a mark that does not name it."""
    log_points(bench.writer, 10)
    bench.look()
    bench.source.death = Death.PROVEN
    frames = [bench.cut(), bench.cut()]
    assert [frame and frame.kind for frame in frames] == [FrameKind.EVENTS, FrameKind.DEAD]
    assert frames[1] is not None
    assert (frames[1].first, frames[1].end) == (bench.source.end, bench.source.end)
    assert bench.cut() is None
    bench.ack_all()
    assert bench.source.death is Death.TOLD
    bench.mark(bench.source.end, commit=7)
    assert bench.source.outstanding
    assert not bench.source.over
    bench.mark(bench.source.end, commit=8, dead=True)
    assert bench.source.over


def test_a_death_that_the_store_knows_of_need_not_be_told(bench: Bench) -> None:
    """An agent before this one told it, and was killed before it heard."""
    log_points(bench.writer, 10)
    bench.look()
    bench.source.death = Death.PROVEN
    bench.mark(bench.source.end, dead=True)
    assert bench.cut() is None
    assert bench.source.over


def test_a_copy_that_ends_before_what_is_stored_tells_no_death(bench: Bench) -> None:
    """In the boot of its writer nothing is lost with the power: it goes on elsewhere, and may live."""
    bench.tell_death()
    bench.mark(bench.source.end + POINT_WIDTH)
    bench.source.start_again()
    assert bench.cut() is None
    assert bench.source.over


def test_a_death_that_nobody_confirms_is_told_again(bench: Bench) -> None:
    """Its frame was lost with a broker's disk."""
    bench.tell_death()
    bench.mark(bench.source.end)
    bench.source.start_again()
    again = bench.cut()
    assert again is not None
    assert again.kind is FrameKind.DEAD


def test_a_closed_source_is_over_when_all_of_it_is_stored(bench: Bench) -> None:
    """Not when the stream has it."""
    log_points(bench.writer, 10)
    bench.writer.close(Outcome.SUCCEEDED)
    bench.cut_all()
    bench.ack_all()
    assert bench.source.shipped
    assert not bench.source.over
    bench.mark(bench.source.end)
    assert bench.source.over
