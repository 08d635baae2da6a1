"""Cancellations that CPython 3.11 loses.

`asyncio.wait_for`, with which nats-py awaits every answer, forgets a cancellation that comes together with the answer; and a
TaskGroup that is cancelled while it ends with errors raises only the errors. Both leave the task's count of cancellations as
it was, so a loop that asks for it once a turn cannot run on for ever.
"""

from __future__ import annotations

import asyncio


def stay_cancelled() -> None:
    """Raise `CancelledError` if this task was cancelled and went on all the same."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
