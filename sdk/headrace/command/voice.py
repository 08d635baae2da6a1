"""What `headrace up` says while it serves: lines on standard error, in colour for terminals. rich would be half of the process."""

from __future__ import annotations

import os
import sys
from typing import Final

_STYLES: Final = {"good": "1;32", "note": "33", "strong": "1"}


def shown(text: object) -> str:
    """Somebody's text without the terminal's control sequences."""
    return "".join(character if character.isprintable() or character in "\n\t" else "\ufffd" for character in str(text))


class Voice:
    """Standard error. Colours are for terminals, and not for whoever wants none (https://no-color.org)."""

    def __init__(self) -> None:
        terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._coloured: Final = terminal and not os.environ.get("NO_COLOR")

    def say(self, text: str) -> None:
        """One line, or several."""
        print(text, file=sys.stderr, flush=True)

    def styled(self, style: str, text: object) -> str:
        """Somebody's text as `good`, a `note`, or `strong`."""
        told = shown(text)
        return f"\x1b[{_STYLES[style]}m{told}\x1b[0m" if self._coloured else told
