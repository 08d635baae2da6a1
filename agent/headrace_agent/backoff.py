"""Pauses after failures, one rule for all."""

from __future__ import annotations

import random
from typing import Final

PAUSE_S_MIN: Final = 0.05
PAUSE_S_MAX: Final = 5.0
"""A full stream or a broker without its stream is asked again this often at most; a node's backlog is in no hurry."""


class Backoff:
    """A pause that grows with each failure in a row, jittered so that agents do not return as one."""

    def __init__(self, least_s: float = PAUSE_S_MIN, most_s: float = PAUSE_S_MAX, growth: float = 2.0) -> None:
        """The pauses add up to the last one / (`growth` - 1): with a small growth less time is slept away after an outage."""
        self._least_s = least_s
        self._most_s = most_s
        self._growth = growth
        self._failures = 0

    def succeeded(self) -> None:
        """The next failure is the first again."""
        self._failures = 0

    def failed(self) -> float:
        """How long to pause after this failure, in seconds."""
        pause_s = min(self._least_s * self._growth ** min(self._failures, 100), self._most_s)
        self._failures += 1
        return pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, hides nothing
