"""Whose turn it is: a fair order over sources, in which what is new never waits behind what is old.

Two rings of sources, `live` (all that is pending fits one batch) and `backlog`, take turns; within a ring each source has one
batch, then goes to its end. So a source that was just written to waits for at most one batch of a backlog for each live source
before it, however many gigabytes others have to catch up with, and a thousand sources with a backlog advance alike.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

Key = TypeVar("Key")


class Turns(Generic[Key]):
    """A source is in one ring at most, at the place where it was first offered."""

    def __init__(self) -> None:
        self._live: OrderedDict[Key, None] = OrderedDict()
        self._backlog: OrderedDict[Key, None] = OrderedDict()
        self._live_next = True

    def __len__(self) -> int:
        return len(self._live) + len(self._backlog)

    def __contains__(self, key: Key) -> bool:
        return key in self._live or key in self._backlog

    def offer(self, key: Key, *, backlog: bool) -> None:
        """`key` has something to send. Offered again, it keeps its place, unless it changes its ring."""
        mine, other = (self._backlog, self._live) if backlog else (self._live, self._backlog)
        if key not in mine:
            other.pop(key, None)
            mine[key] = None

    def withdraw(self, key: Key) -> None:
        """`key` has nothing to send any more."""
        self._live.pop(key, None)
        self._backlog.pop(key, None)

    def take(self, *, backlog: bool = True) -> Key | None:
        """The next to have a turn, taken out of its ring; None when nobody waits. Without `backlog` only what is live has turns."""
        first, second = (self._live, self._backlog) if self._live_next else (self._backlog, self._live)
        ring = (first or second) if backlog else self._live
        if not ring:
            return None
        self._live_next = ring is not self._live
        return ring.popitem(last=False)[0]
