"""HTTP for the few pages of a part: waitress in a thread, which sleeps while nobody asks. What is told is found in the part's loop.

A part that can no longer turn its loop is told from one that can: it has no answer but 503.

aiohttp.web would be a fifth of an agent's memory and start, and uvicorn wakes ten times a second.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from http import HTTPStatus
from threading import Thread
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import waitress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from waitress.server import TcpWSGIServer

_LOG: Final = logging.getLogger(__name__)

LIMITS: Final[Mapping[str, int]] = {
    "threads": 1,
    "connection_limit": 256,
    "max_request_header_size": 16 * 1024,
    "max_request_body_size": 1024,  # no page takes a body, and a longer one would be a temporary file
    "outbuf_overflow": 1024**3,  # nor is an answer that waits for its client ever a file
    "channel_timeout": 5,  # seconds, of a connection on which nothing moves
    "cleanup_interval": 5,
    "asyncore_use_poll": True,  # select() fails for descriptors beyond 1,023, and a thousand journals are open elsewhere
    "asyncore_loop_timeout": 60,  # what comes wakes it; at rest it should sleep
}
"""Whoever connects is trusted with nothing."""
ANSWER_S: Final = 5.0
"""For the loop to come to it: probes of orchestrators wait for seconds, too."""
STOP_S: Final = 5.0
BACKLOG: Final = 128
TEXT: Final = "text/plain; charset=utf-8"
_METHODS: Final = ("GET", "HEAD")


class Request(NamedTuple):
    """What is asked for. `host` is where the client believes to be, with its port; `authorization` what it shows."""

    path: str
    host: str
    authorization: bytes = b""


class Answer(NamedTuple):
    """What is said."""

    body: bytes
    status: int = HTTPStatus.OK
    content_type: str = TEXT
    headers: Mapping[str, str] = {}


class HttpServer:
    """Answers every GET by `answer`, called in the loop that starts it, each with `headers`. Stopping twice is fine."""

    def __init__(
        self, host: str, port: int, answer: Callable[[Request], Answer], headers: Mapping[str, str] | None = None
    ) -> None:
        self.port = port  # after `start`: the port that is really open
        self._host = host
        self._answer = answer
        self._headers = dict(headers or {})
        self._server: TcpWSGIServer | None = None
        self._thread: Thread | None = None

    async def start(self) -> None:
        """Open the port. Raises `OSError` when it is taken."""
        self._loop = asyncio.get_running_loop()
        listening = await _listening(self._host, self.port)
        self.port = int(listening.getsockname()[1])
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # two who ask at once are no news
        self._server = waitress.create_server(self._serve, sockets=[listening], ident=None, **LIMITS)
        self._thread = Thread(target=self._server.run, name="http", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Close the port and every connection to it."""
        server, thread, self._server = self._server, self._thread, None
        if server is not None and thread is not None:
            server.trigger.pull_trigger(lambda: _close(server))  # in its own thread
            await asyncio.to_thread(thread.join, STOP_S)
            await asyncio.to_thread(server.task_dispatcher.shutdown, True, STOP_S)

    # -- In waitress's thread ------------------------------------------------------------------------------------------------

    def _serve(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        answer = self._answered(environ)
        headers = {
            "Content-Type": answer.content_type,
            "Content-Length": str(len(answer.body)),
            **self._headers,
            **answer.headers,
        }
        start_response(f"{answer.status:d} {HTTPStatus(answer.status).phrase}", [*headers.items()])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [answer.body]

    def _answered(self, environ: dict[str, Any]) -> Answer:
        if environ["REQUEST_METHOD"] not in _METHODS:
            return plain(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": ", ".join(_METHODS)})
        shown = environ.get("HTTP_AUTHORIZATION", "").encode("latin-1")
        asked = Request(environ["PATH_INFO"], environ.get("HTTP_HOST", ""), shown)
        found = asyncio.run_coroutine_threadsafe(self._found(asked), self._loop)
        try:
            return found.result(ANSWER_S)
        except TimeoutError:
            found.cancel()
            return plain(HTTPStatus.SERVICE_UNAVAILABLE)
        except Exception:  # what cannot be told, a gauge that fails, must not end the part
            _LOG.exception("%s cannot be answered", asked.path)
            return plain(HTTPStatus.INTERNAL_SERVER_ERROR)

    async def _found(self, asked: Request) -> Answer:
        return self._answer(asked)


def _close(server: TcpWSGIServer) -> None:
    for channel in list(server.active_channels.values()):
        channel.close()
    server.close()


async def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens at the first address of `host`, one of IPv4 if there is any."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    return socket.create_server(address[:2], family=family, backlog=BACKLOG)


def plain(status: int, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer that says no more than its status."""
    return Answer(f"{status:d} {HTTPStatus(status).phrase}\n".encode(), status, headers=headers or {})
