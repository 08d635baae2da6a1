"""The outbox: what is said while something else is being confirmed waits for nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import nats
import pytest
from nats.js import JetStreamContext

from headrace.service.broker import ensure_streams
from headrace.service.nats_server import NatsServer
from headrace_collector import answers as answering
from headrace_collector.answers import Answers
from headrace_proto import subjects
from headrace_proto.messages import Mark
from tests.waiting import until, until_awaited


class _Slow:
    """A JetStream that is slow to confirm the first message."""

    def __init__(self, js: JetStreamContext) -> None:
        self._js = js
        self.asked: list[str] = []
        self.go_on = asyncio.Event()

    async def publish(self, subject: str, payload: bytes, **how: Any) -> Any:
        self.asked.append(subject)
        if len(self.asked) == 1:
            await self.go_on.wait()
        return await self._js.publish(subject, payload, **how)


async def test_a_mark_that_comes_while_another_is_confirmed_goes_out_next(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what the broker did not take has a pause before it."""
    monkeypatch.setattr(answering, "_AGAIN_S", 3600.0)
    client = await nats.connect(nats_server.url)
    js = client.jetstream()
    await ensure_streams(js)
    slow = _Slow(js)
    answers = Answers(client, slow)  # type: ignore[arg-type]
    sending = asyncio.create_task(answers.run())
    try:
        answers.mark("site", Mark("s", "e" * 32, "a" * 32, 1, 1))
        await until(lambda: slow.asked, "the first is on its way")
        answers.mark("site", Mark("s", "e" * 32, "b" * 32, 1, 1))
        slow.go_on.set()
        await until(lambda: slow.asked[1:] == [subjects.mark("site", "b" * 32)], "the second goes out")
    finally:
        sending.cancel()
        await asyncio.wait([sending])
        await client.close()


async def test_what_the_broker_did_not_take_is_said_again(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a pause, and nothing else is needed for it."""
    monkeypatch.setattr(answering, "_AGAIN_S", 0.05)
    monkeypatch.setattr(answering, "_CONFIRM_S", 0.2)
    client = await nats.connect(nats_server.url)
    js = client.jetstream()  # without its streams nobody confirms
    answers = Answers(client, js)
    sending = asyncio.create_task(answers.run())
    try:
        answers.mark("site", Mark("s", "e" * 32, "a" * 32, 1, 1))
        await until(lambda: answers._marks == {} and not answers._waiting.is_set(), "it is being said")
        await ensure_streams(js)

        async def kept() -> bool:
            return (await js.stream_info(subjects.MARKS_STREAM)).state.messages == 1

        await until_awaited(kept, "the mark is kept")
    finally:
        sending.cancel()
        await asyncio.wait([sending])
        await client.close()
