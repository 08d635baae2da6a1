"""Signs of life, as the agent gives them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from nats.aio.msg import Msg

from headrace.service.broker import connect
from headrace.service.nats_server import NatsServer
from headrace_agent import signs
from headrace_proto import messages, subjects
from headrace_proto.events import Outcome
from headrace_proto.home import Home
from headrace_proto.messages import EXPERIMENTS_A_SIGN, MESSAGE_BYTES_MAX, Sign
from tests.agent.conftest import Serve, log_points, new_writer
from tests.agent.writers import OTHER_HOST, Write
from tests.waiting import until


class Ear:
    """Hears the signs of all sites."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Sign]] = []

    async def on_sign(self, message: Msg) -> None:
        sign = messages.decode(Sign, message.data)
        assert sign is not None
        self.heard.append((message.subject, sign))

    def named_all(self, count: int) -> Callable[[], bool]:
        """Whether so many experiments were named, once or more often."""
        return lambda: sum(len(sign.experiments) // 16 for _, sign in self.heard) >= count

    def latest(self) -> set[str]:
        """The experiments of the last sign."""
        raw = self.heard[-1][1].experiments if self.heard else b""
        return {raw[first : first + 16].hex() for first in range(0, len(raw), 16)}


async def test_the_agent_names_the_experiments_that_have_writers(
    nats_server: NatsServer, serve: Serve, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Soon after they begin, again and again, until they end; not those of another machine, whose journals are only shipped."""
    monkeypatch.setattr(signs, "BEAT_S", 0.2)
    monkeypatch.setattr(signs, "LOOK_S", 0.1)
    client, ear = await connect(nats_server.url, name="ear", on_event=lambda _: None), Ear()
    await client.subscribe(subjects.sign("*"), cb=ear.on_sign)
    try:
        async with serve() as agent:
            await until(lambda: len(ear.heard) > 2, "signs without experiments: the agent is there")
            first, carried = write(), write(before=OTHER_HOST)
            await until(lambda: ear.latest() == {first.experiment}, "the experiment is named")
            second = write()
            await until(lambda: ear.latest() == {first.experiment, second.experiment}, "both are named")
            assert carried.source in agent.tail.lanes
            first.process.kill()
            await until(lambda: ear.latest() == {second.experiment}, "the one that died is not named any more")
        await until(lambda: ear.latest() == {second.experiment}, "the last word of an agent that stops")
        assert {(subject, sign.node, sign.host) for subject, sign in ear.heard} == {
            (subjects.sign("local"), ear.heard[0][1].node, ear.heard[0][1].host)
        }
    finally:
        await client.close()


async def test_many_experiments_are_named_in_several_signs(
    nats_server: NatsServer, serve: Serve, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each fits a message; all of them together name all."""
    count = EXPERIMENTS_A_SIGN + 50
    writers = [new_writer(home) for _ in range(count)]
    for writer in writers:
        log_points(writer, 1)
    client, ear = await connect(nats_server.url, name="ear", on_event=lambda _: None), Ear()
    await client.subscribe(subjects.sign("*"), cb=ear.on_sign)
    try:
        async with serve():
            await until(ear.named_all(count), "all are named", 60)
        assert all(len(messages.encode(sign)) <= MESSAGE_BYTES_MAX for _, sign in ear.heard)
        assert any(len(sign.experiments) == 16 * EXPERIMENTS_A_SIGN for _, sign in ear.heard)
    finally:
        await client.close()
        for writer in writers:
            writer.close(Outcome.SUCCEEDED)
