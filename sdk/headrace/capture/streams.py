"""stdout and stderr, seen on their way: a wrapper in `sys` that passes everything through and hands a copy to sinks.

It works at Python's level, as Neptune's did: what C code, child processes or `os.write` print is not seen (`headrace run` sees
those). Invariants: whatever the sinks do, the program's own write has happened first and returns what it returned; a write
made by a sink itself, or by a signal handler that interrupted one, is kept for after it; no lock is taken, so that neither a fork
nor a signal can leave one taken.
"""

from __future__ import annotations

import os
import sys
from _thread import get_ident
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from headrace.capture.lines import LineCutter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_REENTRANT_MAX: Final = 100
"""Texts that one write may cause in turn. A sink whose every line makes it print would otherwise never come to an end."""


class CapturedStream:
    """What stands in `sys.stdout` or `sys.stderr`. Everything but writing is the wrapped stream's own."""

    def __init__(self, stream: Any) -> None:
        self.stream: Final = stream
        self.sinks: tuple[LineSink, ...] = ()

    def write(self, text: str) -> int:
        """Write to the wrapped stream, then show the sinks."""
        written: int = self.stream.write(text)
        for sink in self.sinks:
            sink.take(text)
        return written

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each of `lines`."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        if name == "stream":  # on its way to being copied it has none yet
            raise AttributeError(name)
        return getattr(self.stream, name)

    def __iter__(self) -> Any:
        return iter(self.stream)


class LineSink:
    """Takes the text of one stream for one experiment and logs it line by line."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log: Final = log
        self._writers: dict[int, _Writer] = {}
        self._process = os.getpid()
        _sinks.add(self)

    def take(self, text: str) -> None:
        """Log the lines that `text` completes. Never raises: a print must not fail because of us."""
        writer = self._writers.get(get_ident()) or self._writers.setdefault(get_ident(), _Writer())
        writer.waiting.append(text)
        if writer.busy:
            return
        writer.busy = True
        try:
            for _ in range(_REENTRANT_MAX):
                for line in writer.cutter.feed(writer.waiting.pop(0), monotonic()):
                    self._log(line)
                if not writer.waiting:
                    break
        except Exception:  # the program's own output has been written; that is all that it may notice
            pass
        finally:
            writer.waiting.clear()
            writer.busy = False

    def close(self) -> None:
        """Log the lines that were begun and not ended, and take no more."""
        _sinks.discard(self)
        for writer in list(self._writers.values()):
            for line in writer.cutter.flush():
                self._log(line)
        self._writers = {}

    def forget(self) -> None:
        """In a forked child: what was begun is the parent's to end."""
        self._writers = {}


class _Writer:
    """What one thread has written to one stream and not ended."""

    __slots__ = ("busy", "cutter", "waiting")

    def __init__(self) -> None:
        self.cutter: Final = LineCutter()
        self.waiting: Final[list[str]] = []
        self.busy = False


_sinks: set[LineSink] = set()


def _after_fork() -> None:
    for sink in tuple(_sinks):
        sink.forget()


os.register_at_fork(after_in_child=_after_fork)


def capture(name: str, log: Callable[[str], None]) -> Callable[[], None]:
    """Log every line that is written to `sys.<name>` from now on. The function that is returned ends it."""
    stream = getattr(sys, name)
    if stream is None:  # a daemon without streams
        return lambda: None
    if not isinstance(stream, CapturedStream):
        stream = CapturedStream(stream)
        setattr(sys, name, stream)
    sink = LineSink(log)
    stream.sinks = (*stream.sinks, sink)

    def release() -> None:
        stream.sinks = tuple(other for other in stream.sinks if other is not sink)
        if (
            not stream.sinks and getattr(sys, name) is stream
        ):  # else somebody wrapped ours: it stays, and only passes through
            setattr(sys, name, stream.stream)
        sink.close()

    return release
