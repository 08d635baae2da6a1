"""stdout and stderr, seen on their way: a wrapper in `sys` that passes everything through and hands a copy to sinks.

It works at Python's level, as Neptune's did: what C code, child processes, `os.write` or `sys.stdout.buffer` print is not seen.
What was flushed is in the journal, whatever ends the process, but for the last second of a line that is rewritten or grows.
Invariants: whatever the sinks do, the program's own write has happened first and returns what it returned; a write made by a
sink itself, or by a signal handler that interrupted one, is kept for after it; no lock is taken, so that neither a fork nor a
signal can leave one taken.
"""

from __future__ import annotations

import os
import sys
from _thread import get_ident
from time import monotonic

from headrace.capture.lines import LineCutter
from headrace.secrets import KeyLines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Final

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

    def flush(self) -> None:
        """Flush the wrapped stream; what it now shows of an unfinished line is worth keeping, should this be the end."""
        self.stream.flush()
        for sink in self.sinks:
            sink.flushed()

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
        self._work(writer)

    def flushed(self) -> None:
        """Log what this thread has begun and not ended: it may be the last that is heard of it. Never raises either."""
        writer = self._writers.get(get_ident())
        if writer is not None:
            writer.waiting.append(None)
            self._work(writer)

    def _work(self, writer: _Writer) -> None:
        if writer.busy:
            return
        writer.busy = True
        try:
            for _ in range(_REENTRANT_MAX):
                text = writer.waiting.pop(0)
                now_s = writer.wrote_s = monotonic()
                self._keep(writer, writer.cutter.flushed(now_s) if text is None else writer.cutter.feed(text, now_s))
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
        writers = sorted(self._writers.values(), key=lambda writer: writer.wrote_s)
        for writer in writers:
            if writer is writers[-1] or not writer.cutter.is_rewriting:  # else another thread has drawn over it
                self._keep(writer, writer.cutter.flush())
        self._writers = {}

    def _keep(self, writer: _Writer, lines: list[str]) -> None:
        for line in lines:
            if not writer.key_lines.hide(line):
                self._log(line)

    def forget(self) -> None:
        """In a forked child: what was begun is the parent's to end."""
        self._writers = {}


class _Writer:
    """What one thread has written to one stream and not ended."""

    __slots__ = ("busy", "cutter", "key_lines", "waiting", "wrote_s")

    def __init__(self) -> None:
        self.cutter: Final = LineCutter()
        self.key_lines: Final = KeyLines()
        self.waiting: Final[list[str | None]] = []  # what was written; None for a flush
        self.busy = False
        self.wrote_s = 0.0


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
