"""What a long-running part tells its operator over HTTP: /metrics for Prometheus, /healthz for probes and people.

It listens on the loopback interface unless told otherwise, shows no event, name or value of anyone's experiment, and changes
nothing. On the loopback interface it answers only requests that name it so: a web page that resolves its own name to
127.0.0.1 must not read it. On any other it wants a token (`token`), as `Authorization: Bearer ...`: what is shown tells hosts,
folders and loads. /livez and /readyz, for orchestrators that can send none, say nothing but "alive" and "ready" by their status.
"""

from __future__ import annotations

import hmac
import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from headrace.service.http import Answer, HttpServer, Request, plain
from headrace.service.ports import LOOPBACK
from headrace.service.secrets import masked
from headrace.service.token import is_loopback, metrics_token
from headrace_proto.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from headrace.service.settings import ServiceSettings

_LOCAL_NAMES: Final = frozenset({LOOPBACK, "localhost", "[::1]"})
_JSON: Final = "application/json; charset=utf-8"
_TELLS_NOTHING: Final = frozenset({"/livez", "/readyz"})
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
"""On every answer: what is meant for a machine is never run, framed or kept by a browser."""


class Health(NamedTuple):
    """How a part is: `ok` decides between 200 and 503, `facts` is shown with it."""

    ok: bool
    facts: Mapping[str, Any] = {}


class HealthServer:
    """Serves `registry` and `check()` until stopped. Start once; stopping twice is fine."""

    def __init__(
        self,
        port: int,
        registry: CollectorRegistry,
        check: Callable[[], Health],
        *,
        host: str = LOOPBACK,
        token: str | None = None,
        open_to_all: bool = False,
    ) -> None:
        if token is None and not open_to_all and not is_loopback(host):
            raise ConfigError(
                f"metrics_host {host!r} is reached from elsewhere: name a token's file with metrics_token_file, or say "
                "metrics_open = true if everybody there may read it"
            )
        self._host = host
        self._expected = None if token is None else f"Bearer {token}".encode()
        self._registry = registry
        self._check = check
        self._http = HttpServer(host, port, self._answer, _HEADERS)
        self._pages: Final[Mapping[str, Callable[[], Answer]]] = {
            "/metrics": self._metrics,
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/livez": self._livez,
        }

    @property
    def port(self) -> int:
        """After `start` the port that is really open."""
        return self._http.port

    @classmethod
    def of(cls, settings: ServiceSettings, registry: CollectorRegistry, check: Callable[[], Health]) -> Self:
        """The server that the settings mean. Raises `ConfigError`."""
        return cls(
            settings.metrics_port,
            registry,
            check,
            host=settings.metrics_host,
            token=metrics_token(settings),
            open_to_all=settings.metrics_open,
        )

    async def start(self) -> None:
        """Open the port. Raises `OSError` when it is taken."""
        await self._http.start()

    async def stop(self) -> None:
        """Close the port and every connection to it."""
        await self._http.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _answer(self, asked: Request) -> Answer:
        refused = self._refused(asked)
        if refused is not None:
            return refused
        page = self._pages.get(asked.path)
        return page() if page is not None else plain(HTTPStatus.NOT_FOUND)

    def _refused(self, asked: Request) -> Answer | None:
        if is_loopback(self._host) and _name_of(asked.host) not in {*_LOCAL_NAMES, self._host, f"[{self._host}]"}:
            return Answer(b"this port answers only to 127.0.0.1 and localhost\n", HTTPStatus.MISDIRECTED_REQUEST)
        if self._expected is None or asked.path in _TELLS_NOTHING:
            return None
        if hmac.compare_digest(asked.authorization, self._expected):
            return None
        return Answer(
            b"this port wants `Authorization: Bearer <token>`; the token is in the part's metrics_token_file\n",
            HTTPStatus.UNAUTHORIZED,
            headers={"WWW-Authenticate": "Bearer"},
        )

    def _metrics(self) -> Answer:
        return Answer(generate_latest(self._registry), content_type=CONTENT_TYPE_LATEST)

    def _healthz(self) -> Answer:
        health = self._check()
        text = masked(json.dumps({"ok": health.ok, **health.facts}, default=str))
        return Answer(text.encode(), _status(ok=health.ok), _JSON)

    def _readyz(self) -> Answer:
        ok = self._check().ok
        return Answer(b"ready\n" if ok else b"not ready\n", _status(ok=ok))

    def _livez(self) -> Answer:
        return Answer(b"alive\n")


def _status(*, ok: bool) -> HTTPStatus:
    return HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE


def _name_of(host: str) -> str:
    """A Host header without its port. Of IPv6 addresses the colons are within brackets."""
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host
