"""What `headrace abort` makes of answers: those that come late, not at all, twice, or from somebody who speaks of another one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from headrace.command import abort as command
from headrace.command.abort import _Asking
from headrace.command.asking import NobodyAnswers
from headrace.command.probes import Access
from headrace.service.broker import connect
from headrace.service.nats_server import NatsServer
from headrace_proto import messages, subjects
from headrace_proto.errors import ExperimentNotFound
from headrace_proto.ids import random_id
from headrace_proto.messages import Abort, Find, SourceAnswer, SourceState

MEANT, OTHER = random_id(), random_id()


class Agent:
    """Answers as it is told. Each of `sources` goes through these states: the first to the question, the others to the request."""

    def __init__(self, client: Client, site: str, sources: dict[str, list[str]], experiment: str = MEANT) -> None:
        self.client = client
        self.site = site
        self.sources = sources
        self.experiment = experiment
        self.asked: list[Abort] = []

    async def on_find(self, message: Msg) -> None:
        request = messages.decode(Find, message.data)
        assert request is not None
        for source, states in self.sources.items():
            await self.say(request.request, source, states[0])

    async def on_abort(self, message: Msg) -> None:
        request = messages.decode(Abort, message.data)
        assert request is not None
        self.asked.append(request)
        for source, states in self.sources.items():
            for state in states[1:]:
                await self.say(request.request, source, state)

    async def say(self, request: str, source: str, state: str) -> None:
        answer = SourceAnswer(request, self.experiment, source, state, f"it is {state}", "DIG-7", self.site, 7)
        await self.client.publish(subjects.answer(self.site, request), messages.encode(answer))


@asynccontextmanager
async def agents(url: str, *told: tuple[str, dict[str, list[str]], str]) -> AsyncIterator[list[Agent]]:
    """Agents of these sites, each with these sources of that experiment."""
    client = await connect(url, name="agents", on_event=lambda _: None)
    try:
        there = [Agent(client, *one) for one in told]
        for agent in there:
            await client.subscribe(subjects.FIND, cb=agent.on_find)
            await client.subscribe(subjects.abort(agent.site, "*"), cb=agent.on_abort)
        await client.flush()
        yield there
    finally:
        await client.close()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What people read, in order. Nobody is waited for as long as in earnest."""
    monkeypatch.setattr(command, "FIND_S", 1.0)
    monkeypatch.setattr(command, "MORE_S", 0.3)
    monkeypatch.setattr(command, "ANSWER_S", 0.5)
    return []


async def ask(url: str, wanted: str, told: list[str]) -> dict[tuple[str, str], str]:
    """(site, source) -> the last word."""
    asking = _Asking(Access(url), "diverged", -1.0, lambda heard: told.append(f"{heard.site} {heard.answer.state}"))
    return {(heard.site, heard.answer.source): heard.answer.state for heard in await asking.run(wanted)}


async def test_each_source_of_each_site_has_its_last_word(nats_server: NatsServer, told: list[str]) -> None:
    """What had ended before is told and not waited for; a site is asked once, and only if something lives there."""
    alive, gone = [SourceState.ALIVE, SourceState.ASKED, SourceState.ENDED], [SourceState.GONE]
    sites = (("a", {"1": alive, "2": alive}, MEANT), ("b", {"3": gone}, MEANT), ("c", {"4": alive}, MEANT))
    async with agents(nats_server.url, *sites) as (a, b, c):
        said = await ask(nats_server.url, MEANT, told)
    ended = SourceState.ENDED
    assert said == {("a", "1"): ended, ("a", "2"): ended, ("b", "3"): SourceState.GONE, ("c", "4"): ended}
    assert sorted(told) == sorted(["a asked", "a ended"] * 2 + ["b gone"] + ["c asked", "c ended"])
    assert [len(agent.asked) for agent in (a, b, c)] == [1, 0, 1]
    assert (a.asked[0].experiment, a.asked[0].reason, a.asked[0].grace_s) == (MEANT, "diverged", -1.0)
    assert "@" in a.asked[0].by


async def test_an_agent_that_says_no_more_is_said_to_be_silent(nats_server: NatsServer, told: list[str]) -> None:
    """It was there for the question, and is not for the request: nobody is left to wonder."""
    sources = {"1": [SourceState.ALIVE], "2": [SourceState.ALIVE, SourceState.ASKED]}
    async with agents(nats_server.url, ("a", sources, MEANT)):
        said = await ask(nats_server.url, MEANT, told)
    assert set(said.values()) == {"silent"}
    assert told.count("a silent") == 2


async def test_the_last_word_is_the_first_that_is_one(nats_server: NatsServer, told: list[str]) -> None:
    """Answers that come twice, or in another order, change nothing."""
    states = [SourceState.ALIVE, SourceState.KILLED, SourceState.ASKED, SourceState.ALIVE, SourceState.ENDED]
    async with agents(nats_server.url, ("a", {"1": states}, MEANT)):
        assert await ask(nats_server.url, MEANT, told) == {("a", "1"): SourceState.KILLED}


async def test_who_speaks_of_another_experiment_is_not_listened_to(nats_server: NatsServer, told: list[str]) -> None:
    """A wrong agent neither stands in the way of an internal id nor is it asked to end anything."""
    sites = (
        ("a", {"1": [SourceState.ALIVE, SourceState.ENDED]}, MEANT),
        ("b", {"2": [SourceState.ALIVE, SourceState.ENDED]}, OTHER),
    )
    async with agents(nats_server.url, *sites) as (_, b):
        assert await ask(nats_server.url, MEANT, told) == {("a", "1"): SourceState.ENDED}
    assert not b.asked


async def test_a_short_id_of_two_experiments_ends_neither(nats_server: NatsServer, told: list[str]) -> None:
    """One broker may serve two stores, each with its DIG-7: both internal ids are named."""
    sites = (("a", {"1": [SourceState.ALIVE]}, MEANT), ("b", {"2": [SourceState.ALIVE]}, OTHER))
    async with agents(nats_server.url, *sites) as there:
        with pytest.raises(ExperimentNotFound, match=f"(?s)2 experiments.*({MEANT}|{OTHER}).*({MEANT}|{OTHER})"):
            await ask(nats_server.url, "DIG-7", told)
    assert not any(agent.asked for agent in there)


async def test_nobody_is_there(nats_server: NatsServer, told: list[str]) -> None:
    """After the time in which any agent would have answered."""
    with pytest.raises(NobodyAnswers, match="no agent that"):
        await ask(nats_server.url, MEANT, told)
