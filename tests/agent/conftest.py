"""What the agent's tests share."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest

from headrace.service.nats_server import NatsServer
from headrace_agent.agent import Agent
from headrace_agent.gpus import NoGpus
from headrace_agent.lane import SourceLane
from headrace_agent.settings import AgentSettings
from headrace_proto.events import Kind
from headrace_proto.home import FOLDER_MODE, Home
from headrace_proto.ids import random_id
from headrace_proto.journal import JournalWriter, SourceFacts
from headrace_proto.spool import SpoolFacts, write_facts
from tests.agent.writers import Write, Writer
from tests.waiting import until

PROJECT = "tests/agent"
Serve = Callable[..., AbstractAsyncContextManager[Agent]]


def new_writer(home: Home, experiment: str | None = None, **facts: Any) -> JournalWriter:
    """A source of a new experiment."""
    return JournalWriter(home, PROJECT, experiment or random_id(), SourceFacts(**facts))


def log_points(writer: JournalWriter, count: int, first: int = 0) -> None:
    """Points whose values say which they are."""
    for i in range(first, first + count):
        writer.point("loss", float(i), i * 0.5, 1_700_000_000_000_000_000 + i)


async def lane_of(agent: Agent, writer: JournalWriter) -> SourceLane:
    """The lane of a writer's source, once the agent has found it."""
    return await until(lambda: agent.tail.lanes.get(writer.source), "the source is found")


async def streamed(agent: Agent, writer: JournalWriter) -> SourceLane:
    """The same, once the stream has acknowledged all that the writer has logged."""
    lane = await lane_of(agent, writer)
    await until(lambda: lane.source.window.acked == writer.position, "the stream has it all")
    return lane


def points_of(raw: bytes | bytearray) -> list[float]:
    """The steps of all points in the bytes of a journal, in order; an AssertionError if a byte does not belong to an event."""
    unpacker = msgpack.Unpacker(max_buffer_size=len(raw) + 1)
    unpacker.feed(raw)
    steps = []
    for event in unpacker:
        if event[0] == Kind.POINT:
            assert event[4] == event[2] * 0.5
            steps.append(event[2])
    assert unpacker.tell() == len(raw)
    return steps


def journal_bytes(home: Home, source: str) -> bytes:
    """All that a journal holds, read past the reader's caution."""
    from headrace_proto.journal import JournalReader

    reader = JournalReader(home.journal(source))
    try:
        return reader.raw(reader.oldest, reader.end)
    finally:
        reader.close()


def spool(home: Home, source: str, number: int, data: bytes, *, sha256: str | None = None) -> str:
    """Put a file into a spool as a trainer does; its name."""
    name = f"{number:06d}-{os.urandom(4).hex()}"
    folder = Path(home.spool(source))
    folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
    write_facts(str(folder / name), SpoolFacts(len(data), sha256 or hashlib.sha256(data).hexdigest()))
    (folder / f".{name}").write_bytes(data)
    (folder / f".{name}").rename(folder / name)
    return name


@pytest.fixture
def write(home: Home) -> Iterator[Write]:
    """Starts processes that have a journal; all are killed at the end."""
    started: list[Writer] = []

    def start(**given: Any) -> Writer:
        started.append(Writer(home, **given))
        return started[-1]

    yield start
    for writer in started:
        writer.process.kill()
        writer.process.communicate()


@pytest.fixture
def settings(home: Home, nats_server: NatsServer) -> AgentSettings:
    """An agent's settings for the home and the broker of the test; no hardware unless asked for."""
    return AgentSettings(home=Path(home.root), nats=nats_server.url, hardware_s=0, grace_s=5)


@pytest.fixture
def serve(settings: AgentSettings) -> Serve:
    """`async with serve() as agent`: an agent in this very loop, drained at the end."""

    @asynccontextmanager
    async def served(**changes: Any) -> AsyncIterator[Agent]:
        parts = {name: changes.pop(name) for name in ("uplink", "gpus") if name in changes}
        agent = Agent(settings.model_copy(update=changes), **{"gpus": NoGpus(), **parts})
        stop = asyncio.Event()
        running = asyncio.create_task(agent.run(stop))
        try:
            yield agent
        finally:
            stop.set()
            await running

    return served
