"""Three real nats-servers on the loopback interface as one cluster, whose leaders a test may kill."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, Self

from nats.js import JetStreamContext
from nats.js.api import ClusterInfo

from headrace.service.broker import connect, stream_configs
from headrace.service.nats_server import NatsServer
from headrace.service.ports import LOOPBACK, free_port
from headrace_collector.keeper import TRANSIENT
from headrace_proto import subjects

SIZE: Final = 3
WAIT_S: Final = 60.0
"""For what a cluster of this size does in ten seconds on a machine with nothing else to do."""


class Cluster:
    """Runs while it is entered."""

    def __init__(self, folder: Path) -> None:
        routes = [free_port() for _ in range(SIZE)]
        every = ", ".join(f'"nats://{LOOPBACK}:{port}"' for port in routes)
        self.servers: Final = [
            NatsServer(
                folder / f"nats-{number}",
                extra=f'cluster {{ name: "test", listen: "{LOOPBACK}:{port}", routes: [{every}] }}',
            )
            for number, port in enumerate(routes)
        ]
        self.url: Final = ",".join(server.url for server in self.servers)

    def __enter__(self) -> Self:
        for server in self.servers:
            server.start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers:
            server.kill()

    async def leader(self, stream: str = subjects.EVENTS_STREAM) -> NatsServer:
        """The server that leads a stream at this moment, once there is one."""
        async with within(f"{stream} has a leader"), connected(self.url) as js:
            while True:
                with contextlib.suppress(*TRANSIENT):
                    cluster = (await js.stream_info(stream)).cluster
                    for server in self.servers:
                        if cluster and cluster.leader == server.name:
                            return server
                await asyncio.sleep(0.05)

    async def whole(self) -> None:
        """Waits until every server has all of every stream, and of every consumer.

        Both elect leaders of their own: one that dies while another server's copy still catches up is a second fault, not one.
        """
        for config in stream_configs():
            async with within(f"every server has all of {config.name}"), connected(self.url) as js:
                while not await _is_whole(js, str(config.name)):
                    await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[JetStreamContext]:
    """A connection to any of the servers."""
    client = await connect(url, name="test", on_event=lambda text: None)
    try:
        yield client.jetstream(timeout=2)
    finally:
        await client.close()


@contextlib.asynccontextmanager
async def within(what: str, limit_s: float = WAIT_S) -> AsyncIterator[None]:
    """Bounds a wait; an AssertionError that says `what` did not happen when it takes longer."""
    try:
        async with asyncio.timeout(limit_s):
            yield
    except TimeoutError as error:
        raise AssertionError(f"after {limit_s:g} s still not true: {what}") from error


async def _is_whole(js: JetStreamContext, stream: str) -> bool:
    with contextlib.suppress(*TRANSIENT):
        info = await js.stream_info(stream)
        consumers = await js.consumers_info(stream)  # without those that have no leader
        clusters = [info.cluster, *(consumer.cluster for consumer in consumers)]
        return len(consumers) == info.state.consumer_count and all(map(_has_all, clusters))
    return False


def _has_all(cluster: ClusterInfo | None) -> bool:
    replicas = (cluster.replicas or []) if cluster and cluster.leader else []
    return len(replicas) == SIZE - 1 and all(peer.current and not peer.offline for peer in replicas)
