"""Signs of life, as collectors hear them and keep them for readers: in one object, of bounded size."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path

import pytest
from nats.aio.client import Client

from headrace.service.nats_server import NatsServer
from headrace_collector import signs
from headrace_collector.signs import SignsHeard
from headrace_proto import messages, subjects
from headrace_proto.ids import random_id
from headrace_proto.messages import Sign
from headrace_proto.store.backend import open_store
from headrace_proto.store.signs import Signs, read_signs
from tests.collector.harness import Broker, collecting, held
from tests.waiting import until

ONE, TWO, THREE = (random_id() for _ in range(3))


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch, alone: None) -> None:
    """What was heard is written at once, and what is not named any more soon forgotten."""
    monkeypatch.setattr(signs, "LOCAL_WRITE_S", 0.05)
    monkeypatch.setattr(signs, "FORGOTTEN_S", 0.5)


async def say(client: Client, node: str, *experiments: str, site: str = "hall-3") -> None:
    raw = b"".join(bytes.fromhex(experiment) for experiment in experiments)
    await client.publish(subjects.sign(site), messages.encode(Sign(node, f"host of {node}", raw)))


def known(store: str) -> dict[str, datetime]:
    return read_signs(open_store(store, writable=False)).heard_at()


async def saying(client: Client, node: str, *experiments: str) -> None:
    """A node that lives."""
    while True:
        await say(client, node, *experiments)
        await asyncio.sleep(0.05)


async def test_what_agents_say_is_kept_for_readers(nats_server: NatsServer, store: str) -> None:
    """Each node's last word; an experiment that a living node names no more has ended, one of a silent node is remembered."""
    async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store):
        talking = asyncio.create_task(saying(broker.client, "a", ONE, TWO))
        await until(lambda: known(store).keys() == {ONE, TWO}, "both are known")
        first = known(store)
        await until(lambda: known(store)[ONE] > first[ONE], "and heard of again")
        talking.cancel()
        await say(broker.client, "b", THREE)
        talking = asyncio.create_task(saying(broker.client, "a", TWO))
        await until(
            lambda: known(store).keys() == {TWO, THREE}, "the one that ended is forgotten, the silent one is not"
        )
        silent = known(store)[THREE]
        await until(lambda: known(store)[TWO] > silent, "the other goes on")
        assert known(store)[THREE] == silent
        talking.cancel()


async def test_who_takes_over_goes_on_with_what_was_known(nats_server: NatsServer, store: str) -> None:
    """A node that was silent before and after a change of collectors has been silent since it was heard."""
    async with Broker.connected(nats_server.url) as broker:
        async with collecting(nats_server.url, store) as collector:
            await until(lambda: 0 in held(collector), "it has the first partition")
            await until(lambda: ONE in known(store) or say_soon(broker.client), "it is known")
        silent = known(store)[ONE]
        async with collecting(nats_server.url, store) as collector:
            await until(lambda: 0 in held(collector), "the next one has it")
            talking = asyncio.create_task(saying(broker.client, "b", TWO))
            await until(lambda: TWO in known(store), "it writes")
            assert known(store)[ONE] == silent
            talking.cancel()


_tasks: list[asyncio.Task[None]] = []


def say_soon(client: Client) -> bool:
    _tasks.append(asyncio.ensure_future(say(client, "a", ONE)))
    return False


async def test_nothing_is_written_while_nothing_runs(
    nats_server: NatsServer, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes without experiments are no reason to write to a store that costs by the request."""
    async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store) as collector:
        await until(lambda: 0 in held(collector), "it has the first partition")
        talking = asyncio.create_task(saying(broker.client, "a"))
        await say(broker.client, "b", ONE)
        await until(lambda: ONE in known(store), "b's is written")
        path = Path(store, "_headrace", "signs.json")
        written = path.stat().st_mtime_ns
        rounds: list[Signs] = []
        made = SignsHeard.signs

        def counted(self: SignsHeard) -> Signs:
            rounds.append(made(self))
            return rounds[-1]

        monkeypatch.setattr(SignsHeard, "signs", counted)
        await until(lambda: len(rounds) > 5, "five times that it might have been written")
        assert path.stat().st_mtime_ns == written
        talking.cancel()


async def test_signs_that_are_none_are_ignored(nats_server: NatsServer, store: str) -> None:
    """Whatever arrives on the subject, what is right is kept."""
    async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store):
        for data in (
            b"",
            b"\xff" * 50,
            messages.encode(Sign("a", "h", b"x" * 17)),
            messages.encode(Sign("a", "h", b""))[:-2],
        ):
            await broker.client.publish(subjects.sign("hall-3"), data)
        talking = asyncio.create_task(saying(broker.client, "b", ONE))
        await until(lambda: known(store).keys() == {ONE}, "the right one is known")
        talking.cancel()


def test_a_flood_crowds_out_whoever_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory, and the object, are bounded: in nodes and in experiments."""
    monkeypatch.setattr(signs, "NODES_MAX", 5)
    monkeypatch.setattr(signs, "EXPERIMENTS_MAX", 100)
    heard = SignsHeard(None, None, lambda: True)  # type: ignore[arg-type] # nothing of them is asked for here
    for number in range(20):
        heard.hear("site", Sign(f"node-{number}", "h", number.to_bytes(16, "big") * 2), 1000.0 + number)
    assert [node.node for node in heard.signs().nodes] == [f"node-{number}" for number in range(15, 20)]
    many = b"".join(number.to_bytes(16, "big") for number in range(98))
    heard.hear("site", Sign("node-20", "h", many), 1020.0)
    assert sum(len(node.experiments) for node in heard.signs().nodes) <= 100
    assert heard.signs().nodes[-1].node == "node-20"
    heard.hear("site", Sign("node-21", "h", many + b"".join((1000 + n).to_bytes(16, "big") for n in range(98))), 1021.0)
    assert heard.signs().nodes == ()
