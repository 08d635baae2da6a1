"""The gate of a journal: one thread at a time passes, and nobody waits for a frame of its own.

A signal handler (or a finaliser) may log while its thread is inside a call here: it finds the turn taken, and a wait would never
end. Nobody notes who has the turn (that would cost each call 40 ns); the interpreter's own stacks say it when it matters.
"""

from __future__ import annotations

import os
import sys
from _thread import allocate_lock
from types import CodeType
from typing import ClassVar, Final

from headrace_proto.journal import reentry
from headrace_proto.journal.tape import Tape
from headrace_proto.journal.turn import Turn

_WAIT_S: Final = 1.0
_FORKED_WAIT_S: Final = 0.1
_RESCUE_S: Final = 0.01
_rescue: Final = allocate_lock()


class Gate(Tape):
    """A tape whose methods are called by several threads, by signal handlers, and in children."""

    _passing: ClassVar[frozenset[CodeType]] = frozenset()
    """The methods that run in their thread's turn."""

    def _new_turn(self) -> None:
        self._turn = Turn()
        self._turn_of = os.getpid()  # the process whose threads it keeps apart

    def hold(self, timeout_s: float) -> bool:
        """Keep every thread out, for a fork."""
        return self._turn.acquire(timeout_s)

    def let_go(self) -> None:
        """Let threads in again."""
        self._turn.release()

    def _begin(self) -> Turn | None:
        """Take the turn, as the hot methods do. It is ended by who took it, and on this very object: a child has another."""
        turn = self._turn
        try:
            turn.take()
        except IndexError:
            return self._wait_for_turn()
        return turn

    def _wait_for_turn(self) -> Turn | None:
        """Take the turn that another has. None when a frame of this thread has it: only another source can take the event."""
        if reentry.holds(self, self._passing, _WAITING, sys._getframe()):  # noqa: SLF001
            return None
        if self._turn_of != os.getpid():
            self._renew_turn()
        turn = self._turn
        while not turn.acquire(_WAIT_S):
            with _rescue:
                if self._is_lost() and (turn.acquire(_RESCUE_S) or self._is_lost()):
                    break  # an exception from a handler struck between the taking and the `try`
        return turn

    def _is_lost(self) -> bool:
        return reentry.held_by_nobody(self, self._passing, _WAITING)

    def _renew_turn(self) -> None:
        """After a fork made in C a thread that is not here may have the turn. One that is here ends it soon."""
        if self._turn.acquire(_FORKED_WAIT_S):
            self._turn.release()
            return
        with _rescue:
            if self._turn_of != os.getpid():
                self.forked()

    def forked(self) -> None:
        """In a forked child: nobody can have the turn here, and the next call begins a new source."""
        self._new_turn()
        self._limit[0] = 0


_WAITING: Final[CodeType] = Gate._wait_for_turn.__code__  # noqa: SLF001
