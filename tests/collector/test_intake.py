"""Intake: whatever order, number and cut batches come in, each byte is committed once and each message answered once."""

from __future__ import annotations

from collections import Counter
from itertools import count, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_collector.intake import (
    ABOVE_BYTES_MAX,
    GAP_WATCHED_PART,
    REORDER_S,
    REWIND_PAUSE_S,
    SOURCE_ABOVE_BYTES_MAX,
    Arrival,
    Memory,
    SourceIntake,
    Standing,
    Verdict,
)
from headrace_proto.frame import Frame, FrameKind
from headrace_proto.limits import BATCH_RAW_MAX

EXPERIMENT, SOURCE = "e" * 32, "a" * 32
_numbers = count()


def arrival(first: int, end: int, kind: FrameKind = FrameKind.EVENTS, size: int = 100) -> Arrival:
    frame = Frame(kind, "team/project", EXPERIMENT, SOURCE, first, end)
    return Arrival(frame, reply=f"reply-{next(_numbers)}", site="local", size=size, at_ns=0, came_s=0.0)


class Receiver:
    """An intake, with a store of its own that counts how often each byte was stored."""

    def __init__(self, stored: int = 0, lost: tuple[tuple[int, int], ...] = ()) -> None:
        self.memory = Memory()
        self.intake = SourceIntake(Standing(stored, lost), self.memory)
        self.bytes: Counter[int] = Counter()
        self.offered: list[str] = []
        self.answered: list[str] = []
        self.now = 100.0

    def offer(self, new: Arrival) -> Verdict:
        self.offered.append(new.reply)
        verdict = self.intake.offer(new, self.now)
        if verdict is not Verdict.HELD:
            self.answered.append(new.reply)
        return verdict

    def commit(self, bytes_max: int = 1 << 30) -> list[Arrival]:
        taken = self.intake.take(bytes_max)
        stored = self.intake.stored
        for batch in taken:
            assert batch.frame.first <= stored, "a commit was given batches with a hole between them"
            self.bytes.update(range(stored, batch.frame.end))
            stored = max(stored, batch.frame.end)
        self.answered += self.intake.advance(Standing(stored), taken)
        return taken


class TestArithmetic:
    def test_in_order_batches_accumulate_until_a_commit_takes_them(self) -> None:
        """Two batches in order are one commit, and both messages are acknowledged by it, not before."""
        receiver = Receiver()
        assert [receiver.offer(arrival(0, 10)), receiver.offer(arrival(10, 30))] == [Verdict.HELD, Verdict.HELD]
        assert receiver.answered == []
        assert len(receiver.commit()) == 2
        assert receiver.intake.stored == 30
        assert receiver.answered == receiver.offered

    def test_below_the_watermark_is_answered_at_once(self) -> None:
        """A batch that the store has already is acknowledged, and asks for its mark again."""
        assert Receiver(stored=30).offer(arrival(10, 30)) is Verdict.STORED

    def test_straddling_batch_is_held_whole(self) -> None:
        """A batch over the watermark is given to the commit, which cuts it."""
        receiver = Receiver(stored=20)
        assert receiver.offer(arrival(10, 30)) is Verdict.HELD
        receiver.commit()
        assert sorted(receiver.bytes) == list(range(20, 30))

    def test_above_a_gap_waits_until_it_closes(self) -> None:
        """What comes too early is not committed before what precedes it."""
        receiver = Receiver()
        receiver.offer(arrival(10, 20))
        assert receiver.commit() == []
        receiver.offer(arrival(0, 10))
        assert len(receiver.commit()) == 2
        assert receiver.memory.above == receiver.memory.ready == 0

    def test_duplicate_of_what_waits_rides_along(self) -> None:
        """A second copy of a waiting batch is not committed twice, and acknowledged with the first."""
        receiver = Receiver()
        for _ in range(3):
            receiver.offer(arrival(0, 10))
        assert len(receiver.commit()) == 1
        assert sorted(receiver.answered) == sorted(receiver.offered)
        assert set(receiver.bytes.values()) == {1}

    def test_flush_frame_rides_on_what_stands_before_it(self) -> None:
        """An empty frame is acknowledged by the commit of what precedes it and commits nothing by itself."""
        receiver = Receiver()
        receiver.offer(arrival(0, 10))
        receiver.offer(arrival(10, 10))
        assert len(receiver.commit()) == 1
        assert receiver.answered == receiver.offered

    def test_dead_frame_at_the_watermark_is_committed(self) -> None:
        """The news of a death lies at the very end of a source, where events would count as stored."""
        receiver = Receiver(stored=10)
        receiver.offer(arrival(10, 10, FrameKind.DEAD))
        assert [taken.frame.kind for taken in receiver.commit()] == [FrameKind.DEAD]

    def test_dead_frame_that_came_during_a_commit_stays_for_the_next(self) -> None:
        """A commit that was not given the DEAD frame at its end does not acknowledge it."""
        receiver = Receiver()
        receiver.offer(arrival(0, 10))
        taken = receiver.intake.take(1 << 30)
        receiver.offer(arrival(10, 10, FrameKind.DEAD))
        assert receiver.intake.advance(Standing(10), taken) == [taken[0].reply]
        assert [waiting.frame.kind for waiting in receiver.commit()] == [FrameKind.DEAD]

    def test_dead_frame_of_a_source_that_lived_on_is_old_news(self) -> None:
        """Later bytes withdraw a death: its frame is acknowledged and says nothing."""
        assert Receiver(stored=20).offer(arrival(10, 10, FrameKind.DEAD)) is Verdict.STORED

    def test_lost_range_closes_a_gap(self) -> None:
        """A LOST frame moves on what waits above it, like the batch that will never come."""
        receiver = Receiver()
        receiver.offer(arrival(10, 20))
        receiver.offer(arrival(0, 10, FrameKind.LOST))
        assert [taken.frame.kind for taken in receiver.commit()] == [FrameKind.LOST, FrameKind.EVENTS]

    def test_good_bytes_of_a_lost_range_are_committed_after_all(self) -> None:
        """A batch below the watermark is taken if it has bytes of a range that was given up, and answered once it is stored."""
        receiver = Receiver(stored=30, lost=((10, 20),))
        assert receiver.offer(arrival(0, 10)) is Verdict.STORED
        late = arrival(10, 20)
        assert receiver.offer(late) is Verdict.HELD
        receiver.offer(arrival(30, 40))
        assert [(taken.frame.first, taken.frame.end) for taken in receiver.intake.take(1 << 30)] == [(10, 20), (30, 40)]
        assert late.reply in receiver.intake.advance(Standing(40), receiver.intake.take(1 << 30))
        assert receiver.memory.ready == 0

    def test_one_commit_takes_no_more_than_it_is_given_room_for(self) -> None:
        """A large backlog is committed in bounded steps, each at least one batch."""
        receiver = Receiver()
        for first in range(0, 100, 10):
            receiver.offer(arrival(first, first + 10))
        assert len(receiver.commit(bytes_max=35)) == 3
        assert len(receiver.commit(bytes_max=1)) == 1
        assert receiver.intake.stored == 40

    def test_rebase_answers_what_somebody_else_stored(self) -> None:
        """After another collector's commit, what it covers is acknowledged and the rest still waits, each once."""
        receiver = Receiver()
        mine = [arrival(0, 10), arrival(10, 20), arrival(20, 30), arrival(50, 60)]
        for new in mine:
            receiver.offer(new)
        assert receiver.intake.rebase(Standing(15), receiver.now) == [mine[0].reply]
        assert [taken.frame.end for taken in receiver.commit()] == [20, 30]
        assert receiver.memory.above == mine[3].size


class TestGaps:
    def test_rewind_is_asked_once_the_gap_is_no_reordering(self) -> None:
        """A gap asks for a rewind to the position after what is in order, after its patience, and then rarely."""
        receiver = Receiver()
        receiver.offer(arrival(0, 10))
        receiver.offer(arrival(20, 30))
        assert receiver.intake.rewind_due(receiver.now) is None
        assert receiver.intake.rewind_due(receiver.now + REORDER_S) == 10
        assert receiver.intake.rewind_due(receiver.now + REORDER_S + 1) is None
        assert receiver.intake.rewind_due(receiver.now + REORDER_S + REWIND_PAUSE_S) == 10

    def test_closed_gap_asks_for_nothing(self) -> None:
        """A gap that closed by itself is forgotten."""
        receiver = Receiver()
        receiver.offer(arrival(20, 30))
        receiver.offer(arrival(0, 20))
        assert receiver.intake.rewind_due(receiver.now + 100) is None

    def test_clock_that_jumps_ahead_gives_no_gap_up(self) -> None:
        """However old a message is by this host's clock: its gap has to be watched here for a while as well, from when it came."""
        receiver, patience_s = Receiver(), 24 * 3600.0
        watched_s = patience_s * GAP_WATCHED_PART
        came = arrival(20, 30)._replace(came_s=receiver.now)
        receiver.offer(came)
        jumped_ns = came.at_ns + 10 * int(patience_s * 1e9)
        assert receiver.intake.gap(jumped_ns, receiver.now + watched_s - 1, patience_s) is None
        assert receiver.intake.gap(jumped_ns, receiver.now + watched_s, patience_s) == (0, 20)
        receiver.answered += receiver.intake.rebase(Standing(5), receiver.now + watched_s)
        assert receiver.intake.gap(jumped_ns, receiver.now + watched_s, patience_s) == (5, 20)
        assert receiver.intake.gap(came.at_ns, receiver.now + 10 * patience_s, patience_s) is None

    def test_above_gap_overflow_is_dropped_and_asked_for(self) -> None:
        """Beyond its bound a source's early batches are dropped, and asked for at once: the journal has them."""
        receiver = Receiver()
        fits = SOURCE_ABOVE_BYTES_MAX // BATCH_RAW_MAX
        verdicts = [receiver.offer(arrival(10 * n, 10 * n + 10, size=BATCH_RAW_MAX)) for n in range(1, fits + 2)]
        assert verdicts == [Verdict.HELD] * fits + [Verdict.DROPPED]
        assert receiver.intake.rewind_due(receiver.now) == 0

    def test_all_gaps_of_a_process_share_one_bound(self) -> None:
        """Many sources with gaps cannot hold more than the process allows."""
        receiver = Receiver()
        receiver.memory.add(above=ABOVE_BYTES_MAX - 50)
        assert receiver.offer(arrival(10, 20)) is Verdict.DROPPED

    def test_clearing_gives_all_memory_back(self) -> None:
        """An intake that is let go of holds no bytes."""
        receiver = Receiver()
        receiver.offer(arrival(0, 10))
        receiver.offer(arrival(20, 30))
        receiver.intake.clear()
        assert (receiver.memory.ready, receiver.memory.above) == (0, 0)


LENGTH = 60


@st.composite
def cuts(draw: st.DrawFn) -> list[tuple[int, int]]:
    """One way to cut the journal into batches."""
    inner = draw(st.sets(st.integers(1, LENGTH - 1), max_size=12))
    return list(pairwise([0, *sorted(inner), LENGTH]))


@st.composite
def deliveries(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Any permutation of a part of several ways to cut, with duplicates: re-sends, redeliveries, losses."""
    pool = [batch for cut in draw(st.lists(cuts(), min_size=1, max_size=3)) for batch in cut]
    return draw(st.lists(st.sampled_from(pool), max_size=40))


# -- Fault 14: the same store for any delivery -----------------------------------------------------------------------


@settings(max_examples=200)
@given(deliveries(), cuts(), st.data())
def test_any_delivery_is_stored_exactly_once(
    batches: list[tuple[int, int]], agent: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Any permutation, duplication and loss of batches is stored once each, when rewinds are honoured, and all are answered."""
    receiver = Receiver()
    for first, end in batches:
        receiver.offer(arrival(first, end))
        receiver.now += data.draw(st.sampled_from([0.0, 0.3, 2.0]))
        if data.draw(st.booleans()):
            receiver.commit(bytes_max=data.draw(st.sampled_from([1, 20, 1000])))
        if data.draw(st.integers(0, 9)) == 0:
            receiver.answered += receiver.intake.rebase(Standing(receiver.intake.stored), receiver.now)
    receiver.now += 10 * REWIND_PAUSE_S
    wanted = receiver.intake.rewind_due(receiver.now)
    for first, end in agent:  # the agent goes back, or was not asked and sends what it has not sent yet
        if end > (receiver.intake.expected if wanted is None else wanted):
            receiver.offer(arrival(first, end))
    while receiver.commit():
        pass
    assert receiver.bytes == Counter(range(LENGTH))
    assert sorted(receiver.answered) == sorted(receiver.offered)
    assert (receiver.memory.ready, receiver.memory.above) == (0, 0)
