"""How long to wait for the store before sending again without having been asked.

Sending again is cheap to get wrong: in an hour of an outage of the store every impatience repeats what the stream holds already.
So time is only the last resort, behind a collector's request and a stream that was seen to be younger than it should be; and it
doubles.
"""

from __future__ import annotations

from typing import Final

PATIENCE_S: Final = 60.0
PATIENCE_S_MAX: Final = 30 * 60.0
INTERVALS: Final = 4
"""A collector that commits every 60 s is not late after 60."""


class Patience:
    """Told how far the store is, says when to send again."""

    def __init__(self, now_s: float) -> None:
        self._since_s = now_s
        self._stored = -1
        self._wait_s = PATIENCE_S

    def exhausted(self, now_s: float, stored: int, *, outstanding: bool, interval_s: float = 1.0) -> bool:
        """Whether it is time to send again from `stored`, because the stream has more; each time doubles the next."""
        if stored != self._stored or not outstanding:
            self._stored = stored
            self._since_s = now_s
            self._wait_s = max(PATIENCE_S, INTERVALS * interval_s)
            return False
        if now_s - self._since_s < self._wait_s:
            return False
        self._since_s = now_s
        self._wait_s = min(2 * self._wait_s, PATIENCE_S_MAX)
        return True
