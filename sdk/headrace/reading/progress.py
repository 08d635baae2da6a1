"""How far a download has come: told to whoever asks, or shown on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final, Self

from headrace_proto.errors import InvalidValue
from headrace_proto.limits import MIB

Progress = Callable[[int, int], object] | bool | None
"""A function of (bytes done, bytes in all); True to show it, False not to; None shows large downloads on a terminal."""

SHOWN_FROM_BYTES: Final = 32 * MIB
"""Below this a download is over before a line about it could be read."""
_STEP: Final = 100
"""A line is drawn at most this often in a download."""


class Meter:
    """Counts the bytes of one download."""

    def __init__(self, what: str, total: int, progress: Progress = None) -> None:
        """`total` bytes are to come. Raises `InvalidValue` when `progress` is nothing that can be told."""
        if progress is not None and not isinstance(progress, bool) and not callable(progress):
            raise InvalidValue(f"progress must be a function of (done, total), True or False, not {progress!r:.80}")
        self._what: Final = what
        self._total: Final = total
        self._done = 0
        self._drawn = -1
        self._tell: Callable[[int, int], object] | None = None
        if progress is None:
            progress = total >= SHOWN_FROM_BYTES and sys.stderr is not None and sys.stderr.isatty()
        if callable(progress):
            self._tell = progress
        elif progress:
            self._tell = self._draw

    def add(self, count: int) -> None:
        """So many bytes more are done."""
        self._done += count
        if self._tell is not None:
            self._tell(self._done, self._total)

    def _draw(self, done: int, total: int) -> None:
        step = done * _STEP // max(total, 1)
        if step != self._drawn:
            self._drawn = step
            sys.stderr.write(f"\r{self._what}: {done / MIB:.0f} of {total / MIB:.0f} MiB")
            sys.stderr.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._drawn >= 0:
            sys.stderr.write("\n")
