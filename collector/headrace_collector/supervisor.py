"""Several collectors on one machine: child processes, each with leases of its own, restarted when one dies.

The parent holds nothing and touches neither broker nor store. On the first signal it asks its children to stop and waits for
them; on the second, and when they take too long, it kills them, which loses nothing. When the parent itself is killed, its
children notice and stop in good order.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

from headrace.service.pausing import comes_within

_LOG: Final = logging.getLogger(__name__)

PAUSE_S_FIRST: Final = 0.5
PAUSE_S_MAX: Final = 30.0
_WATCH_S: Final = 0.5
STEADY_S: Final = 60.0
"""A child that lived this long begins with the shortest pause again."""


async def supervise(
    command: Sequence[str], environments: Sequence[Mapping[str, str]], stop: asyncio.Event, stop_s: float
) -> None:
    """Run `command` once in each environment, until `stop` is set; then each child has `stop_s` to end."""
    async with asyncio.TaskGroup() as tasks:
        for environment in environments:
            tasks.create_task(_keep_alive(command, environment, stop, stop_s))


@contextlib.asynccontextmanager
async def ending_with(parent: int | None, stop: asyncio.Event) -> AsyncIterator[None]:
    """In a child: sets `stop` when the process `parent` is not its parent any more. Does nothing without one."""
    watching = asyncio.create_task(_watch(parent, stop)) if parent else None
    try:
        yield
    finally:
        if watching:
            watching.cancel()


async def _watch(parent: int, stop: asyncio.Event) -> None:
    while os.getppid() == parent:  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(_WATCH_S)
    stop.set()


async def _keep_alive(
    command: Sequence[str], environment: Mapping[str, str], stop: asyncio.Event, stop_s: float
) -> None:
    pause_s = PAUSE_S_FIRST
    while not stop.is_set():
        started_at = time.monotonic()
        code = await _live(command, environment, stop, stop_s)
        if stop.is_set():
            return
        pause_s = PAUSE_S_FIRST if time.monotonic() - started_at >= STEADY_S else min(pause_s * 2, PAUSE_S_MAX)
        _LOG.error("a worker ended by itself and is started again", extra={"code": code, "pause_s": pause_s})
        await comes_within(stop, pause_s)


async def _live(command: Sequence[str], environment: Mapping[str, str], stop: asyncio.Event, stop_s: float) -> int:
    """One child's whole life; its exit code."""
    child = await asyncio.create_subprocess_exec(
        *command, env=dict(environment), stdin=asyncio.subprocess.DEVNULL, start_new_session=True
    )
    ended, stopping = asyncio.ensure_future(child.wait()), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([ended, stopping], return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            child.terminate()
            await asyncio.wait([ended], timeout=stop_s)
    finally:
        stopping.cancel()
        if not ended.done():
            child.kill()
        code = await ended
    return code
