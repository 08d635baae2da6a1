"""From what a program writes to a stream to the lines that are worth keeping. Pure: no stream, no clock.

A line ends with a newline. A progress bar rewrites its line after a carriage return, often many times a second: of those
states at most one in `PROGRESS_INTERVAL_S` is kept, and always the one that a newline or the end makes final.
"""

from __future__ import annotations

from typing import Final

from headrace_proto.limits import INLINE_BYTES_MAX

PROGRESS_INTERVAL_S: Final = 1.0
_CHARACTERS_SAFE: Final = INLINE_BYTES_MAX // 4  # UTF-8 needs at most four bytes for each


class LineCutter:
    """Cuts the text written by one thread to one stream. Whatever comes in, what it holds is at most one line piece."""

    __slots__ = ("_fragments", "_held", "_progress_at_s")

    def __init__(self) -> None:
        self._fragments: list[str] = []
        self._held = 0
        self._progress_at_s = float("-inf")

    def feed(self, text: str, now_s: float) -> list[str]:
        """The lines that `text`, written at `now_s`, completes."""
        returned = self._fragments and self._fragments[-1].endswith("\r")
        if not returned and "\n" not in text and "\r" not in text:
            return self._hold(text)
        *whole, rest = self._take(text).split("\n")
        lines: list[str] = []
        for line in whole:
            lines += self._whole(line.rstrip("\r"), now_s)
        # a trailing carriage return may be half of a "\r\n"
        tail = "\r" if rest.endswith("\r") else ""
        *states, last = rest.removesuffix("\r").split("\r")
        lines += self._progress(states, now_s)
        return lines + self._hold(last + tail)

    def flush(self) -> list[str]:
        """The line that was begun and not ended."""
        last = self._take("").rstrip("\r")
        return pieces(last) if last else []

    def _hold(self, text: str) -> list[str]:
        if text:
            self._fragments.append(text)
            self._held += len(text)
        if self._held <= INLINE_BYTES_MAX:
            return []
        *full, rest = pieces(self._take(""))
        self._fragments, self._held = [rest], len(rest)
        return full

    def _take(self, text: str) -> str:
        self._fragments.append(text)
        taken = "".join(self._fragments)
        self._fragments, self._held = [], 0
        return taken

    def _whole(self, line: str, now_s: float) -> list[str]:
        *states, last = line.split("\r")
        return self._progress(states, now_s) + (pieces(last) if last or not states else [])

    def _progress(self, states: list[str], now_s: float) -> list[str]:
        shown = [state for state in states if state.strip()]
        if not shown or now_s - self._progress_at_s < PROGRESS_INTERVAL_S:
            return []
        self._progress_at_s = now_s
        return pieces(shown[-1])


def pieces(line: str) -> list[str]:
    """`line` cut so that each piece fits into an event; nearly always itself. Never empty.

    >>> pieces("short")
    ['short']
    """
    if len(line) <= _CHARACTERS_SAFE:
        return [line]
    encoded = line.encode("utf-8", "replace")
    cut: list[str] = []
    start = 0
    while len(encoded) - start > INLINE_BYTES_MAX:
        end = start + INLINE_BYTES_MAX
        while encoded[end] & 0xC0 == 0x80:  # inside a character
            end -= 1
        cut.append(encoded[start:end].decode())
        start = end
    return [*cut, encoded[start:].decode()]
