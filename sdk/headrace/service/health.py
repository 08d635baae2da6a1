"""What a long-running part tells its operator over HTTP: /metrics for Prometheus, /healthz for probes and people.

It listens on the loopback interface unless told otherwise, shows no event, name or value of anyone's experiment, and changes
nothing. On the loopback interface it answers only requests that name it so: a web page that resolves its own name to
127.0.0.1 must not read it. On any other it wants a token (`token`), as `Authorization: Bearer ...`: what is shown tells hosts,
folders and loads. /livez and /readyz, for orchestrators that can send none, say nothing but "alive" and "ready" by their status.
"""

from __future__ import annotations

import hmac
import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from headrace.service.ports import LOOPBACK
from headrace.service.secrets import masked
from headrace.service.token import is_loopback, metrics_token
from headrace_proto.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from types import TracebackType

    from headrace.service.settings import ServiceSettings

_LOCAL_NAMES: Final = frozenset({LOOPBACK, "localhost", "[::1]"})
_JSON: Final = "application/json"
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
        self.port = port  # after `start`: the port that is really open
        self._host = host
        self._expected = None if token is None else f"Bearer {token}".encode()
        self._registry = registry
        self._check = check
        self._runner: web.AppRunner | None = None

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
        app = web.Application(middlewares=[self._guarded])
        app.on_response_prepare.append(_harden)
        for path, handler in (
            ("/metrics", self._metrics),
            ("/healthz", self._healthz),
            ("/readyz", self._readyz),
            ("/livez", self._livez),
        ):
            app.router.add_get(path, handler)
        runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self.port).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        self.port = int(runner.addresses[0][1])

    async def stop(self) -> None:
        """Close the port and every connection to it."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @web.middleware
    async def _guarded(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if is_loopback(self._host) and _name_of(request.host) not in {*_LOCAL_NAMES, self._host, f"[{self._host}]"}:
            raise web.HTTPMisdirectedRequest(text="this port answers only to 127.0.0.1 and localhost\n")
        if self._expected is not None and request.path not in _TELLS_NOTHING:
            shown = request.headers.get("Authorization", "").encode(errors="replace")
            if not hmac.compare_digest(shown, self._expected):
                raise web.HTTPUnauthorized(
                    headers={"WWW-Authenticate": "Bearer"},
                    text="this port wants `Authorization: Bearer <token>`; the token is in the part's metrics_token_file\n",
                )
        return await handler(request)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _healthz(self, _: web.Request) -> web.Response:
        health = self._check()
        text = masked(json.dumps({"ok": health.ok, **health.facts}, default=str))
        return web.Response(text=text, status=200 if health.ok else 503, content_type=_JSON)

    async def _readyz(self, _: web.Request) -> web.Response:
        ok = self._check().ok
        return web.Response(text="ready\n" if ok else "not ready\n", status=200 if ok else 503)

    async def _livez(self, _: web.Request) -> web.Response:
        return web.Response(text="alive\n")


def _name_of(host: str) -> str:
    """A Host header without its port. Of IPv6 addresses the colons are within brackets."""
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


async def _harden(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)
    response.headers.popall("Server", None)
