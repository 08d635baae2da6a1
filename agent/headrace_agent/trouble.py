"""Trouble that comes again and again: told at once, and then ever more rarely, with how often it came meanwhile."""

from __future__ import annotations

import logging
import time
from math import inf
from typing import Final

PAUSE_S_MIN: Final = 60.0
PAUSE_S_MAX: Final = 3600.0


class Trouble:
    """One kind of trouble, whoever has it. After PAUSE_S_MAX without any the next is told at once, as the first was."""

    def __init__(self, log: logging.Logger) -> None:
        self._log: Final = log
        self._came_s = -inf
        self._next_s = -inf
        self._pause_s = PAUSE_S_MIN
        self._untold = 0

    def tell(self, text: str, *arguments: object, times: int = 1, now_s: float | None = None) -> bool:
        """It came so many times more: warn of it, if it is time to; whether it was. Of `arguments` the newest are shown."""
        now_s = time.monotonic() if now_s is None else now_s
        if now_s - self._came_s > PAUSE_S_MAX:
            self._next_s, self._pause_s = -inf, PAUSE_S_MIN
        self._came_s = now_s
        self._untold += times
        if now_s < self._next_s:
            return False
        self._next_s = now_s + self._pause_s
        self._pause_s = min(2 * self._pause_s, PAUSE_S_MAX)
        told, self._untold = self._untold, 0
        if told > 1:
            text, arguments = f"{text} (%d times since this was said last)", (*arguments, told)
        self._log.warning(text, *arguments)
        return True
