"""Waiting for an event for so long: what comes with the end of the wait has come."""

from __future__ import annotations

import asyncio

from headrace.service.pausing import comes_within


async def test_an_event_that_comes_as_the_wait_ends_has_come() -> None:
    """The timer has cancelled the wait already, and the waiter has not run yet: whoever clears the event now would forget it."""
    event = asyncio.Event()
    waiting = asyncio.create_task(comes_within(event, 0.0))
    await asyncio.sleep(0)  # it waits, and its timer goes off next
    asyncio.get_running_loop().call_soon(event.set)
    assert await waiting


async def test_an_event_that_does_not_come_has_not_come() -> None:
    """And one that has come before is not waited for."""
    event = asyncio.Event()
    assert not await comes_within(event, 0.0)
    event.set()
    assert await comes_within(event, None)
