"""What the parts say of themselves while they live: counters of many short lives, added up."""

from __future__ import annotations

import re
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Final

TIMEOUT_S: Final = 0.3
_PORT: Final = re.compile(r"(?:serves figures port=|metrics on port )(\d+)")


class Counters:
    """The counters of one part over all of its lives. What a life counted after the last look at it is not seen.

    Where they are, each life says in its `log`: a port that was chosen before might be somebody else's by then.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._told = 0  # bytes of the log that are of earlier lives
        self._past: Counter[str] = Counter()
        self._now: Counter[str] = Counter()

    def look(self) -> bool:
        """Read the counters. Whether the part answered."""
        with suppress(OSError, HTTPException, IndexError):
            port = _PORT.findall(self._log.read_bytes()[self._told :].decode(errors="replace"))[-1]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=TIMEOUT_S) as answer:
                self._now = Counter(dict(_counters(answer.read().decode())))
            return True
        return False

    def died(self) -> None:
        """The part counts from zero again."""
        self._told = self._log.stat().st_size
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
