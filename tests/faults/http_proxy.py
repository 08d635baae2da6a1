"""An HTTP proxy in front of an S3 server, which answers wrongly, late, in half or not at all where a test tells it to."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Literal, Self
from urllib.parse import urlsplit

HttpFault = Literal[
    "500",  # not served
    "503",
    "409",
    "served, 500",  # served, and then an error is answered
    "reset",  # the connection is gone before the request was served
    "served, reset",  # served, and the connection is gone before the answer
    "half",  # half of the answer's body, then the connection is gone
    "silent",  # served, and no answer ever comes; the connection stays open
]
_CODES: Final = {"500": "InternalError", "503": "SlowDown", "409": "ConditionalRequestConflict"}
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER that makes close(2) send RST, as a load balancer that dies does."""
_DROPPED: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "proxy-connection"})


@dataclass
class Rule:
    """What happens to requests of `method` whose path contains `path`: `fault`, `times` of them after the first `after`."""

    fault: HttpFault
    method: str = "PUT"
    path: str = ""
    times: int = 1
    after: int = 0
    met: int = 0

    def applies(self, method: str, path: str) -> bool:
        """Whether this request is to fail. Counts it."""
        if method != self.method or self.path not in path:
            return False
        self.met += 1
        return self.after < self.met <= self.after + self.times


@dataclass
class HttpProxy:
    """`with HttpProxy("http://127.0.0.1:5000") as proxy`: clients use `proxy.url`; `proxy.rules` says what goes wrong."""

    upstream: str
    rules: list[Rule] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of all, in the order in which they came."""

    def __enter__(self) -> Self:
        parts = urlsplit(self.upstream)

        handler = type("Handler", (_Handler,), {"owner": self, "host": parts.hostname, "port": parts.port})
        self._released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="http-proxy", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def fail(self, fault: HttpFault, method: str = "PUT", path: str = "", times: int = 1, after: int = 0) -> Rule:
        """Add a rule."""
        self.rules.append(Rule(fault, method, path, times, after))
        return self.rules[-1]

    def fault_of(self, method: str, path: str) -> HttpFault | None:
        self.requests.append((method, path))
        return next((rule.fault for rule in self.rules if rule.applies(method, path)), None)

    def wait_for_release(self) -> None:
        """Hold an answer back for as long as the proxy lives."""
        self._released.wait()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: HttpProxy
    host: str
    port: int

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.owner.fault_of(self.command, self.path)
        if fault == "reset":
            self._cut()
            return
        if fault in ("500", "503", "409"):
            self._refuse(fault)
            return
        status, headers, data = self._served(body)
        if fault == "served, reset":
            self._cut()
        elif fault == "served, 500":
            self._refuse("500")
        elif fault == "silent":
            self.owner.wait_for_release()
            self._cut()
        else:
            self._answer(status, headers, data, half=fault == "half")

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle

    def _served(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        upstream = http.client.HTTPConnection(self.host, self.port)
        try:
            # `Host` and all headers pass as they are: they are signed
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _DROPPED | {"expect"}}
            upstream.request(self.command, self.path, body=body, headers=headers)
            answer = upstream.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            upstream.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes, *, half: bool) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in _DROPPED | {"content-length"}:
                self.send_header(name, value)
        length = {name.lower(): value for name, value in headers}.get("content-length", str(len(data)))
        self.send_header("Content-Length", length if self.command == "HEAD" else str(len(data)))
        with suppress(OSError):  # whoever asked may have given up
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data[: len(data) // 2] if half else data)
        if half:
            self._cut()

    def _refuse(self, status: str) -> None:
        data = f"<Error><Code>{_CODES[status]}</Code><Message>made by the proxy</Message></Error>".encode()
        self._answer(int(status), [("Content-Type", "application/xml")], data, half=False)

    def _cut(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.connection.shutdown(socket.SHUT_RDWR)
