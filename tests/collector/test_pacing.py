"""When commits come, and what one of them is given."""

from __future__ import annotations

from headrace_collector.gathering import Gathering
from headrace_collector.intake import Arrival, Memory, Standing, Verdict
from headrace_collector.pacing import REMOTE_INTERVAL_S_MAX, URGENT_S, Pacing
from headrace_proto.frame import Frame, FrameKind
from headrace_proto.ids import random_id
from headrace_proto.limits import BATCH_RAW_TARGET, MIB


class TestPacing:
    def test_local_commits_lie_on_one_grid(self) -> None:
        """Whatever comes between two ticks is committed at the next, so that a lone point waits half an interval."""
        pacing = Pacing(local=True)
        assert {pacing.due(now) for now in (10.0, 10.1, 10.49)} == {10.5}
        assert pacing.due(10.5) == 11.0

    def test_remote_commits_follow_the_age_of_what_waits(self) -> None:
        """On a remote store an experiment is committed an interval after its first frame."""
        assert Pacing(local=False).due(10.3) == 20.3

    def test_remote_interval_grows_with_live_experiments(self) -> None:
        """A thousand live experiments are committed once a minute, a hundred every ten seconds; the local grid stays."""
        few, many, local = Pacing(local=False), Pacing(local=False), Pacing(local=True)
        few.live, many.live, local.live = 100, 5000, 5000
        assert (few.interval_s, many.interval_s, local.interval_s) == (10.0, REMOTE_INTERVAL_S_MAX, 0.5)

    def test_urgent_frames_wait_for_no_interval(self) -> None:
        """What somebody waits for is committed within 200 ms."""
        assert Pacing(local=False, interval_s=3600).due(10.0, urgent=True) == 10.0 + URGENT_S

    def test_hardware_alone_is_rarely_committed_to_a_remote_store(self) -> None:
        """Samples of hardware, which never end, cost a remote store one commit a minute and a local one nothing special."""
        assert Pacing(local=False).due(10.0, background=True) == 10.0 + REMOTE_INTERVAL_S_MAX
        assert Pacing(local=True).due(10.0, background=True) == 10.5


def test_commit_of_many_sources_is_bounded_and_fair() -> None:
    """However many sources wait, a commit is given a bounded number of bytes, and each source has its turn."""
    gathering = Gathering(Memory(), lambda source: Standing())
    sources = [random_id() for _ in range(200)]
    for source in sources:
        frame = Frame(FrameKind.EVENTS, "team/digits", "e" * 32, source, 0, BATCH_RAW_TARGET)
        assert gathering.offer(Arrival(frame, source, "hall", 100, 0, 0.0), 0.0) is Verdict.HELD
    given: list[str] = []
    while taken := gathering.take(16 * MIB):
        assert sum(arrival.frame.raw_size for arrivals in taken.values() for arrival in arrivals) <= 16 * MIB
        given += taken
        for source in taken:
            gathering.drop(taken[source][0], 0.0)
    assert sorted(given) == sorted(sources)
