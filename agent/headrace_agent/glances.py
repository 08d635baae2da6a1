"""When a sleeping source is looked at: more sources than descriptors means that most of them are closed most of the time."""

from __future__ import annotations

from typing import Final

PERIOD_NS: Final = 1_000_000_000
LONG_NS: Final = 3_000_000_000
"""A reader proves that a writer is gone only after it has seen the journal rest for 2 s: every so often a glance lasts longer."""
LONG_EVERY: Final = 16


class Glances:
    """A glance a second at each sleeper, every sixteenth of them a long one."""

    def __init__(self) -> None:
        self._next_ns: dict[str, int] = {}
        self._until_ns: dict[str, int] = {}
        self._count: dict[str, int] = {}

    def due(self, source: str, now_ns: int) -> bool:
        """Whether it is time to open this source again."""
        return now_ns >= self._next_ns.get(source, 0)

    def begin(self, source: str, now_ns: int) -> None:
        """The source is open from now on."""
        count = self._count[source] = self._count.get(source, 0) + 1
        self._next_ns[source] = now_ns + PERIOD_NS
        self._until_ns[source] = now_ns + (LONG_NS if count % LONG_EVERY == 0 else 0)

    def may_end(self, source: str, now_ns: int) -> bool:
        """Whether the source has been looked at for long enough."""
        return now_ns >= self._until_ns.get(source, 0)

    def forget(self, source: str) -> None:
        """The source is gone."""
        for table in (self._next_ns, self._until_ns, self._count):
            table.pop(source, None)
