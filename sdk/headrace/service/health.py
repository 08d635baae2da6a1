"""What a long-running part tells its operator over HTTP: /metrics for Prometheus, /healthz for probes and people.

It listens on the loopback interface unless told otherwise, shows no event, name or value of anyone's experiment, and changes
nothing. On the loopback interface it answers only requests that name it so: a web page that resolves its own name to
127.0.0.1 must not read it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from types import TracebackType

LOOPBACK: Final = "127.0.0.1"
_LOCAL_NAMES: Final = frozenset({LOOPBACK, "localhost", "[::1]"})
_JSON: Final = "application/json"


class Health(NamedTuple):
    """How a part is: `ok` decides between 200 and 503, `facts` is shown with it."""

    ok: bool
    facts: Mapping[str, Any] = {}


class HealthServer:
    """Serves `registry` and `check()` until stopped. Start once; stopping twice is fine."""

    def __init__(
        self, port: int, registry: CollectorRegistry, check: Callable[[], Health], *, host: str = LOOPBACK
    ) -> None:
        self.port = port  # after `start`: the port that is really open
        self._host = host
        self._registry = registry
        self._check = check
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Open the port. Raises `OSError` when it is taken."""
        app = web.Application(middlewares=[self._named_rightly])
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
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
    async def _named_rightly(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if self._host == LOOPBACK and request.host.rsplit(":", 1)[0] not in _LOCAL_NAMES:
            raise web.HTTPMisdirectedRequest(text="this port answers only to 127.0.0.1 and localhost\n")
        return await handler(request)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _healthz(self, _: web.Request) -> web.Response:
        health = self._check()
        text = json.dumps({"ok": health.ok, **health.facts}, default=str)
        return web.Response(text=text, status=200 if health.ok else 503, content_type=_JSON)
