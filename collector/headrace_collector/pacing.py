"""When an experiment is committed: soon where somebody waits, on a grid where commits cost milliseconds, rarely where they cost
money."""

from __future__ import annotations

import math
from typing import Final

LOCAL_INTERVAL_S: Final = 0.5
"""A lone point waits half of this on average before it is written: all ticks lie on one grid, not at the point's age."""
REMOTE_INTERVAL_S: Final = 10.0
REMOTE_INTERVAL_S_MAX: Final = 60.0
PUTS_PER_S: Final = 50.0
"""Budget of a collector: 1,000 live experiments every 10 s would be 300 a second, about 130 dollars a day on S3."""
PUTS_PER_COMMIT: Final = 3
"""A part, a commit, and a row in the catalog or a fresh experiment.json."""
URGENT_S: Final = 0.1
"""For what somebody waits for: long enough to gather the frames that came with it, half of the 200 ms that it may take."""


class Pacing:
    """The clock of all commits of one collector. `live` is kept by whoever knows how many experiments there are."""

    def __init__(self, *, local: bool, interval_s: float | None = None) -> None:
        self.live = 0
        self._local = local
        self._interval_s = interval_s or (LOCAL_INTERVAL_S if local else REMOTE_INTERVAL_S)

    @property
    def interval_s(self) -> float:
        """How often an experiment is committed at present; agents are told, and batch by a tenth of it."""
        if self._local:
            return self._interval_s
        stretched = self.live * PUTS_PER_COMMIT / PUTS_PER_S
        return max(self._interval_s, min(stretched, REMOTE_INTERVAL_S_MAX))

    def due(self, now: float, *, urgent: bool = False, background: bool = False) -> float:
        """When to commit what arrived at `now`. `background` is what nobody looks at while it is the only news."""
        if urgent:
            return now + URGENT_S
        interval_s = REMOTE_INTERVAL_S_MAX if background and not self._local else self.interval_s
        return (math.floor(now / interval_s) + 1) * interval_s if self._local else now + interval_s
