"""The gate of a journal: one thread at a time passes, and nobody waits for a frame of its own.

A signal handler (or a finaliser) may log while its thread is inside a call here: it finds the turn taken, and a wait would never
end. Nobody notes who has the turn (that would cost each call 40 ns); the interpreter's own stacks say it when it matters.
"""

from __future__ import annotations

import os
import sys
from _thread import allocate_lock
from math import inf
from time import monotonic

from headrace_proto.journal import reentry
from headrace_proto.journal.tape import Tape
from headrace_proto.journal.turn import Turn, Waiter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import ClassVar, Final

_FORKED_WAIT_S: Final = 0.1
_KEPT_S: Final = 60.0
"""No fork lasts longer: one that never let go was struck down by an exception from a signal handler."""
_renewing: Final = allocate_lock()


class Gate(Tape):
    """A tape whose methods are called by several threads, by signal handlers, and in children."""

    _passing: ClassVar[frozenset[CodeType]] = frozenset()
    """The methods that run in their thread's turn."""

    def _new_turn(self) -> None:
        self._kept: list[float] = []  # until when at most each fork keeps threads out
        self._turn = Turn()
        self._turn_of = os.getpid()  # the process whose threads it keeps apart

    def hold(self, timeout_s: float) -> bool:
        """Keep every thread out, for a fork."""
        self._kept.append(monotonic() + _KEPT_S)
        if self._turn.acquire(timeout_s):
            return True
        self._kept.pop()
        return False

    def let_go(self) -> None:
        """Let threads in again."""
        self._turn.release()
        self._kept.pop()

    def _begin(self) -> Turn | None:
        """Take the turn, as the hot methods do. It is ended by whoever took it, and on this very object: a child has another."""
        turn = self._turn
        try:
            turn.take()
        except IndexError:
            return self._wait_for_turn()
        return turn

    def _wait_for_turn(self) -> Turn | None:
        """Take the turn that another has. None when a frame of this thread has it: only another source can take the event."""
        if reentry.is_below(self, self._passing, sys._getframe()):
            return None
        if self._turn_of != os.getpid():
            self._renew_turn()
        turn = self._turn
        waiter = Waiter()  # by this name `reentry` finds it
        turn.wait(waiter, inf, lambda: self._is_lost(turn))
        return turn

    def _is_lost(self, turn: Turn) -> bool:
        """Whether an exception from a handler struck between the taking and the `try`."""
        if any(until > monotonic() for until in self._kept):
            return False
        return reentry.held_by_nobody(self, turn, self._passing, _WAITING)

    def _renew_turn(self) -> None:
        """After a fork made in C a thread that is not here may have the turn. One that is here ends it soon."""
        if self._turn.acquire(_FORKED_WAIT_S):
            self._turn.release()
            return
        if _renewing.acquire(timeout=_FORKED_WAIT_S):
            try:
                if self._turn_of != os.getpid():
                    self.forked()
            finally:
                _renewing.release()

    def forked(self) -> None:
        """In a forked child: nobody can have the turn here, and the next call begins a new source."""
        self._new_turn()
        self._limit[0] = 0


_WAITING: Final[CodeType] = Gate._wait_for_turn.__code__  # noqa: SLF001
