"""A store that was put back to an older state: when it is believed, and what is done then."""

from __future__ import annotations

from pathlib import Path

from headrace.service.nats_server import NatsServer
from headrace_agent.batch import TRIMMED
from headrace_agent.marks import SETBACK_S, Setbacks
from headrace_proto.events import Outcome
from headrace_proto.home import Home
from headrace_proto.messages import Mark
from tests.agent.conftest import Serve, log_points, new_writer, points_of
from tests.agent.far_end import FarEnd
from tests.waiting import until

MANY = 200_000


def mark(commit: int, position: int) -> Mark:
    return Mark("store", "e", "s", position, commit)


def test_a_lower_commit_said_once_is_an_answer_that_came_late() -> None:
    """Two collectors may answer out of order, and the one that was replaced says one thing more."""
    setbacks, newest = Setbacks(), mark(500, 9000)
    assert not setbacks.believes(mark(499, 8000), newest, 0.0)
    assert not setbacks.believes(mark(498, 7000), newest, 0.1)
    assert not setbacks.believes(newest, newest, 0.2)  # repeated by whoever serves: the matter is settled
    assert not setbacks.believes(mark(499, 8000), newest, 10.0)
    assert setbacks.doubtful(10.0 + SETBACK_S) == ["s"]
    setbacks.forget("s")
    assert setbacks.doubtful(100.0) == []


def test_lower_commits_said_again_are_a_store_that_went_back() -> None:
    """Its commits count upwards from where it was put back to."""
    setbacks, newest = Setbacks(), mark(500, 9000)
    assert not setbacks.believes(mark(40, 100), newest, 0.0)
    assert not setbacks.believes(mark(41, 100), newest, SETBACK_S / 2)
    assert setbacks.believes(mark(42, 200), newest, SETBACK_S)


async def test_what_a_store_lost_is_sent_again_and_what_was_freed_is_given_up(
    home: Home, nats_server: NatsServer, serve: Serve
) -> None:
    """One word of an older commit is asked after, and believed when the broker has none that is newer."""
    async with FarEnd(nats_server.url) as far, serve() as agent:
        writer = new_writer(home)
        log_points(writer, MANY)
        await far.has_all(writer)
        source = agent.tail.lanes[writer.source].source
        journal = Path(home.journal(writer.source))
        await until(
            lambda: source.stored == writer.position and len([*journal.glob("*.seg")]) == 1, "it is stored, and freed"
        )
        oldest = source.oldest
        whole = bytes(far.bytes[writer.source])
        kept = 1000 * 34
        del far.bytes[writer.source][kept:]
        far.commit = 1
        await far.mark(writer.source)
        await far.has_all(writer, "all that is left arrived again")
        (lost,) = far.lost
        assert (lost.first, lost.end, lost.reason) == (kept, oldest, TRIMMED)
        assert bytes(far.bytes[writer.source][oldest:]) == whole[oldest:]
        assert points_of(whole[oldest:])[-1] == MANY - 1
        await until(lambda: source.stored == writer.position, "the agent knows")
        writer.close(Outcome.SUCCEEDED)
