"""From what a program writes to a stream to the lines that are worth keeping. Pure: no stream, no clock.

A line ends with a newline. A progress bar rewrites its line after a carriage return, and bars below one another go up with the
cursor to rewrite theirs, often many times a second: of those states at most one in `PROGRESS_INTERVAL_S` is kept, and always
those that a newline or the end makes final. What is flushed without a newline ("Loading ...") is meant to be seen now, and may be
the last that is ever heard: it is kept at once, under the same bound, and what ends the line later follows as a piece of its own.
"""

from __future__ import annotations

import re

from headrace_proto.limits import INLINE_BYTES_MAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

PROGRESS_INTERVAL_S: Final = 1.0
_CHARACTERS_SAFE: Final = INLINE_BYTES_MAX // 4  # UTF-8 needs at most four bytes for each
_ROWS_MAX: Final = 100
"""Rows that a program may go up. More is no progress display, and not worth remembering."""
_ESCAPE: Final = "\x1b["
_END: Final = re.compile(r"\r*\n|\r(?!\r*\Z)|\x1b\[(\d*)A")
"""A newline; a carriage return, unless it may become half of a newline; so many rows up."""
_INVISIBLE: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-ln-z]")
"""What moves the cursor or erases. Colours (`m`) are part of the text."""


class LineCutter:
    """Cuts the text written by one thread to one stream. Whatever comes in, what it holds is at most one line piece a row."""

    __slots__ = ("_begun", "_fragments", "_held", "_progress_at_s", "_rewritten", "_rows", "_up")

    def __init__(self) -> None:
        self._fragments: list[str] = []
        self._held = 0
        self._progress_at_s = float("-inf")
        self._begun = False  # a piece of this line is kept already
        self._rewritten = False  # this line has had a carriage return
        self._up = 0  # rows that the cursor is above the lowest
        self._rows: dict[int, str] = {}  # what stands in the rows above and is not kept yet, by their distance

    @property
    def is_rewriting(self) -> bool:
        """Whether what was begun and not ended is a state of a line, with others before it."""
        return self._rewritten

    def feed(self, text: str, now_s: float) -> list[str]:
        """The lines that `text`, written at `now_s`, completes."""
        returned = self._fragments and self._fragments[-1].endswith("\r")
        if not returned and "\n" not in text and "\r" not in text and _ESCAPE not in text:
            return self._hold(text)
        taken = self._take(text)
        lines: list[str] = []
        start = 0
        for end in _END.finditer(taken):
            row, start = taken[start : end.start()], end.end()
            if end[0].endswith("\n"):
                lines += self._newline(row, now_s)
            else:
                lines += self._state(row, now_s)
                self._up = min(self._up + int(end[1] or 1), _ROWS_MAX) if end[0].endswith("A") else self._up
        return lines + self._hold(taken[start:])

    def flushed(self, now_s: float) -> list[str]:
        """The stream was flushed at `now_s`: the line that was begun and not ended, unless one was kept a moment ago."""
        if not self._held or now_s - self._progress_at_s < PROGRESS_INTERVAL_S:
            return []
        begun = "".join(self._fragments)
        self._fragments = [begun]
        shown = _visible(begun.rstrip("\r"))
        if not shown.strip():
            return []
        self._fragments, self._held = [], 0
        self._hold("\r" if begun.endswith("\r") else "")
        self._progress_at_s, self._begun = now_s, True
        return pieces(shown)

    def flush(self) -> list[str]:
        """The lines that were begun and not ended."""
        last = _visible(self._take("").rstrip("\r"))
        return self._rows_above() + (pieces(last) if last.strip() or (last and not self._rewritten) else [])

    def _hold(self, text: str) -> list[str]:
        if text:
            self._fragments.append(text)
            self._held += len(text)
        if self._held <= INLINE_BYTES_MAX:
            return []
        *full, rest = pieces(self._take(""))
        self._fragments, self._held, self._begun = [rest], len(rest), True
        return full

    def _take(self, text: str) -> str:
        self._fragments.append(text)
        taken = "".join(self._fragments)
        self._fragments, self._held = [], 0
        return taken

    def _newline(self, row: str, now_s: float) -> list[str]:
        if self._up:  # down, over a row that may be written again
            lines = self._state(row, now_s)
            if row.strip() and not lines:
                self._rows[self._up] = row
            self._up -= 1
            self._begun = self._rewritten = False
            return lines
        line = _visible(row)
        kept = bool(line.strip()) if self._rewritten or self._begun else True
        self._begun = self._rewritten = False
        return self._rows_above() + (pieces(line) if kept else [])

    def _state(self, row: str, now_s: float) -> list[str]:
        """What `row` shows before it is written again."""
        self._rewritten = True
        state = _visible(row)
        if state and not state.strip():  # wiped
            self._rows.pop(self._up, None)
        if not state.strip() or now_s - self._progress_at_s < PROGRESS_INTERVAL_S:
            return []
        self._progress_at_s, self._begun = now_s, True
        self._rows.pop(self._up, None)
        return pieces(state)

    def _rows_above(self) -> list[str]:
        rows, self._rows = self._rows, {}
        return [piece for row in sorted(rows, reverse=True) for piece in pieces(_visible(rows[row]))]


def _visible(row: str) -> str:
    return _INVISIBLE.sub("", row) if _ESCAPE in row else row


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
