"""What the parts say of themselves while they live: counters of many short lives, added up."""

from __future__ import annotations

import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

TIMEOUT_S = 0.3


class Counters:
    """The counters of one part over all of its lives. What a life counted after the last look at it is not seen."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._past: Counter[str] = Counter()
        self._now: Counter[str] = Counter()

    def look(self) -> bool:
        """Read the counters. Whether the part answered."""
        page = f"http://127.0.0.1:{self.port}/metrics"
        with suppress(OSError), urllib.request.urlopen(page, timeout=TIMEOUT_S) as answer:
            self._now = Counter(dict(_counters(answer.read().decode())))
            return True
        return False

    def died(self) -> None:
        """The part counts from zero again."""
        self._past += self._now
        self._now = Counter()

    def total(self, name: str) -> int:
        """The sum over all labels of the counter `name`."""
        both = self._past + self._now
        return int(sum(value for key, value in both.items() if key.partition("{")[0] == name))


def _counters(page: str) -> Iterator[tuple[str, float]]:
    for line in page.splitlines():
        name, _, value = line.rpartition(" ")
        if name.partition("{")[0].endswith("_total") and not line.startswith("#"):
            yield name, float(value)
