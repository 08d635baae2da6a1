"""HTTP/1.1 as far as the few pages of a part need it: GET and HEAD of small answers, in the part's own loop, the protocol by h11.

aiohttp.web does the same for 14 MiB and 130 ms of each start, and uvicorn wakes ten times a second. Here nothing wakes at rest:
a connection has one timer, which runs while something is awaited of the client.

Whoever connects is trusted with nothing: a request has to come whole within REQUEST_S and 16 KiB, an answer has to be taken within
TAKE_S, requests of one connection are answered one a turn of the loop, and of more than CONNECTIONS_MAX connections the one
gives way that has waited longest.
"""

from __future__ import annotations

import asyncio
import logging
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NamedTuple, cast
from urllib.parse import urlsplit

import h11

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_LOG: Final = logging.getLogger(__name__)

REQUEST_S: Final = 10.0
"""From its first byte, or from the connection, to the end of a request."""
KEEP_ALIVE_S: Final = 75.0
"""From an answer to the next request's first byte: longer than most wait between two scrapes, Prometheus 60 s by default."""
TAKE_S: Final = 10.0
"""An answer is some KiB: who has not read it after so long never will."""
LINGER_S: Final = 1.0
"""For a refused client to stop sending. One whose bytes are met by a closed socket loses the answer that says why."""
REQUEST_BYTES_MAX: Final = 16 * 1024
"""Of a request's line and headers together. More is answered with 431."""
CONNECTIONS_MAX: Final = 64
BACKLOG: Final = 128
TEXT: Final = "text/plain; charset=utf-8"
_METHODS: Final = (b"GET", b"HEAD")
_VERSIONS: Final = (b"1.1", b"1.0")
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Request(NamedTuple):
    """What is asked for. `host` is where the client believes to be, with its port; `authorization` what it shows."""

    path: str
    host: str
    authorization: bytes = b""


class Answer(NamedTuple):
    """What is said. Its length, date and connection are told by the server."""

    body: bytes
    status: int = HTTPStatus.OK
    content_type: str = TEXT
    headers: Mapping[str, str] = {}


class HttpServer:
    """Answers every GET by `answer` until stopped, each with `headers`, refusals too. Start once; stopping twice is fine."""

    def __init__(
        self, host: str, port: int, answer: Callable[[Request], Answer], headers: Mapping[str, str] | None = None
    ) -> None:
        self.port = port  # after `start`: the port that is really open
        self.answer: Final = answer
        self.headers: Final = dict(headers or {})
        self._host = host
        self._server: asyncio.Server | None = None
        self._connections: dict[_Connection, None] = {}
        """In the order in which they came or were last answered."""

    async def start(self) -> None:
        """Open the port. Raises `OSError` when it is taken."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), self._host, self.port, backlog=BACKLOG)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Close the port and every connection to it."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            for connection in list(self._connections):
                connection.abort()
            await server.wait_closed()

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    def joined(self, connection: _Connection) -> None:
        """A client has connected."""
        if len(self._connections) >= CONNECTIONS_MAX:
            next(iter(self._connections)).abort()
        self._connections[connection] = None

    def served(self, connection: _Connection) -> None:
        """It was answered: of all it is now the last to give way."""
        if self._connections.pop(connection, self) is None:
            self._connections[connection] = None

    def left(self, connection: _Connection) -> None:
        """It is gone."""
        self._connections.pop(connection, None)


class _Connection(asyncio.Protocol):
    """One client: reads a request, answers it, reads the next."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=REQUEST_BYTES_MAX)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._idle = False  # nothing of the next request has come
        self._blocked = False  # the client does not take what was written
        self._bodyless = False  # it was asked for the head of an answer
        self._leaving = False  # all is said; what still comes is not read
        self._turning = False  # a turn is due; until then nothing more is read

    # -- What the loop tells -------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its type
        self._server.joined(self)
        self._within(REQUEST_S)

    def data_received(self, data: bytes) -> None:
        if self._leaving:
            return
        if self._idle:
            self._idle = False
            self._within(REQUEST_S)
        self._http.receive_data(data)
        self._turn_soon()

    def eof_received(self) -> bool:
        """Whether to keep the other direction open: who asked and then shut its side may still be told."""
        if self._leaving:
            return False
        self._http.receive_data(b"")
        self._turn_soon()
        return True

    def pause_writing(self) -> None:
        self._blocked = True
        self._within(TAKE_S)

    def resume_writing(self) -> None:
        self._blocked = False
        if self._leaving:
            self._within(LINGER_S)
        else:
            self._await_next()

    def connection_lost(self, _: Exception | None) -> None:
        self._transport = None
        self._stop_waiting()
        self._server.left(self)

    # -- Turns ---------------------------------------------------------------------------------------------------------------

    def _turn_soon(self) -> None:
        """The next request is looked at in a turn of its own: a hundred in one packet must not hold up the part."""
        if not self._turning and self._transport is not None and not self._transport.is_closing():
            self._turning = True
            self._transport.pause_reading()
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._turning = False
        if self._transport is None or self._transport.is_closing() or self._blocked or self._leaving:
            return
        try:
            event = self._http.next_event()
            if isinstance(event, h11.Request):
                self._bodyless = event.method == b"HEAD"
                _check(event)
                whole = isinstance(self._http.next_event(), h11.EndOfMessage)
                self._serve(event, whole=whole)
            elif isinstance(event, h11.ConnectionClosed):
                self._transport.close()
            else:
                self._transport.resume_reading()
        except h11.RemoteProtocolError as error:
            self._refuse(error.error_status_hint)

    def _serve(self, asked: h11.Request, *, whole: bool) -> None:
        """Answer. Who announced a body is answered without it, and the connection ends: no page takes one."""
        self._send(self._answer(asked), last=not whole)
        self._server.served(self)
        if self._transport is None:
            return
        if not whole:
            self._leave()
        elif self._http.our_state is h11.DONE:
            self._http.start_next_cycle()
            if not self._blocked:
                self._await_next()
        else:
            self._transport.close()

    def _answer(self, asked: h11.Request) -> Answer:
        if asked.method not in _METHODS:
            return plain(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "GET, HEAD"})
        shown = dict(reversed(asked.headers))  # names are in lower case; of several the first holds
        target, host = asked.target.decode("latin-1"), shown.get(b"host", b"").decode("latin-1")
        if not target.startswith("/"):  # a proxy's way to ask: scheme and host are in it, and override the header
            try:
                _, host, target, _, _ = urlsplit(target)
            except ValueError:
                return plain(HTTPStatus.BAD_REQUEST)
        request = Request(target.partition("?")[0], host, shown.get(b"authorization", b""))
        try:
            return self._server.answer(request)
        except Exception:  # what cannot be told, a gauge that fails, must not end the part
            _LOG.exception("%s cannot be answered", request.path)
            return plain(HTTPStatus.INTERNAL_SERVER_ERROR)

    def _await_next(self) -> None:
        self._idle = True
        self._within(KEEP_ALIVE_S)
        self._turn_soon()

    # -- Ends ----------------------------------------------------------------------------------------------------------------

    def _refuse(self, status: int) -> None:
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._send(plain(status), last=True)
        self._leave()

    def _leave(self) -> None:
        """Say no more, and let the client finish: see LINGER_S."""
        if self._transport is not None:
            self._leaving = True
            self._transport.write_eof()
            self._transport.resume_reading()
            self._within(LINGER_S)

    def abort(self) -> None:
        """End the connection at once."""
        self._server.left(self)
        if self._transport is not None:
            self._transport.abort()

    def _within(self, seconds: float) -> None:
        """What is awaited of the client now has so long."""
        self._stop_waiting()
        self._timer = self._loop.call_later(seconds, self.abort)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- Writing -------------------------------------------------------------------------------------------------------------

    def _send(self, answer: Answer, *, last: bool) -> None:
        headers = {
            "Date": _date(time.time()),
            "Content-Type": answer.content_type,
            "Content-Length": str(len(answer.body)),
            **self._server.headers,
            **answer.headers,
            **({"Connection": "close"} if last else {}),
        }
        reason = HTTPStatus(answer.status).phrase
        response = h11.Response(status_code=answer.status, headers=list(headers.items()), reason=reason)
        said = self._http.send(response) or b""
        if not self._bodyless:
            said += self._http.send(h11.Data(data=answer.body)) or b""
        said += self._http.send(h11.EndOfMessage()) or b""
        if self._transport is not None:
            self._transport.write(said)


def _check(asked: h11.Request) -> None:
    """What h11 lets pass: it bounds the parts of a request that come one by one, and reads any version that looks like HTTP/1."""
    if len(asked.target) + sum(len(name) + len(value) for name, value in asked.headers) > REQUEST_BYTES_MAX:
        raise h11.RemoteProtocolError("too large", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    if asked.http_version not in _VERSIONS:
        raise h11.RemoteProtocolError("not HTTP/1", HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)


def plain(status: int, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer that says no more than its status."""
    return Answer(f"{status} {HTTPStatus(status).phrase}\n".encode(), status, headers=headers or {})


def _date(at_s: float) -> str:
    """The time as RFC 9110 (5.6.7) wants it, in no locale."""
    now = time.gmtime(at_s)
    day, month = _DAYS[now.tm_wday], _MONTHS[now.tm_mon - 1]
    return f"{day}, {now.tm_mday:02} {month} {now.tm_year} {now.tm_hour:02}:{now.tm_min:02}:{now.tm_sec:02} GMT"
