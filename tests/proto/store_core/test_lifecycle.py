"""The state of an experiment: a fold over its sources."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from headrace_proto.store.documents import SourceRecord
from headrace_proto.store.lifecycle import fold
from headrace_proto.store.times import at_us


def _source(told: str) -> SourceRecord:
    """`owner 1-5 failed @2`: opened at 1, ended at 5 as failed, attempt 2."""
    role, times, *rest = told.split()
    opened, _, ended = times.partition("-")
    attempt = next((int(word[1:]) for word in rest if word.startswith("@")), 0)
    states = [word for word in rest if not word.startswith("@")]
    facts: dict[str, Any] = (
        {"state": states[0], "ended_at": at_us(int(ended)), "detail": f"{role} at {ended}"} if states else {}
    )
    return SourceRecord(role=role, opened_at=at_us(int(opened)), attempt=attempt, **facts)


@pytest.mark.parametrize(
    ("sources", "state", "finished"),
    [
        ([], "running", None),
        (["owner 1"], "running", None),
        (["owner 1-5 succeeded"], "succeeded", 5),
        (["owner 1-5 failed"], "failed", 5),
        (["owner 1-5 aborted"], "aborted", 5),
        (["owner 1-5 dead"], "failed", 5),
        # ranks
        (["owner 1-5 succeeded", "rank 2"], "running", None),
        (["owner 1-5 succeeded", "rank 2-9 succeeded"], "succeeded", 9),
        (["owner 1-5 succeeded", "rank 2-4 failed"], "failed", 5),
        (["owner 1-5 succeeded", "rank 2-4 dead"], "failed", 5),
        (["owner 1-5 failed", "rank 2-6 aborted"], "aborted", 6),
        (["rank 1-3 succeeded"], "succeeded", 3),
        # whoever comes and goes decides nothing
        (["owner 1-5 succeeded", "worker 2-3 dead"], "succeeded", 5),
        (["owner 1-5 succeeded", "system 2"], "succeeded", 5),
        (["system 1"], "running", None),
        (["worker 1-2 failed"], "running", None),
        # a restart with the same key
        (["owner 1-5 dead", "owner 6"], "running", None),
        (["owner 1-5 failed", "owner 6-9 succeeded"], "succeeded", 9),
        (["owner 1-5 succeeded", "owner 6-9 dead"], "failed", 9),
        (["owner 1-5 dead", "rank 2-5 dead", "owner 6-9 succeeded", "rank 6-9 succeeded"], "succeeded", 9),
        (["owner 1-8 dead", "owner 6-9 succeeded"], "succeeded", 9),
        (["owner 1", "owner 6-9 succeeded"], "succeeded", 9),
        (["owner 6-5 failed"], "failed", 5),
        # a higher attempt
        (["owner 1-5 failed @0", "owner 2-4 succeeded @1"], "succeeded", 4),
        (["owner 1 @0", "owner 2-4 succeeded @1"], "succeeded", 4),
        (["owner 1-3 succeeded @1", "rank 2 @0"], "succeeded", 3),
        (["owner 1-3 succeeded @0", "rank 2 @1"], "running", None),
        # a job that is submitted again, whose launcher counts from 0
        (["owner 1-3 failed @0", "owner 4-6 failed @1", "owner 7 @0"], "running", None),
        (
            ["owner 4-6 failed @2", "rank 4-6 dead @2", "owner 7-9 succeeded @0", "rank 7-9 succeeded @0"],
            "succeeded",
            9,
        ),
        (["owner 4-6 failed @2", "owner 7-8 failed @0", "owner 9-11 succeeded @1"], "succeeded", 11),
        (["owner 4-6 failed @2", "rank 4 @2", "owner 7-9 succeeded @0"], "running", None),
    ],
)
def test_the_state_is_a_fold_over_sources(sources: list[str], state: str, finished: int | None) -> None:
    """Every line of this table holds in whatever order the sources are listed."""
    for order in permutations(sources):
        folded = fold(map(_source, order))
        assert (folded.state, folded.finished_at) == (state, None if finished is None else at_us(finished))


def test_a_failure_shows_the_last_traceback() -> None:
    """Of a failed experiment, the last failing source's detail is kept; a success has none."""
    assert fold(map(_source, ["owner 1-5 failed", "rank 1-7 failed"])).detail == "rank at 7"
    assert fold([_source("owner 1-5 succeeded")]).detail is None
