"""Whose turn it is: a frame below us in this thread, another thread, or nobody any more.

The hot path does not note its owner (that would cost 40 ns a call); the interpreter's own stacks say it when it matters.
"""

from __future__ import annotations

import sys

from headrace_proto.journal.turn import Turn, Waiter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType, FrameType


def is_below(writer: object, codes: frozenset[CodeType], frame: FrameType | None) -> bool:
    """Whether the method of `writer` that `frame` is in has interrupted another one, in this very thread.

    That one has the turn or, if it only waits for it, will be given it before us: neither ends before we do.
    """
    inside = False  # the first one found is the call itself
    while frame is not None:
        if frame.f_code in codes:
            if inside and frame.f_locals.get("self") is writer:
                return True
            inside = True
        frame = frame.f_back
    return False


def held_by_nobody(writer: object, turn: Turn, codes: frozenset[CodeType], waiting: CodeType) -> bool:
    """Whether no thread at all is inside a method of `writer` that runs in its thread's turn, or has been given it while it waited
    (in `waiting`, as `waiter`).

    Then an exception from a signal handler (KeyboardInterrupt) struck between the taking and its `try`. The frames are those of one
    moment, and what they say of it stays true of them while we look: so the answer is of one moment, too.
    """
    if sys.is_finalizing():  # no other thread will ever run again
        return True
    return not any(_has_turn(writer, turn, codes, waiting, frame) for frame in sys._current_frames().values())


def _has_turn(
    writer: object, turn: Turn, codes: frozenset[CodeType], waiting: CodeType, frame: FrameType | None
) -> bool:
    waits = False
    for one in _methods(writer, codes | {waiting}, frame):
        if one.f_code is waiting:
            waiter = one.f_locals.get("waiter")
            if isinstance(waiter, Waiter) and waiter.may_have(turn):
                return True
            waits = True
        elif waits:
            waits = False
        else:
            return True
    return False


def _methods(writer: object, codes: frozenset[CodeType], frame: FrameType | None) -> Iterator[FrameType]:
    """The frames of these methods of `writer`, from `frame` down."""
    while frame is not None:
        if frame.f_code in codes and frame.f_locals.get("self") is writer:
            yield frame
        frame = frame.f_back
