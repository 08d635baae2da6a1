"""Unreliable links: one proxy before the broker for each part, all in one thread, so that whoever makes faults need not await."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from tests.faults.proxy import Proxy


class Links:
    """`with Links(url, names) as links`: the part `name` connects to `links.url(name)`."""

    def __init__(self, upstream: str, names: Iterable[str]) -> None:
        self._proxies = {name: Proxy(upstream) for name in names}
        self._loop = asyncio.new_event_loop()
        self._open = threading.Event()
        self._closing = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=[self._serve()], name="links")

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._open.wait(10), "the proxies do not open"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._closing.set)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        async with AsyncExitStack() as stack:
            for proxy in self._proxies.values():
                await stack.enter_async_context(proxy)
            self._open.set()
            await self._closing.wait()

    def _call(self, action: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(action)

    def url(self, name: str) -> str:
        """Where the part `name` finds the broker."""
        return self._proxies[name].url

    def cut(self, name: str) -> None:
        """Reset the part's connections."""
        self._call(self._proxies[name].cut)

    def break_(self, name: str, how: str) -> None:
        """Make the link `deaf` (acknowledgements are eaten) or `silent` (a black hole)."""
        self._call(lambda: setattr(self._proxies[name], how, True))

    def mend(self, name: str, how: str) -> None:
        """Make it work again; one that was deaf has lost sentences, so its connections are reset."""
        self._call(lambda: setattr(self._proxies[name], how, False))
        if how == "deaf":
            self.cut(name)
