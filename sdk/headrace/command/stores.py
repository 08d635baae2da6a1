"""Which store a command means."""

from __future__ import annotations

import os


def absolute_store(url: str) -> str:
    """A store's URL; a plain path made absolute, because children and other commands have other working folders."""
    return url if "://" in url else os.path.abspath(os.path.expanduser(url))
