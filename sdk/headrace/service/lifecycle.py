"""How a long-running part starts and stops.

SIGINT and SIGTERM ask once: `main` sees its event set, drains what it must and returns. A second signal cancels it, for the
one who will not wait; nothing is lost then either, because the journal keeps what no commit holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import signal
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
STARTED_S: Final = 3.0
"""By then everything is imported and connected."""


def run_service(main: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run `main(stop)` to its end, on uvloop where there is one. Errors of `main` come through."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner, contextlib.suppress(asyncio.CancelledError):
        runner.run(_supervised(main))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _give_back_memory() -> None:
    """Starting leaves 2 to 3 MiB free that glibc keeps, a twentieth of an agent at rest. Other libraries keep less."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


async def _supervised(main: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    stop = asyncio.Event()
    task: asyncio.Future[Any] = asyncio.ensure_future(main(stop))
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            task.cancel()
        stop.set()

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, on_signal)
    giving_back = loop.call_later(STARTED_S, _give_back_memory)
    try:
        await task
    finally:
        giving_back.cancel()
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)
