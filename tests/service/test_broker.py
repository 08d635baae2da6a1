"""Connecting to the broker, and the streams that agent and collector rely on."""

from __future__ import annotations

import asyncio
import itertools
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import nkeys
import pytest
from nats.js.api import DiscardPolicy, RetentionPolicy
from nats.js.errors import APIError

from headrace.service.broker import connect, ensure_streams
from headrace.service.ports import free_port
from headrace_proto import subjects
from headrace_proto.errors import ConfigError, StreamUnsuitable
from tests.waiting import until, until_awaited

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from headrace.service.nats_server import NatsServer


GIVEN_UP_S = 10.0


def ignored(_: str) -> None:
    """For tests that care about no event."""


async def test_streams_keep_frames_until_acknowledged_and_refuse_when_full(nats_server: NatsServer) -> None:
    """Both queues are work queues that refuse new frames when full; marks and leases remember the newest a subject."""
    client = await connect(nats_server.url, name="test", on_event=ignored)
    js = client.jetstream()
    await ensure_streams(js, events_bytes=1_000_000, files_bytes=2_000_000)
    for name, size in ((subjects.EVENTS_STREAM, 1_000_000), (subjects.FILES_STREAM, 2_000_000)):
        config = (await js.stream_info(name)).config
        assert (config.retention, config.discard) == (RetentionPolicy.WORK_QUEUE, DiscardPolicy.NEW)
        assert (config.max_bytes, config.duplicate_window) == (size, 120)
    for name in (subjects.MARKS_STREAM, subjects.LEASES_STREAM):
        assert (await js.stream_info(name)).config.max_msgs_per_subject == 1
    await client.close()


async def test_full_queue_refuses_at_once(nats_server: NatsServer) -> None:
    """A full queue answers with an error instead of dropping its oldest frame."""
    client = await connect(nats_server.url, name="test", on_event=ignored)
    js = client.jetstream()
    await ensure_streams(js, events_bytes=300_000)
    for _ in range(2):
        await js.publish(f"{subjects.EVENTS_PREFIX}.site.0.a", b"x" * 100_000)
    with pytest.raises(APIError):
        await js.publish(f"{subjects.EVENTS_PREFIX}.site.0.a", b"x" * 100_000)
    assert (await js.stream_info(subjects.EVENTS_STREAM)).state.first_seq == 1
    await client.close()


async def test_ensure_streams_twice_keeps_what_they_hold(nats_server: NatsServer) -> None:
    """Any part may ask for the streams at any time, with other sizes: the first one's stand, and so do their messages."""
    client = await connect(nats_server.url, name="test", on_event=ignored)
    js = client.jetstream()
    await asyncio.gather(*(ensure_streams(js, events_bytes=1_000_000) for _ in range(4)))
    await js.publish(f"{subjects.EVENTS_PREFIX}.site.0.a", b"kept")
    await ensure_streams(js, events_bytes=2_000_000)
    info = await js.stream_info(subjects.EVENTS_STREAM)
    assert (info.state.messages, info.config.max_bytes) == (1, 1_000_000)
    await client.close()


async def test_lease_ends_by_itself(nats_server: NatsServer) -> None:
    """The lease stream takes messages with a time to live."""
    client = await connect(nats_server.url, name="test", on_event=ignored)
    js = client.jetstream()
    await ensure_streams(js)
    assert (await js.stream_info(subjects.LEASES_STREAM)).config.allow_msg_ttl
    await js.publish(subjects.lease(3), b"me", headers={"Nats-TTL": "1s"})

    async def ended() -> bool:
        return not (await js.stream_info(subjects.LEASES_STREAM)).state.messages

    await until_awaited(ended, "the lease is gone")
    await client.close()


async def test_stream_that_could_lose_frames_is_refused(nats_server: NatsServer) -> None:
    """A stream of our name that would drop the oldest frames is refused by name."""
    client = await connect(nats_server.url, name="test", on_event=ignored)
    js = client.jetstream()
    await js.add_stream(name=subjects.EVENTS_STREAM, subjects=[f"{subjects.EVENTS_PREFIX}.>"])
    with pytest.raises(StreamUnsuitable, match=subjects.EVENTS_STREAM):
        await ensure_streams(js)
    await client.close()


async def test_connect_waits_for_a_broker_and_comes_back(start_nats: Callable[..., NatsServer]) -> None:
    """A client waits for a broker that is not there yet, and after a crash of it returns by itself, told once each time."""
    server = start_nats()
    server.kill()
    heard: list[str] = []
    connecting = asyncio.create_task(connect(server.url, name="test", on_event=heard.append))
    await until(lambda: heard, "it says that it waits")
    server.start()
    client = await connecting
    server.kill()
    await until(lambda: any("disconnected" in line for line in heard), "it says that it is cut off")
    server.start()
    await until(lambda: client.is_connected, "it is back")
    assert (await client.jetstream().account_info()).streams == 0
    await client.close()
    assert sum("connected again" in line for line in heard) == 1
    assert all(first != second for first, second in itertools.pairwise(heard))


async def test_a_dead_link_is_given_up_within_ten_seconds(nats_server: NatsServer) -> None:
    """Silence is noticed when one ping more is due than may be unanswered; bytes that nobody takes are timed by the kernel."""
    client = await connect(nats_server.url, name="test", on_event=ignored)
    options = client.options
    assert options["ping_interval"] * (options["max_outstanding_pings"] + 1) < GIVEN_UP_S
    connection = client._transport._io_writer.get_extra_info("socket")  # type: ignore[union-attr]
    untaken_ms = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    assert 0 < untaken_ms < GIVEN_UP_S * 1000
    await client.close()


async def test_waiting_for_a_broker_can_be_given_up(start_nats: Callable[..., NatsServer]) -> None:
    """Cancelling `connect` ends it and leaves nothing behind."""
    server = start_nats()
    server.kill()
    heard: list[str] = []
    connecting = asyncio.create_task(connect(server.url, name="test", on_event=heard.append))
    await until(lambda: heard, "it says that it waits")
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting


@pytest.mark.parametrize("url", ["", "127.0.0.1:4222", "http://127.0.0.1:4222", "nats://", "nats://a:4222,mqtt://b"])
async def test_wrong_url_is_an_error_at_once(url: str) -> None:
    """A broker's URL that cannot be one is refused, not retried."""
    with pytest.raises(ConfigError, match="nats://host:4222"):
        await connect(url, name="test", on_event=ignored)


async def test_credentials_open_a_locked_broker(start_nats: Callable[..., NatsServer], tmp_path: Path) -> None:
    """With an nkey's seed in the credentials file the broker lets us in."""
    pair = nkeys.from_seed(nkeys.encode_seed(b"0123456789abcdef0123456789abcdef", nkeys.PREFIX_BYTE_USER))
    seed = tmp_path / "agent.nk"
    seed.write_bytes(pair.seed)
    lock = f"authorization {{ users = [ {{ nkey: {pair.public_key.decode()} }} ] }}"
    server = start_nats(extra=lock)
    client = await connect(server.url, name="test", credentials=str(seed), on_event=ignored)
    await ensure_streams(client.jetstream())
    await client.close()


async def test_unreadable_credentials_are_named(tmp_path: Path) -> None:
    """A credentials file that does not exist is an error that names it."""
    with pytest.raises(ConfigError, match=r"absent\.creds"):
        await connect("nats://127.0.0.1:4222", name="t", credentials=str(tmp_path / "absent.creds"), on_event=ignored)


async def test_waiting_for_a_silent_broker_can_be_given_up() -> None:
    """A port that takes the connection and says nothing does not keep a cancelled `connect`."""
    accepted = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1") as silent:
        port = silent.sockets[0].getsockname()[1]
        connecting = asyncio.create_task(connect(f"nats://127.0.0.1:{port}", name="test", on_event=ignored))
        await accepted.wait()
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting


# -- Websockets ------------------------------------------------------------------------------------------------------------

ECHO = """
import asyncio, sys
from headrace.service.broker import connect
from headrace.service import nats_py

async def main():
    before = "aiohttp" in sys.modules
    client = await connect(sys.argv[1], name="test", on_event=lambda _: None)
    heard = await client.subscribe("there")
    await client.publish("there", b"x" * 100_000)
    message = await heard.next_msg(timeout=10)
    print(before, len(message.data), "aiohttp" in sys.modules)
    await client.close()

asyncio.run(main())
"""


def ran(program: str, *arguments: str) -> str:
    """The last line that a Python of its own prints, or fails with."""
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60)
    return (done.stdout or done.stderr).strip().splitlines()[-1]


def test_websockets_bring_what_they_need_and_nothing_else_does(start_nats: Callable[..., NatsServer]) -> None:
    """A ws:// URL is spoken through aiohttp, which nothing imports for a nats:// URL, whatever is installed."""
    port = free_port()
    server = start_nats("websocket", extra=f"websocket {{ listen: 127.0.0.1:{port}, no_tls: true }}")
    assert ran(ECHO, f"ws://127.0.0.1:{port}") == "False 100000 True"
    assert ran(ECHO, server.url) == "False 100000 False"


def test_websockets_without_their_extra_name_it() -> None:
    """Where aiohttp is not installed a ws:// URL is an error that says what to install."""
    without = f"import sys; sys.modules['aiohttp'] = None{ECHO}"
    assert "pip install 'headrace[websocket]'" in ran(without, "ws://127.0.0.1:1")


def test_aiohttp_can_be_imported_after_nats_py() -> None:
    """What was hidden from nats-py is there for s3fs."""
    program = "import headrace.service.nats_py, aiohttp; print(aiohttp.ClientSession.__name__)"
    assert ran(program) == "ClientSession"
