"""Work for a thread because the disk may keep it waiting, or hang. Nobody waits for that thread at the end: for one of an executor
the interpreter does, and a disk that hangs would keep the agent from stopping."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

_Result = TypeVar("_Result")


class NoThread(RuntimeError):
    """The system gives no more threads."""


async def aside(work: Callable[[], _Result], name: str) -> _Result:
    """What `work()` returns, or raises, in a thread of this name. Raises `NoThread`."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[_Result] = loop.create_future()

    def tell(how: Callable[[], None]) -> None:
        if not answer.done():  # nobody may wait any more
            how()

    def run() -> None:
        how: Callable[[], None]
        try:
            result = work()
        except Exception as error:  # it is for who waits to judge
            failure = error
            how = lambda: answer.set_exception(failure)  # noqa: E731
        else:
            how = lambda: answer.set_result(result)  # noqa: E731
        with suppress(RuntimeError):  # the loop is closed: the agent has stopped meanwhile
            loop.call_soon_threadsafe(tell, how)

    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except RuntimeError as error:
        raise NoThread(str(error)) from None
    return await answer
