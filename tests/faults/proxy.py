"""A TCP proxy that a test can make unreliable: cut, deaf in one direction, silent in both, or closed to newcomers."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_BLOCK = 64 * 1024


class Proxy:
    """`async with Proxy("nats://127.0.0.1:4222") as proxy`: clients use `proxy.url`.

    `silent`: nothing is read from either side, so that both find a dead link behind a living socket.
    `deaf`: what the server says is thrown away; what the client says still arrives. A connection that was deaf has to be `cut`
    before it is of use again, because its client has missed part of the server's sentences.
    `closed`: new connections are refused. `freeze`: the connections that exist are silent for ever, new ones are not, as after a
    router forgot a connection.
    """

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 4222
        self._scheme = parts.scheme
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self.deaf = False
        self.closed = False
        self.connections = 0
        self.bytes_up = 0

    async def __aenter__(self) -> Self:
        listener = socket.create_server(("127.0.0.1", 0))
        # small, so that what nobody reads is soon felt by whoever writes it
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BLOCK)
        self._server = await asyncio.start_server(self._connected, sock=listener)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        """What clients connect to."""
        assert self._server is not None
        return f"{self._scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    @property
    def silent(self) -> bool:
        """Whether nothing moves in either direction."""
        return not self._flows.is_set()

    @silent.setter
    def silent(self, value: bool) -> None:
        (self._flows.clear if value else self._flows.set)()

    def freeze(self) -> None:
        """Let nothing move any more on the connections that exist."""
        self._flows.clear()
        self._flows = asyncio.Event()
        self._flows.set()

    def cut(self) -> None:
        """Reset every connection."""
        for writer in list(self._writers):
            writer.transport.abort()
        self._writers.clear()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.closed:
            writer.transport.abort()
            return
        self.connections += 1
        try:
            up_reader, up_writer = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, up_writer}
        for task in (
            asyncio.create_task(self._pump(reader, up_writer, up=True)),
            asyncio.create_task(self._pump(up_reader, writer, up=False)),
        ):
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        flows = self._flows
        with suppress(OSError):
            while True:
                await flows.wait()
                block = await reader.read(_BLOCK)
                await flows.wait()
                if not block:
                    break
                if up:
                    self.bytes_up += len(block)
                elif self.deaf:
                    continue
                writer.write(block)
                await writer.drain()
        writer.transport.abort()
        self._writers.discard(writer)
