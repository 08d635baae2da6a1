"""What is recorded without being asked for: output, uncaught exceptions, a logger's records, the repository, the sources.

Each part is a plain function or class over the standard library, imports what it needs only when it is used, and never
raises into the program that it watches.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

CAPTURE_VARIABLE: Final = "HEADRACE_CAPTURE"
"""`fd`, set by `headrace run --capture fd`: the output is kept already, and a program is not to keep it a second time."""
