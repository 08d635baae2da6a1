"""Waiting for an event, for so long. Not by `asyncio.wait_for`, which may forget a cancellation (`headrace.service.cancelling`)."""

from __future__ import annotations

import asyncio


async def comes_within(event: asyncio.Event, limit_s: float | None) -> bool:
    """Wait until the event is set, at most so long; whether it was. None waits for as long as it takes."""
    try:
        async with asyncio.timeout(limit_s):
            await event.wait()
    except TimeoutError:
        return event.is_set()  # it may have come together with the end of the wait
    return True
