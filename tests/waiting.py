"""How tests wait: on a condition, never on the clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from threading import Event
from typing import Literal, TypeVar

_Value = TypeVar("_Value")
_POLL_S = 0.02


def wait_until(condition: Callable[[], _Value | Literal[False] | None], what: str, timeout_s: float = 30.0) -> _Value:
    """The first true value of `condition`; an AssertionError that says `what` did not happen when none comes in time."""
    deadline = time.monotonic() + timeout_s
    pause = Event()
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"after {timeout_s:g} s still not true: {what}")
        pause.wait(_POLL_S)


async def until(condition: Callable[[], _Value | Literal[False] | None], what: str, timeout_s: float = 30.0) -> _Value:
    """`wait_until` for tests whose subject runs in the same event loop."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"after {timeout_s:g} s still not true: {what}")
        await asyncio.sleep(_POLL_S)
    return value


async def until_awaited(
    condition: Callable[[], Awaitable[_Value | Literal[False] | None]], what: str, timeout_s: float = 30.0
) -> _Value:
    """`until` for a condition that must itself be awaited, such as a question to a broker."""
    deadline = time.monotonic() + timeout_s
    while not (value := await condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"after {timeout_s:g} s still not true: {what}")
        await asyncio.sleep(_POLL_S)
    return value
