"""How far backlogs may run ahead of the store.

An agent is several times faster than a collector. Without this a backlog of gigabytes would be in the stream within seconds, up to
the stream's limit, and what anyone logs meanwhile would stand behind all of it: the stream keeps its order (35 s were seen to
lie there). So backlogs wait, in the journals, where the newest can overtake the old, once the stream holds what the store
takes in LEASH_S. That grows by itself while the store keeps up: bytes stored a second, times LEASH_S.

A store that says nothing leads nobody: then the stream takes all that it has room for, as a second place where it is safe.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from headrace_proto.limits import MIB

LEASH_S: Final = 2.0
"""What is logged anew waits for this long behind backlogs, and the fastest path needs less to be busy all the time."""
LEASH_BYTES_MIN: Final = 16 * MIB
"""Raw: half a million points, as many as fill a commit. A fast path earns more within a second."""
SILENCE_S: Final = 10.0
INTERVALS: Final = 4
"""A collector that commits every 60 s is not silent after 10, and needs more than LEASH_S on its way."""


class Leash:
    """Told what is stored and what is on its way, says whether backlogs have to wait. Raw bytes; seconds of any one clock."""

    def __init__(self) -> None:
        self.held = False
        self.loose = False  # set it to hold nothing back any more
        self._steps: deque[tuple[float, int]] = deque()
        self._interval_s = 0.0
        self._heard_s = float("-inf")

    def stored(self, gain: int, interval_s: float, now_s: float) -> None:
        """The store has `gain` bytes more, by a collector that commits every `interval_s`."""
        self._heard_s = now_s
        self._interval_s = interval_s
        if gain > 0:
            self._steps.append((now_s, gain))

    def look(self, ahead: int, now_s: float) -> bool:
        """Whether backlogs have to wait, with `ahead` bytes sent that are not stored."""
        span_s = max(SILENCE_S, INTERVALS * self._interval_s)
        while self._steps and now_s - self._steps[0][0] > span_s:
            self._steps.popleft()
        speaks = now_s - self._heard_s <= span_s
        self.held = speaks and not self.loose and ahead > self._length(now_s)
        return self.held

    def _length(self, now_s: float) -> float:
        """Bytes that may be on their way."""
        if not self._steps:
            return LEASH_BYTES_MIN
        seconds = max(now_s - self._steps[0][0], 1.0, self._interval_s)
        rate = sum(gain for _, gain in self._steps) / seconds
        return max(LEASH_BYTES_MIN, rate * max(LEASH_S, 2 * self._interval_s))
