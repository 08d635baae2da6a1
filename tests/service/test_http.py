"""The pages of a part over HTTP: what is answered, and what the server withstands."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
import threading
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from headrace.service import http
from headrace.service.http import Answer, HttpServer, Request
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


def echo(asked: Request) -> Answer:
    return Answer(f"{asked.path} of {asked.host}".encode())


@asynccontextmanager
async def serving(answer: Callable[[Request], Answer] = echo, host: str = "127.0.0.1") -> AsyncIterator[HttpServer]:
    """A server that is stopped in the end, and leaves no thread behind."""
    before = threading.active_count()
    server = HttpServer(host, 0, answer, {"X-Kept": "always"})
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
        await until(
            lambda: not [one for one in threading.enumerate() if one.name in ("http", "waitress-0")], "it ended"
        )
    assert threading.active_count() <= before + 2  # the loop's own, of `asyncio.to_thread`


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
            with suppress(OSError):  # the server was quicker, and is gone
                writer.write_eof()
        try:
            return (await reader.read(-1)).decode()
        except ConnectionResetError:
            return ""


def get(path: str = "/", *more: str, method: str = "GET") -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: here", *more, "", "")).encode()


LAST = "Connection: close"


# -- Answers ---------------------------------------------------------------------------------------------------------------


async def test_a_connection_is_kept_for_the_next_request() -> None:
    """Status line, type, length and the headers of every answer; then the body. The server's name is nobody's business."""
    async with serving() as server, client(server) as (reader, writer):
        for path in ("/one", "/two?of=them"):
            writer.write(get(path))
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            body = f"{path.partition('?')[0]} of here"
            assert head.startswith("HTTP/1.1 200 OK\r\n")
            for header in ("Content-Type: text/plain; charset=utf-8", f"Content-Length: {len(body)}", "X-Kept: always"):
                assert f"\r\n{header}\r\n" in head
            assert "\r\nServer:" not in head
            assert (await reader.readexactly(len(body))).decode() == body


async def test_head_is_get_without_its_body() -> None:
    """HEAD says how long the answer would be, and not the answer."""
    async with serving() as server:
        answer = await said(server, get("/page", LAST, method="HEAD"))
    assert "\r\nContent-Length: 13\r\n" in answer
    assert answer.endswith("\r\n\r\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "BREW"])
async def test_other_methods_are_named_as_not_allowed(method: str) -> None:
    """What would change something is refused, with what may be asked."""
    async with serving() as server:
        answer = await said(server, get("/", LAST, method=method))
    assert answer.startswith("HTTP/1.1 405 ")
    assert "\r\nAllow: GET, HEAD\r\n" in answer
    assert "\r\nX-Kept: always\r\n" in answer


async def test_a_server_of_an_ipv6_host_answers() -> None:
    """The host may be an IPv6 address, and is one in what the client says."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    async with serving(host="::1") as server, client(server, "::1") as (reader, writer):
        writer.write(f"GET /six HTTP/1.1\r\nHost: [::1]:{server.port}\r\n{LAST}\r\n\r\n".encode())
        assert (await reader.read(-1)).decode().endswith(f"/six of [::1]:{server.port}")


async def test_what_is_told_is_found_in_the_loop_that_started_the_server() -> None:
    """What the pages show is the loop's alone to touch: no figure changes while it is read."""
    threads: list[str] = []

    def answer(asked: Request) -> Answer:
        threads.append(threading.current_thread().name)
        return echo(asked)

    async with serving(answer) as server:
        await said(server, get("/", LAST))
    assert threads == [threading.current_thread().name]


async def test_a_page_that_fails_is_an_answer_and_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
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


async def test_a_loop_that_hangs_is_told_to_the_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks a part that is stuck has an answer all the same, and it is not 200."""
    monkeypatch.setattr(http, "ANSWER_S", 0.05)
    async with serving() as server:
        answers: list[bytes] = []

        def ask() -> None:
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                connection.sendall(get("/livez", LAST))
                answers.append(connection.recv(4096))

        asking = threading.Thread(target=ask)
        asking.start()
        asking.join()  # the loop hangs
    assert answers[0].startswith(b"HTTP/1.1 503 ")


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


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200) + b"\r\n\r\n",  # TLS to a port that has none
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n broken : header\r\n\x00: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n",
        bytes(range(256)) * 100,
    ],
)
async def test_garbage_is_refused_and_the_next_client_served(garbage: bytes) -> None:
    """What is no request of HTTP/1 has no page for an answer."""
    async with serving() as server:
        answer = await said(server, garbage, ends=True)
        assert "200 OK" not in answer
        assert (await said(server, get("/", LAST))).startswith("HTTP/1.1 200 OK")


@pytest.mark.parametrize("headers", [("X-Big: " + "x" * 20_000,), tuple(f"X-{n}: x" for n in range(3000))])
async def test_oversized_headers_are_refused_with_431(headers: tuple[str, ...]) -> None:
    """Nobody makes a part keep more than 16 KiB. Whoever is still sending then may learn it by a reset."""
    async with serving() as server:
        answer = await said(server, get("/", *headers))
        assert answer == "" or answer.startswith("HTTP/1.1 431 ")
        assert (await said(server, get("/", LAST))).startswith("HTTP/1.1 200 OK")


async def test_an_announced_body_is_refused_and_nothing_that_follows_is_a_request() -> None:
    """No page takes a body, and what stands where one should be asks for nothing."""
    async with serving() as server:
        answer = await said(server, get("/page", "Content-Length: 1000000000") + b"x" * 100_000 + get("/smuggled"))
    assert "smuggled" not in answer
    assert "200 OK" not in answer


async def test_who_says_nothing_or_half_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection on which nothing moves is closed, whatever it was in the middle of."""
    limits = {**http.LIMITS, "channel_timeout": 0, "cleanup_interval": 0, "asyncore_loop_timeout": 1}
    monkeypatch.setattr(http, "LIMITS", limits)
    async with serving() as server:
        for begin in (b"", b"GET / HT", get("/")[:-2]):
            assert await said(server, begin) == ""


async def test_a_client_that_closes_its_side_is_answered() -> None:
    """`printf ... | nc -N`: the question is whole, the answer comes."""
    async with serving() as server:
        assert (await said(server, get("/one", LAST), ends=True)).endswith("/one of here")
        assert await said(server, b"", ends=True) == ""


async def test_a_flood_of_connections_costs_neither_the_part_nor_the_next_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More connections than are taken wait outside; when those at rest were closed, who asks is answered."""
    limits = {**http.LIMITS, "connection_limit": 8, "channel_timeout": 1, "cleanup_interval": 1}
    monkeypatch.setattr(http, "LIMITS", {**limits, "asyncore_loop_timeout": 1})
    async with serving() as server:
        flood = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(40)]
        assert (await said(server, get("/new", LAST))).endswith("/new of here")
        for _, one in flood:
            one.transport.abort()


async def test_a_process_with_thousands_of_open_files_is_answered() -> None:
    """An agent holds a descriptor a journal: clients come with numbers that select() does not take."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(4096, hard)), hard))
    with ExitStack() as files:
        for _ in range(1100):
            files.enter_context(open(os.devnull, "rb"))
        async with serving() as server:
            assert (await said(server, get("/page", LAST))).endswith("/page of here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_stop_ends_what_is_open() -> None:
    """Connections at rest, in the middle of a request and in the middle of an answer end with the server; its port is free."""
    large = Answer(bytes(50_000_000))
    async with serving(lambda _: large) as server:
        begun = (b"", b"GET / HT", get("/"))
        clients = [await asyncio.open_connection("127.0.0.1", server.port) for _ in begun]
        for (_, writer), said_so_far in zip(clients, begun, strict=True):
            writer.write(said_so_far)
        assert await clients[-1][0].read(1)
        await asyncio.wait_for(server.stop(), 30)
        await server.stop()
        for reader, writer in clients:
            with suppress(ConnectionResetError):
                assert len(await reader.read(-1)) < 50_000_000
            writer.transport.abort()
    again = HttpServer("127.0.0.1", server.port, echo)
    await again.start()
    await again.stop()


async def test_a_connection_at_rest_wakes_nobody() -> None:
    """With a client connected that asks nothing the whole process sleeps."""
    async with serving() as server, client(server) as (reader, writer):
        writer.write(get("/page"))
        await reader.readuntil(b"of here")
        await asyncio.sleep(0.1)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
        await asyncio.sleep(0.5)
        waits = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before
    assert waits <= 6
