"""Three nats-servers, each stream on all of them: a leader that dies makes everybody wait a little, and nothing else."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from headrace.service.broker import stream_configs
from headrace_proto import subjects
from tests.faults.cluster import Cluster, connected
from tests.path.stack import Stack, check_stored

KILLS = 4
MEANWHILE = 5_000
"""Calls of each trainer while a server is away."""


# -- Fault 11: a stall, no loss, no duplicate ------------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_leaders_that_are_killed_under_load_lose_and_double_nothing(tmp_path: Path) -> None:
    """The leader of the events' stream dies by SIGKILL again and again while programs log; all goes on, and the store is exact."""
    with Cluster(tmp_path) as cluster, Stack(tmp_path, cluster.url) as stack:
        stack.start_agent()
        stack.start_collector("collector", "--replicas", "3")
        asyncio.run(cluster.whole())
        assert asyncio.run(_replicas(cluster.url)) == {3}
        trainers = [stack.start_trainer(seed, pace_s=1e-4) for seed in range(2)]
        for kill in range(KILLS):
            victim = asyncio.run(cluster.leader(subjects.EVENTS_STREAM if kill % 2 == 0 else subjects.LEASES_STREAM))
            victim.kill()
            for trainer in trainers:  # what is logged after the kill is stored while one of three is away
                stack.wait_stored(trainer, trainer.returned + MEANWHILE)
            victim.start()
            asyncio.run(cluster.whole())
        for trainer in trainers:
            trainer.kill()
        stack.wait_drained()
        check_stored(stack.store, trainers)


async def _replicas(url: str) -> set[int | None]:
    async with connected(url) as js:
        infos = [await js.stream_info(str(config.name)) for config in stream_configs()]
    return {info.config.num_replicas for info in infos}
