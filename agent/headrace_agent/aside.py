"""Work for a thread because the disk may keep it waiting, or hang. Nobody waits for that thread at the end: for one of an executor
the interpreter does, and a disk that hangs would keep the agent from stopping."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

_Result = TypeVar("_Result")


class NoThread(RuntimeError):
    """The system gives no more threads."""


async def aside(work: Callable[[], _Result], name: str) -> _Result:
    """What `work()` returns, or raises, in a thread of this name. Raises `NoThread`."""
    answer: Future[_Result] = Future()
    answer.set_running_or_notify_cancel()  # whoever no longer waits does not stop it

    def run() -> None:
        try:
            answer.set_result(work())
        except Exception as error:  # it is for whoever waits to judge
            answer.set_exception(error)

    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except RuntimeError as error:
        raise NoThread(str(error)) from None
    return await asyncio.wrap_future(answer)
