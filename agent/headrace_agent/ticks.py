"""The ticks that everything which is done again and again goes by.

Waking a processor that sleeps costs more than most of what is then done (0.1 ms on a small virtual machine), so parts that wake
often wake together: at multiples of their periods on one clock.
"""

from __future__ import annotations

import asyncio
from typing import Final

TICK_S: Final = 0.1
"""The shortest period. Others are multiples of it."""
_EARLY: Final = 0.1
"""A timer may fire this share of its period before its time: the tick that follows at once is that one."""


async def tick(period_s: float = TICK_S) -> None:
    """Sleep until the loop's clock shows the next multiple of `period_s`."""
    pause_s = period_s - asyncio.get_running_loop().time() % period_s
    await asyncio.sleep(pause_s if pause_s > _EARLY * period_s else pause_s + period_s)
