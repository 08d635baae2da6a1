"""How tests wait: on a condition, never on the clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event
from typing import TypeVar

_Value = TypeVar("_Value")
_POLL_S = 0.02


def wait_until(condition: Callable[[], _Value], what: str, timeout_s: float = 30.0) -> _Value:
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
