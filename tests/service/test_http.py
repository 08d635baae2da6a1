"""The small HTTP server: what it answers, and what it withstands."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from headrace.service import http
from headrace.service.http import Answer, HttpServer, Request
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

SOON_S = 0.05
ASKED = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"


def echo(asked: Request) -> Answer:
    return Answer(f"{asked.path} of {asked.host}".encode())


@asynccontextmanager
async def serving(answer: Callable[[Request], Answer] = echo, host: str = "127.0.0.1") -> AsyncIterator[HttpServer]:
    """A server that is stopped in the end."""
    server = HttpServer(host, 0, answer, {"X-Kept": "always"})
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
        assert server.connections == 0


@asynccontextmanager
async def client(
    server: HttpServer, host: str = "127.0.0.1"
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(host, server.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def said(server: HttpServer, request: bytes, *, ends: bool = False) -> str:
    """All that the server says to these bytes until it closes the connection; the client's side `ends` after them."""
    async with client(server) as (reader, writer):
        writer.write(request)
        if ends:
            writer.write_eof()
        try:
            return (await reader.read(-1)).decode()
        except ConnectionResetError:
            return ""


def get(path: str = "/", *more: str, method: str = "GET", version: str = "1.1") -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/{version}", "Host: here", *more, "", "")).encode()


LAST = "Connection: close"


# -- Answers ---------------------------------------------------------------------------------------------------------------


async def test_answer_has_what_the_protocol_wants() -> None:
    """Status line, date, type, length and the headers of every answer; then the body, and the connection stays."""
    async with serving() as server, client(server) as (reader, writer):
        for path in ("/one", "/two?of=them"):
            writer.write(get(path))
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            body = f"{path.partition('?')[0]} of here"
            assert head.startswith("HTTP/1.1 200 OK\r\n")
            for header in ("Date: ", "Content-Type: text/plain; charset=utf-8", "X-Kept: always"):
                assert f"\r\n{header}" in head
            assert f"\r\nContent-Length: {len(body)}\r\n" in head
            assert "Server:" not in head
            assert (await reader.readexactly(len(body))).decode() == body


async def test_head_is_get_without_its_body() -> None:
    """HEAD says how long the answer would be, and not the answer."""
    async with serving() as server:
        answer = await said(server, get("/page", LAST, method="HEAD"))
    assert "\r\nContent-Length: 13\r\n" in answer
    assert answer.endswith("\r\n\r\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "BREW"])
async def test_other_methods_are_named_as_not_allowed(method: str) -> None:
    """What would change something is refused, with what may be asked."""
    async with serving() as server:
        answer = await said(server, get("/", LAST, method=method))
    assert answer.startswith("HTTP/1.1 405 ")
    assert "\r\nAllow: GET, HEAD\r\n" in answer
    assert "\r\nX-Kept: always\r\n" in answer


async def test_old_clients_are_answered_and_the_connection_ends() -> None:
    """HTTP/1.0 has neither a host nor a second request."""
    async with serving() as server:
        answer = await said(server, b"GET /old HTTP/1.0\r\n\r\n")
    assert answer.startswith("HTTP/1.1 200 OK\r\n")
    assert answer.endswith("\r\n\r\n/old of ")


async def test_proxys_way_to_ask_names_the_host_in_the_target() -> None:
    """An absolute target overrides the header, so that no header can speak for another host."""
    async with serving() as server:
        answer = await said(server, get("http://evil.example:80/page?x=1", LAST))
        nonsense = await said(server, get("http://[/page", LAST))
    assert answer.endswith("/page of evil.example:80")
    assert nonsense.startswith("HTTP/1.1 400 ")


async def test_server_of_an_ipv6_host_answers() -> None:
    """The host may be an IPv6 address, and is one in what the client says."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    async with serving(host="::1") as server, client(server, "::1") as (reader, writer):
        writer.write(f"GET /six HTTP/1.1\r\nHost: [::1]:{server.port}\r\n{LAST}\r\n\r\n".encode())
        assert (await reader.read(-1)).decode().endswith(f"/six of [::1]:{server.port}")


async def test_page_that_fails_is_an_answer_and_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    """An error in what is told ends neither the connection nor the part, and its text is not told."""

    def fails(asked: Request) -> Answer:
        if asked.path == "/bad":
            raise RuntimeError("a gauge of /secret/place")
        return echo(asked)

    async with serving(fails) as server:
        with caplog.at_level(logging.ERROR):
            answer = await said(server, get("/bad") + get("/good", LAST))
    assert answer.startswith("HTTP/1.1 500 ")
    assert answer.endswith("/good of here")
    assert "secret" not in answer
    assert "a gauge of /secret/place" in caplog.text


# -- What it withstands ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 100_000])
async def test_requests_in_one_packet_or_byte_by_byte_are_answered_in_order(size: int) -> None:
    """However the bytes are cut, each request of a pipeline has its answer, in its place."""
    async with serving() as server, client(server) as (reader, writer):
        asked = b"".join(get(f"/{number}") for number in range(9)) + get("/last", LAST)
        for start in range(0, len(asked), size):
            writer.write(asked[start : start + size])
            await asyncio.sleep(0)
        text = (await reader.read(-1)).decode()
    order = [text.index(f"/{name} of here") for name in (*range(9), "last")]
    assert order == sorted(order)
    assert text.count("HTTP/1.1 200 OK") == 10


async def test_pipeline_of_thousands_does_not_hold_up_the_loop() -> None:
    """Between two answers of one connection everything else has its turn, and what is not answered yet is not read."""
    ticks = answers = 0
    most = 0

    def slow(asked: Request) -> Answer:
        nonlocal answers, most
        answers += 1
        most = max(most, answers - ticks)
        return Answer(b"x" * 1000)

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    async with serving(slow) as server, client(server) as (reader, writer):
        ticking = asyncio.ensure_future(tick())
        writer.write(get("/") * 3000 + get("/", LAST))
        text = await reader.read(-1)
        ticking.cancel()
    assert text.count(b"HTTP/1.1 200 OK") == answers == 3001
    assert most <= 2


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),  # TLS to a port that has none
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",  # no host
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n broken : header\r\n\x00: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n",
        bytes(range(256)) * 100,
        b"\r\n" * 20_000,
    ],
)
async def test_garbage_is_refused_and_the_connection_ends(garbage: bytes) -> None:
    """What is no request of HTTP/1 has an answer that says so, or none, and the next client is served."""
    async with serving() as server:
        answer = await said(server, garbage)
        assert answer == "" or answer.startswith(("HTTP/1.1 4", "HTTP/1.1 5"))
        assert answer.count("HTTP/1.1") <= 1
        assert (await said(server, get("/", LAST))).startswith("HTTP/1.1 200 OK")


@pytest.mark.parametrize("headers", [("X-Big: " + "x" * 20_000,), tuple(f"X-{n}: x" for n in range(3000))])
async def test_oversized_headers_are_refused_with_431(headers: tuple[str, ...]) -> None:
    """Nobody makes a part keep more than 16 KiB, and who tries is told, though it is still sending."""
    async with serving() as server:
        answer = await said(server, get("/", *headers))
        head = await said(server, get("/", *headers, method="HEAD"))
    assert answer.startswith("HTTP/1.1 431 ")
    assert head.startswith("HTTP/1.1 431 ")
    assert "\r\nX-Kept: always\r\n" in answer


async def test_announced_body_is_not_awaited_and_ends_the_connection() -> None:
    """A request with a body is answered at once; what would follow is nobody's."""
    async with serving() as server:
        answer = await said(server, get("/page", "Content-Length: 1000000000") + b"x" * 100_000 + get("/smuggled"))
        chunked = await said(server, get("/page", "Transfer-Encoding: chunked") + b"5\r\nhello\r\n")
    for told in (answer, chunked):
        assert told.count("HTTP/1.1 200 OK") == 1
        assert "\r\nConnection: close\r\n" in told
        assert "smuggled" not in told


async def test_half_a_request_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who connects and says nothing, or half, or a byte now and then, is disconnected in time."""
    monkeypatch.setattr(http, "REQUEST_S", SOON_S)
    async with serving() as server:
        for begin in (b"", b"GET / HT", ASKED[:-2]):
            assert await said(server, begin) == ""
        async with client(server) as (_, writer):
            await until(lambda: server.connections, "it is connected")
            for byte in ASKED[:-2]:
                writer.write(bytes([byte]))
                await asyncio.sleep(SOON_S / 20)
                if not server.connections:
                    break
            await until(lambda: not server.connections, "a slow sender is disconnected")


async def test_connection_without_requests_is_closed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection is kept for the next request, not for ever."""
    monkeypatch.setattr(http, "KEEP_ALIVE_S", SOON_S)
    async with serving() as server:
        assert (await said(server, get("/once"))).endswith("/once of here")


async def test_client_that_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that nobody takes are not made without end, nor kept."""
    monkeypatch.setattr(http, "TAKE_S", SOON_S)
    made = 0

    def large(asked: Request) -> Answer:
        nonlocal made
        made += 1
        return Answer(bytes(1_000_000))

    async with serving(large) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
        writer.write(get() * 300)
        await until(lambda: made, "it asks")
        await until(lambda: not server.connections, "it is disconnected")
        writer.transport.abort()
    assert made < 100


async def test_client_that_closes_its_side_is_answered() -> None:
    """`printf ... | nc -N`: the question is whole, the answer comes; half a question is refused."""
    async with serving() as server:
        assert (await said(server, get("/one") + get("/two"), ends=True)).endswith("/two of here")
        assert (await said(server, get("/one")[:-2], ends=True)).startswith("HTTP/1.1 400 ")
        assert await said(server, b"", ends=True) == ""
        await until(lambda: not server.connections, "all are closed")


async def test_flood_of_connections_keeps_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of too many connections those give way that have waited longest; who asks is answered, and what was served stays."""
    monkeypatch.setattr(http, "CONNECTIONS_MAX", 8)
    async with serving() as server, client(server) as (reader, writer):
        flood = []
        for number in range(40):
            flood.append(await asyncio.open_connection("127.0.0.1", server.port))
            if number % 4 == 0:  # a scraper whose connection lives through it
                writer.write(get("/kept"))
                assert b"200 OK" in await reader.readuntil(b"/kept of here")
        await until(lambda: server.connections == 8, "as many are left as may be")
        assert (await said(server, get("/new", LAST))).endswith("/new of here")
        for _, one in flood:
            one.transport.abort()


async def test_stop_ends_what_is_open() -> None:
    """Connections at rest, in the middle of a request and in the middle of an answer end with the server; its port is free."""
    large = Answer(bytes(50_000_000))
    server = HttpServer("127.0.0.1", 0, lambda _: large)
    await server.start()
    begun = (b"", b"GET / HT", ASKED)
    clients = [await asyncio.open_connection("127.0.0.1", server.port) for _ in begun]
    for (_, writer), said_so_far in zip(clients, begun, strict=True):
        writer.write(said_so_far)
    assert await clients[-1][0].read(1)
    await asyncio.wait_for(server.stop(), 30)
    await server.stop()
    assert server.connections == 0
    for reader, writer in clients:
        with suppress(ConnectionResetError):
            assert len(await reader.read(-1)) < 50_000_000
        writer.transport.abort()
    again = HttpServer("127.0.0.1", server.port, echo)
    await again.start()
    await again.stop()


async def test_connection_at_rest_wakes_nobody() -> None:
    """With a client connected that asks nothing the loop sleeps: one timer, far away, is all there is."""
    async with serving() as server, client(server) as (reader, writer):
        writer.write(get("/page"))
        await reader.readuntil(b"of here")
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        await asyncio.sleep(0.3)
        waits = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before
    assert waits <= 4
