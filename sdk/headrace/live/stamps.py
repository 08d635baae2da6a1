"""The times of what a document says: the greatest stamp decides, so within a process they never go back, as its clock may."""

from __future__ import annotations

from time import time_ns

_last_ns = 0


def stamp_ns() -> int:
    """Now, or just after the stamp before when the clock was set back since.

    Without a lock, because a signal handler may log: two threads at once may get the same, and then their places in the journal
    decide; or, while the clock is behind, one may get an older one than the other just got.
    """
    global _last_ns
    _last_ns = max(time_ns(), _last_ns + 1)
    return _last_ns
