"""How soon collectors share, and how soon one's death is made up for: real processes, real kills, data flowing all the time."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

from headrace.service.cancelling import stay_cancelled
from headrace.service.nats_server import NatsServer
from headrace_agent.rest import LONG_NS
from headrace_collector.leases import Owner
from headrace_proto import messages, subjects
from headrace_proto.messages import Mark
from tests.benchmarks.rows import Row
from tests.collector.frames import PROJECT, SITE, Source
from tests.collector.harness import Broker
from tests.faults.cluster import WAIT_S, Cluster, within
from tests.path.stack import Stack, Trainer, document, experiments

EXPERIMENTS: Final = 1_000
FRAMES_PER_S: Final = 100
"""All experiments together: each logs every ten seconds."""
KILLS: Final = 3
PARTITIONS: Final = 16


def run() -> list[Row]:
    """Seconds, each the worst of several turns."""
    return asyncio.run(_run())


async def _run() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder, NatsServer(Path(folder) / "nats") as server:
        async with Broker.connected(server.url) as broker:
            rows = [*await _recovery(broker, server.url, folder), *await _sharing(broker, server.url, folder)]
    return [*rows, *await asyncio.to_thread(_elections), *await asyncio.to_thread(_deaths)]


# -- One collector, many experiments -----------------------------------------------------------------------------------


async def _recovery(broker: Broker, url: str, folder: str) -> list[Row]:
    fleet = Fleet(broker, EXPERIMENTS)
    child = start(url, folder)
    committed, stored = [], []
    try:
        async with fleet.logging():
            async with within(f"all of {EXPERIMENTS:,} experiments are stored", 2 * WAIT_S):
                while len(fleet.stored) < EXPERIMENTS:
                    await asyncio.sleep(0.02)
            for _ in range(KILLS):
                child.kill()
                child.wait()
                killed_s, sent = time.time(), dict(fleet.sent)
                child = start(url, folder)
                async with within("a frame that was sent after the kill is stored"):
                    while not any(fleet.stored[name] > end for name, end in sent.items()):
                        await asyncio.sleep(0.005)
                stored.append(time.time() - killed_s)
                committed.append(_first_commit(folder, killed_s) - killed_s)
                await asyncio.sleep(5.0)
    finally:
        child.terminate()
        child.wait()
    what = f"collector killed with {EXPERIMENTS:,} live experiments and started again: first new commit"
    return [
        Row(what, max(committed), "s", at_most=3),
        Row("  a frame that was sent after the kill is stored", max(stored), "s"),
    ]


def _first_commit(folder: str, after_s: float) -> float:
    """When the first commit was made that is younger than that: nobody else writes to the store."""
    commits = Path(folder, "store", PROJECT, "experiments").glob("*/commits/*.json")
    return min(made for path in commits if (made := path.stat().st_mtime) > after_s)


class Fleet:
    """Many sources that log a little each, in turn."""

    def __init__(self, broker: Broker, count: int) -> None:
        self.sent: dict[str, int] = {}
        self.stored: dict[str, int] = {}
        self._broker = broker
        self._sources = [Source() for _ in range(count)]

    @contextlib.asynccontextmanager
    async def logging(self) -> AsyncIterator[None]:
        """Log all the time."""
        subscription = await self._broker.client.subscribe(subjects.marks_of_site(SITE), cb=self._on_mark)
        task = asyncio.create_task(self._log())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await subscription.unsubscribe()

    async def _on_mark(self, message: Any) -> None:
        mark = messages.decode(Mark, message.data)
        if mark:
            self.stored[mark.source] = max(mark.position, self.stored.get(mark.source, 0))

    async def _log(self) -> None:
        for source in self._sources:
            await self._send(source)
        began_s, number = time.perf_counter(), 0
        while True:
            await self._send(self._sources[number % len(self._sources)])
            number += 1
            await asyncio.sleep(max(0.0, number / FRAMES_PER_S - (time.perf_counter() - began_s)))

    async def _send(self, source: Source) -> None:
        first = self.sent.get(source.id, 0)
        source.log("loss", 10)
        await self._broker.send([source.frame(first, source.end)])
        stay_cancelled()  # else `logging` would wait for ever for a task that goes on
        self.sent[source.id] = source.end


# -- Several collectors ------------------------------------------------------------------------------------------------


async def _sharing(broker: Broker, url: str, folder: str) -> list[Row]:
    fleet = Fleet(broker, 50)
    joined, killed, stopped, returned = [], [], [], []
    with contextlib.ExitStack() as stack:
        stack.enter_context(running(url, folder))
        async with fleet.logging():
            await _shares(broker, [PARTITIONS])
            for _ in range(KILLS):
                two = stack.enter_context(running(url, folder))
                joined.append(await _shares(broker, [PARTITIONS // 2] * 2))
                two.kill()
                killed.append(await _shares(broker, [PARTITIONS]))
                two.wait()
                three = stack.enter_context(running(url, folder))
                await _shares(broker, [PARTITIONS // 2] * 2)
                three.send_signal(signal.SIGSTOP)
                stopped.append(await _shares(broker, [PARTITIONS]))
                three.send_signal(signal.SIGCONT)
                returned.append(await _shares(broker, [PARTITIONS // 2] * 2))
                three.kill()
                three.wait()
                await _shares(broker, [PARTITIONS])
    return [
        Row("a new collector has its share of 16 partitions, its start included", max(joined), "s", at_most=5),
        Row("the share of a killed collector is taken, on its machine", max(killed), "s", at_most=5),
        Row("the share of a stopped one is taken, as of one on another machine", max(stopped), "s", at_most=5),
        Row("the stopped one goes on and has its share again", max(returned), "s", at_most=5),
    ]


async def _shares(broker: Broker, wanted: list[int]) -> float:
    """Waits until living leases are divided so; how long that took."""
    began_s = time.perf_counter()
    async with within(f"the partitions are divided as {wanted}"):
        while sorted(await _held(broker)) != wanted:
            await asyncio.sleep(0.02)
    return time.perf_counter() - began_s


async def _held(broker: Broker) -> list[int]:
    counts: dict[str, int] = {}
    for partition in range(PARTITIONS):
        owner = Owner.decode(await broker.last(subjects.LEASES_STREAM, subjects.lease(partition)))
        if owner:
            counts[owner.collector] = counts.get(owner.collector, 0) + 1
    return list(counts.values())


# -- Three nats-servers ------------------------------------------------------------------------------------------------


def _elections() -> list[Row]:
    """The longest time in which nothing that a program logged reached the store, while leaders were killed."""
    with (
        tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder,
        Cluster(Path(folder)) as cluster,
        Stack(Path(folder), cluster.url) as stack,
    ):
        stack.start_agent()
        stack.start_collector("collector", "--replicas", "3")
        asyncio.run(cluster.whole())
        trainer = stack.start_trainer(seed=0, pace_s=1e-3)
        stack.wait_stored(trainer, 100)
        stalls = [_stall(stack, cluster, trainer) for _ in range(KILLS)]
    return [
        Row(
            "three nats-servers, the leader killed: the longest time without a new commit", max(stalls), "s", at_most=10
        )
    ]


def _stall(stack: Stack, cluster: Cluster, trainer: Trainer) -> float:
    victim = asyncio.run(cluster.leader())
    victim.kill()
    began_s, longest_s, seen = time.perf_counter(), 0.0, stack.stored(trainer)
    changed_s, killed = began_s, trainer.returned
    while seen < killed + 5_000:  # whatever the kill held up is through, and what came later flows again
        now_s, count = time.perf_counter(), stack.stored(trainer)
        if count > seen:
            longest_s, changed_s, seen = max(longest_s, now_s - changed_s), now_s, count
        if now_s - changed_s > WAIT_S:
            raise AssertionError(
                f"after {WAIT_S:g} s still nothing new is stored: {count} calls, of {trainer.returned}"
            )
        time.sleep(0.01)
    victim.start()
    asyncio.run(cluster.whole())
    return longest_s


# -- Processes ---------------------------------------------------------------------------------------------------------


def start(url: str, folder: str) -> subprocess.Popen[bytes]:
    """A collector in a process of its own."""
    command = [sys.executable, "-m", "headrace_collector", "--nats", url, "--store", f"{folder}/store"]
    return subprocess.Popen([*command, "--log-level", "error"])


@contextlib.contextmanager
def running(url: str, folder: str) -> Iterator[subprocess.Popen[bytes]]:
    """A collector that ends with this context."""
    child = start(url, folder)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


# -- Trainers that are killed ------------------------------------------------------------------------------------------


def _deaths() -> list[Row]:
    """From SIGKILL to the commit that says *failed*, of trainers that logged all the time and of those that had long rested."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder, Stack(Path(folder)) as stack:
        stack.start()
        busy = [stack.start_trainer(seed, pace_s=0.01) for seed in range(KILLS)]
        resting = [stack.start_trainer(KILLS + seed, pace_s=3600.0) for seed in range(KILLS)]
        for trainer in (*busy, *resting):
            stack.wait_stored(trainer, 1)
        time.sleep(LONG_NS / 1e9 + 2.0)
        failed = [[_failed_after(stack, trainer) for trainer in trainers] for trainers in (busy, resting)]
    return [
        Row("a trainer killed with SIGKILL while it logs is *failed* in the store", max(failed[0]), "s", at_most=5),
        Row("  one that has not logged for long", max(failed[1]), "s", at_most=5),
    ]


def _failed_after(stack: Stack, trainer: Trainer) -> float:
    trainer.kill()
    began_s = time.perf_counter()
    while time.perf_counter() - began_s < WAIT_S:
        for experiment in experiments(stack.store):
            with contextlib.suppress(FileNotFoundError, ValueError):
                facts = document(stack.store, experiment)
                if facts["name"] == str(trainer.seed) and facts["state"] == "failed":
                    return time.perf_counter() - began_s
        time.sleep(0.005)
    raise AssertionError(f"trainer {trainer.seed} was killed, and its experiment is not failed")
