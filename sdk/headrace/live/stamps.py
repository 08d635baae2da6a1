"""The times of what a document says: the greatest stamp decides, so within a process they never go back, as its clock may."""

from __future__ import annotations

from time import time_ns

_last_ns = 0


def stamp_ns() -> int:
    """Now, or just after the stamp before when the clock was set back since. (Two threads may get the same: their places in the
    journal then decide.)"""
    global _last_ns
    _last_ns = max(time_ns(), _last_ns + 1)
    return _last_ns
