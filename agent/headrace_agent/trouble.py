"""Trouble that comes again and again: told at once, and then ever more rarely, with how often it came meanwhile."""

from __future__ import annotations

from math import inf
from typing import Final

PAUSE_S_MIN: Final = 60.0
PAUSE_S_MAX: Final = 3600.0


class Trouble:
    """When to tell of one kind of trouble. After PAUSE_S_MAX without any the next is told at once, as the first was."""

    def __init__(self) -> None:
        self._came_s = -inf
        self._next_s = -inf
        self._pause_s = PAUSE_S_MIN
        self._untold = 0

    def came(self, now_s: float, times: int = 1) -> int:
        """It came so many times more. How often since it was told last, when it is to be told now; else 0."""
        if now_s - self._came_s > PAUSE_S_MAX:
            self._next_s, self._pause_s = -inf, PAUSE_S_MIN
        self._came_s = now_s
        self._untold += times
        if now_s < self._next_s:
            return 0
        self._next_s = now_s + self._pause_s
        self._pause_s = min(2 * self._pause_s, PAUSE_S_MAX)
        told, self._untold = self._untold, 0
        return told
