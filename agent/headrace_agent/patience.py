"""How long to wait for the store's word: before recalling it, and before asking the store itself.

A mark that was published while this agent was away, or while its link was down, is not heard; the broker remembers it, and asking
costs one small message. That comes first.

Nothing of a journal is sent again because time has passed: in an hour of an outage of the store that would repeat, with every
impatience, what the stream holds already. A frame without bytes asks instead, and only a collector that misses something, or a
stream that was seen to be younger than it should be, has it sent. (A file's chunks, which nobody else would ask for, are sent
again, ever more rarely.)
"""

from __future__ import annotations

from typing import Final

CURIOSITY_S: Final = 2.0
"""Until the broker is asked for the newest mark that it remembers."""
PATIENCE_S: Final = 60.0
"""Until the store is asked, or a file is sent again."""
PATIENCE_S_MAX: Final = 30 * 60.0
INTERVALS: Final = 4
"""A collector that commits every 60 s is not late after 60."""


class Patience:
    """Told how far the store is, says when to act; first after `first_s` without a step, then after twice as long, and so on."""

    def __init__(self, now_s: float, first_s: float = PATIENCE_S, max_s: float = PATIENCE_S_MAX) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._since_s = now_s
        self._stored = -1
        self._wait_s = first_s

    def exhausted(self, now_s: float, stored: int, *, outstanding: bool, interval_s: float = 1.0) -> bool:
        """Whether it is time to act, because the stream has more than is `stored`; each time doubles the next."""
        if stored != self._stored or not outstanding:
            self._stored = stored
            self._since_s = now_s
            self._wait_s = max(self._first_s, INTERVALS * interval_s)
            return False
        if now_s - self._since_s < self._wait_s:
            return False
        self._since_s = now_s
        self._wait_s = min(2 * self._wait_s, self._max_s)
        return True
