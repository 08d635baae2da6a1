"""The ticks that everything which is done again and again goes by.

Waking a processor that sleeps costs more than most of what is then done (0.2 to 0.4 ms on a small virtual machine), so parts that
wake often wake together: at multiples of their periods on one clock, a little early.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import Final

TICK_S: Final = 0.1
"""The shortest period. Others are multiples of it."""
STEADY_S: Final = 0.5
"""For what nobody waits for."""
LEAD_S: Final = 0.1
"""Collectors commit at full half seconds of the same clock, on the same machine: what is shipped then arrives just before."""
_EARLY: Final = 0.1
"""A timer may fire this share of its period before its time: the tick that follows at once is that one."""


def until_tick(period_s: float, after_s: float = 0.0) -> float:
    """Seconds to the next tick of this period, or to the first that is `after_s` away."""
    pause_s = period_s - (time.monotonic() + LEAD_S) % period_s
    if pause_s <= _EARLY * period_s:
        pause_s += period_s
    return pause_s + max(math.ceil((after_s - pause_s) / period_s), 0) * period_s


def tick_number(period_s: float, now_ns: int) -> int:
    """Which tick of this period was the last; the same early ones count as in `until_tick`."""
    return int((now_ns / 1e9 + LEAD_S + _EARLY * period_s) // period_s)


async def tick(period_s: float = STEADY_S) -> None:
    """Sleep until the next tick of this period."""
    await asyncio.sleep(until_tick(period_s))
