"""Whose turn it is: a frame below us in this thread, another thread, or nobody any more.

The hot path does not note its owner (that would cost 40 ns a call); the interpreter's own stacks say it when it matters.
"""

from __future__ import annotations

import sys
from types import CodeType, FrameType


def holds(writer: object, codes: frozenset[CodeType], waiting: CodeType, frame: FrameType | None) -> bool:
    """Whether `frame`, or one below it, is a method of `writer` that runs in its thread's turn.

    A frame that only waits for the turn (its callee is `waiting`) does not count.
    """
    waits = False
    while frame is not None:
        code = frame.f_code
        if code is waiting:
            waits = True
        elif code in codes:
            if not waits and frame.f_locals.get("self") is writer:
                return True
            waits = False
        frame = frame.f_back
    return False


def held_by_nobody(writer: object, codes: frozenset[CodeType], waiting: CodeType) -> bool:
    """Whether no thread at all is inside a method of `writer` that runs in its thread's turn.

    Then an exception from a signal handler (KeyboardInterrupt) struck between the taking and its `try`.
    """
    return not any(holds(writer, codes, waiting, frame) for frame in sys._current_frames().values())  # noqa: SLF001
