"""What the agent survives: links, brokers, streams and agents that go away in the middle."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from headrace.service import broker
from headrace.service.broker import ensure_streams
from headrace.service.nats_server import NatsServer
from headrace_agent.agent import Agent
from headrace_agent.nats_uplink import NatsUplink
from headrace_agent.settings import AgentSettings
from headrace_agent.uplink import NoStream, Receipt, Unknown
from headrace_proto import subjects
from headrace_proto.events import ChannelType, Kind, Outcome
from headrace_proto.home import Home
from tests.agent.conftest import Serve, log_points, new_writer, points_of, streamed
from tests.agent.far_end import FarEnd
from tests.agent.process import AgentProcess
from tests.faults.proxy import Proxy
from tests.waiting import until

MANY = 60_000


def count(agent: Agent, metric: str, **labels: str) -> float:
    return agent.metrics.registry.get_sample_value(f"headrace_agent_{metric}_total", labels) or 0.0


def retries(agent: Agent) -> float:
    return sum(
        sample.value
        for family in agent.metrics.registry.collect()
        for sample in family.samples
        if sample.name == "headrace_agent_retries_total"
    )


# -- Fault 13: the collector drops what lies below the watermark -----------------------------------------------------


async def test_eaten_acknowledgements_are_made_up_for(home: Home, nats_server: NatsServer, serve: Serve) -> None:
    """Batches that landed unheard are sent again; the far end sees every byte once."""
    async with FarEnd(nats_server.url) as far, Proxy(nats_server.url) as proxy:
        async with serve(uplink=NatsUplink(proxy.url, name="agent", answer_s_max=0.5)) as agent:
            writer = new_writer(home)
            log_points(writer, 10)
            await far.has_all(writer, "the link works")
            proxy.deaf = True
            log_points(writer, MANY, 10)
            await until(lambda: retries(agent) > 0, "an acknowledgement is missed")
            proxy.deaf = False
            proxy.cut()
            await far.has_all(writer)
            assert points_of(far.bytes[writer.source]) == list(range(MANY + 10))
        writer.close(Outcome.SUCCEEDED)


async def test_a_link_that_breaks_again_and_again_loses_nothing(
    home: Home, nats_server: NatsServer, serve: Serve
) -> None:
    """Each break leaves an unknown number of batches landed."""
    async with FarEnd(nats_server.url) as far, Proxy(nats_server.url) as proxy:
        async with serve(uplink=NatsUplink(proxy.url, name="agent")):
            writer = new_writer(home)
            for nth in range(5):
                log_points(writer, MANY // 2, nth * MANY // 2)
                await until(partial(_sent, proxy, proxy.bytes_up + 100_000), "something is on its way")
                proxy.cut()
            await far.has_all(writer)
            assert points_of(far.bytes[writer.source]) == list(range(5 * MANY // 2))
        writer.close(Outcome.SUCCEEDED)


# -- Fault 24: given up within 10 s; what landed after all is stored once --------------------------------------------


async def test_a_half_open_link_is_given_up(
    home: Home, nats_server: NatsServer, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that swallows nothing and answers nothing, its buffers full of our bytes, is replaced by a new one."""
    monkeypatch.setattr(broker, "PING_INTERVAL_S", 0.3)
    monkeypatch.setattr(broker, "UNTAKEN_S_MAX", 0.5)
    async with FarEnd(nats_server.url) as far, Proxy(nats_server.url) as proxy:
        async with serve(uplink=NatsUplink(proxy.url, name="agent")):
            writers = [new_writer(home) for _ in range(4)]
            for writer in writers:
                log_points(writer, 10)
            await far.has_all_of(writers, "the link works")
            proxy.freeze()
            for writer in writers:
                for _ in range(60):  # nothing that could be compressed
                    writer.channel_event(Kind.TEXT, "noise", ChannelType.TEXT, None, 0, os.urandom(60_000))
            await until(lambda: proxy.connections >= 2, "a new connection is made")
            await far.has_all_of(writers)
        for writer in writers:
            writer.close(Outcome.SUCCEEDED)


async def test_what_a_stopped_broker_took_after_all_is_stored_once(
    home: Home, nats_server: NatsServer, serve: Serve
) -> None:
    """SIGSTOP: publishing times out, and lands when the broker goes on. It was sent again by then, and counts once."""
    async with FarEnd(nats_server.url) as far:
        async with serve(uplink=NatsUplink(nats_server.url, name="agent", answer_s_max=0.3)) as agent:
            writer = new_writer(home)
            log_points(writer, 10)
            await far.has_all(writer, "the link works")
            assert nats_server.pid is not None
            os.kill(nats_server.pid, signal.SIGSTOP)
            try:
                log_points(writer, MANY, 10)
                await until(lambda: count(agent, "retries", reason="Unknown") >= 2, "answers are missed")
            finally:
                os.kill(nats_server.pid, signal.SIGCONT)
            await far.has_all(writer)
            assert points_of(far.bytes[writer.source]) == list(range(MANY + 10))
        writer.close(Outcome.SUCCEEDED)


# -- Fault 2: it goes on from the store's watermark; what was sent twice is stored once ------------------------------


async def test_an_agent_killed_in_the_middle_goes_on_where_the_store_is(
    home: Home, nats_server: NatsServer, tmp_path: Path
) -> None:
    """SIGKILL, three times, while data flows: all bytes arrive, contiguous."""
    async with FarEnd(nats_server.url) as far:
        writer = new_writer(home)
        agent = AgentProcess(home, nats_server.url, tmp_path / "agent.log")
        for nth in range(3):
            log_points(writer, MANY, nth * MANY)
            before = far.watermark(writer.source)
            agent.start()
            await until(partial(_beyond, far, writer.source, before), "it ships")
            agent.kill()
        with agent:
            log_points(writer, MANY, 3 * MANY)
            writer.close(Outcome.SUCCEEDED)
            await until(lambda: not os.path.exists(home.journal(writer.source)), "the journal is stored and deleted")
        assert points_of(far.bytes[writer.source]) == list(range(4 * MANY))


def _sent(proxy: Proxy, enough: int) -> bool:
    return proxy.bytes_up > enough


def _beyond(far: FarEnd, source: str, position: int) -> bool:
    return far.watermark(source) > position


# -- What the broker and its streams may do --------------------------------------------------------------------------


async def test_a_broker_killed_and_started_again_loses_nothing(
    home: Home, nats_server: NatsServer, serve: Serve
) -> None:
    """Logging goes on while it is away; what is logged arrives when it is back."""
    async with FarEnd(nats_server.url) as far, serve() as agent:
        writer = new_writer(home)
        log_points(writer, MANY)
        await until(lambda: far.watermark(writer.source) > 0, "it ships")
        nats_server.kill()
        log_points(writer, MANY, MANY)
        await until(lambda: not agent.check().ok, "the agent says that the broker is away")
        nats_server.start()
        await far.has_all(writer)
        assert points_of(far.bytes[writer.source]) == list(range(2 * MANY))
        assert agent.check().ok
        writer.close(Outcome.SUCCEEDED)


async def test_a_stream_that_was_made_again_is_filled_again(home: Home, nats_server: NatsServer, serve: Serve) -> None:
    """Acknowledged batches are gone with the old stream; the new one's low numbers say so, and all is sent again."""
    async with FarEnd(nats_server.url) as far, serve() as agent:
        far.consuming = False
        writer = new_writer(home)
        log_points(writer, MANY)
        await streamed(agent, writer)
        js = far.client.jetstream()
        await js.delete_stream(subjects.EVENTS_STREAM)
        await ensure_streams(js)
        log_points(writer, 10, MANY)
        await until(lambda: count(agent, "rewinds", reason="stream went back") >= 1, "the agent notices")
        far.consuming = True
        await far.has_all(writer)
        assert points_of(far.bytes[writer.source]) == list(range(MANY + 10))
        writer.close(Outcome.SUCCEEDED)


async def test_a_full_stream_pushes_back_into_the_journal(home: Home, nats_server: NatsServer, serve: Serve) -> None:
    """It is waited for, and is no error: when there is room again all arrives."""
    async with FarEnd(nats_server.url) as far:
        far.consuming = False
        js = far.client.jetstream()
        await js.delete_stream(subjects.EVENTS_STREAM)
        await ensure_streams(js, events_bytes=300_000)
        async with serve() as agent:
            writer = new_writer(home)
            log_points(writer, MANY)
            await until(lambda: agent.events.full, "the stream pushes back")
            assert "a stream is full" in agent.check().facts["reasons"][0]
            far.consuming = True
            await far.has_all(writer)
            assert points_of(far.bytes[writer.source]) == list(range(MANY))
            writer.close(Outcome.SUCCEEDED)


async def test_streams_may_be_made_after_the_agent_is_up(home: Home, nats_server: NatsServer, serve: Serve) -> None:
    """An agent that was started first waits for them."""
    async with serve() as agent:
        writer = new_writer(home)
        log_points(writer, 100)
        await until(lambda: count(agent, "retries", reason="NoStream") > 0, "nobody takes it")
        async with FarEnd(nats_server.url) as far:
            await far.has_all(writer)
            writer.close(Outcome.SUCCEEDED)


async def test_a_broker_with_a_small_max_payload_gets_small_batches(
    home: Home, start_nats: Callable[..., NatsServer], settings: AgentSettings, serve: Serve
) -> None:
    """The batch size follows what the broker takes."""
    server = start_nats("small", extra="max_payload: 200000")
    async with FarEnd(server.url) as far, serve(nats=server.url):
        writer = new_writer(home)
        log_points(writer, MANY)
        await far.has_all(writer)
        assert max(frame.end - frame.first for frame in far.frames) <= 200_000
        writer.close(Outcome.SUCCEEDED)


# -- Questions, and what silence is answered with --------------------------------------------------------------------


async def test_a_collector_may_ask_for_a_source_again(home: Home, nats_server: NatsServer, serve: Serve) -> None:
    """It lost what it had not committed: it gets all of it again, under new identities."""
    async with FarEnd(nats_server.url, answering=False) as far, serve() as agent:
        writer = new_writer(home)
        log_points(writer, MANY)
        await far.has_all(writer)
        whole = bytes(far.bytes.pop(writer.source))
        await far.rewind(writer.source, 0)
        await far.has_all(writer, "all bytes arrived again")
        assert bytes(far.bytes[writer.source]) == whole
        assert count(agent, "rewinds", reason="asked") == 1
        await far.rewind(writer.source, 1 << 50)  # nonsense, and hostile bytes, change nothing
        await far.client.publish(subjects.rewind("local", writer.source), b"\xff\xff")
        await far.client.flush()
        log_points(writer, 1, MANY)
        await far.has_all(writer, "the rest arrived")
        assert count(agent, "rewinds", reason="asked") == 1
        writer.close(Outcome.SUCCEEDED)


async def test_a_mark_said_while_the_link_was_down_is_recalled_from_the_stream(nats_server: NatsServer) -> None:
    """Whoever was away asks the broker for the newest message of one subject, and its listener hears it."""
    subject, other = subjects.mark("local", "a" * 32), subjects.mark("local", "b" * 32)
    async with FarEnd(nats_server.url) as far:
        for data in (b"older", b"newest"):
            await far.client.jetstream().publish(subject, data)
    heard: list[tuple[str, bytes]] = []
    uplink = NatsUplink(nats_server.url, name="late")
    uplink.listen(subjects.marks_of_site("local"), lambda *message: heard.append(message))
    await uplink.recall(subject)  # without a link: nothing follows
    running = asyncio.create_task(uplink.run())
    await uplink.wait_connected()
    await uplink.recall(other)  # never said: nothing follows
    await uplink.recall(subject)
    await until(lambda: heard, "the mark is heard")
    assert heard == [(subject, b"newest")]
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def _outcome(answer: asyncio.Future[Receipt]) -> BaseException | None:
    """What became of a message within a moment."""
    await asyncio.wait([answer], timeout=0.2)
    return answer.exception() if answer.done() else None


async def test_what_a_dead_leader_took_is_not_waited_for(nats_server: NatsServer) -> None:
    """Once nobody takes messages of a stream, what was sent to it and has no answer fails at once; another stream's waits on."""
    subject, file = (subject_of("local", "e" * 32, "a" * 32) for subject_of in (subjects.events, subjects.files))
    uplink = NatsUplink(nats_server.url, name="agent", answer_s_max=3600)
    running = asyncio.create_task(uplink.run())
    await uplink.wait_connected()
    leader = await broker.connect(nats_server.url, name="leader", on_event=lambda text: None)
    try:
        taken: set[str] = set()

        async def take(message: Msg) -> None:
            taken.add(message.subject)

        events = await leader.subscribe(f"{subjects.EVENTS_PREFIX}.>", cb=take)
        await leader.subscribe(f"{subjects.FILES_PREFIX}.>", cb=take)
        while taken != {subject, file}:  # both leaders are there
            await asyncio.gather(*[_outcome(await uplink.publish(each, b"", "1")) for each in (subject, file)])
        taken.clear()
        held, other = await uplink.publish(subject, b"", "2"), await uplink.publish(file, b"", "2")
        await until(lambda: taken == {subject, file}, "the leaders have them")
        await events.unsubscribe()
        while not isinstance(await _outcome(await uplink.publish(subject, b"", "3")), NoStream):
            pass  # the leader is still leaving
        assert held.done()
        assert isinstance(held.exception(), Unknown)
        assert not other.done()
        other.cancel()
    finally:
        await leader.close()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def test_a_silent_store_is_asked_for_its_word_before_anything_is_sent_again(
    home: Home, nats_server: NatsServer, serve: Serve
) -> None:
    """Seconds after the stream has everything and no mark came, its subject is among those to recall."""
    async with FarEnd(nats_server.url, answering=False), serve() as agent:
        writer = new_writer(home)
        log_points(writer, 100)
        await streamed(agent, writer)
        loop_s = asyncio.get_running_loop().time()
        agent.feedback.unheard(loop_s)
        assert agent.feedback.unheard(loop_s + 30) == [subjects.mark("local", writer.source)]
        assert agent.feedback.unheard(loop_s + 31) == []
        assert count(agent, "questions", reason="silence") == 0
        writer.close(Outcome.SUCCEEDED)


async def test_silence_is_ended_by_a_question(home: Home, nats_server: NatsServer, serve: Serve) -> None:
    """A mark that was lost is said again, because a frame without bytes asks for it."""
    async with FarEnd(nats_server.url, answering=False) as far, serve() as agent:
        writer = new_writer(home)
        log_points(writer, 100)
        lane = await streamed(agent, writer)
        far.answering = True
        loop_s = asyncio.get_running_loop().time()
        agent.feedback.look_for_silence(loop_s)
        agent.feedback.look_for_silence(loop_s + 3600)
        await until(lambda: lane.source.stored == writer.position, "the mark is heard")
        assert count(agent, "questions", reason="silence") == 1
        assert sum(frame.end - frame.first for frame in far.frames) == writer.position
        writer.close(Outcome.SUCCEEDED)


async def test_silence_over_something_that_is_missing_has_it_sent_again(
    home: Home, nats_server: NatsServer, serve: Serve
) -> None:
    """Batches that vanished behind their acknowledgement are missed by whoever gets the question, and asked for."""
    async with FarEnd(nats_server.url, answering=False) as far, serve() as agent:
        far.consuming = False
        writer = new_writer(home)
        log_points(writer, MANY)
        await streamed(agent, writer)
        await far.client.jetstream().purge_stream(subjects.EVENTS_STREAM)
        far.consuming = far.answering = True
        loop_s = asyncio.get_running_loop().time()
        agent.feedback.look_for_silence(loop_s)
        agent.feedback.look_for_silence(loop_s + 3600)
        await far.has_all(writer)
        assert points_of(far.bytes[writer.source]) == list(range(MANY))
        writer.close(Outcome.SUCCEEDED)


async def test_a_store_that_is_down_for_hours_is_no_reason_to_send_again(
    home: Home, nats_server: NatsServer, serve: Serve
) -> None:
    """Four hours of silence cost each source a handful of frames without bytes; every byte goes out once."""
    async with FarEnd(nats_server.url, answering=False) as far, serve() as agent:
        writers = [new_writer(home) for _ in range(5)]
        for writer in writers:
            log_points(writer, MANY // 5)
        await until(lambda: len(agent.tail.lanes) == 5, "they are found")
        lanes = [agent.tail.lanes[writer.source] for writer in writers]
        await until(lambda: all(at.window.acked == w.position for at, w in zip(lanes, writers, strict=True)), "sent")
        sent = count(agent, "raw_bytes", stream=subjects.EVENTS_STREAM)
        frames = count(agent, "frames", stream=subjects.EVENTS_STREAM)
        loop_s = asyncio.get_running_loop().time()
        for minutes in range(4 * 60):
            agent.feedback.look_for_silence(loop_s + minutes * 60)
            await until(
                lambda: not any(at.source.owes_flush or len(at.window) for at in lanes), "the questions are out"
            )
        assert 0 < count(agent, "frames", stream=subjects.EVENTS_STREAM) - frames <= 5 * 15
        assert count(agent, "raw_bytes", stream=subjects.EVENTS_STREAM) == sent
        assert sum(frame.end - frame.first for frame in far.frames) == sum(writer.position for writer in writers)
        for writer in writers:
            writer.close(Outcome.SUCCEEDED)
