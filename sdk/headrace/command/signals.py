"""Signals as events of a loop. A process that supervises others blocks what it waits for and takes signals one at a time, so that
none can interrupt it half-way, and no thread is needed."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable, Collection
from typing import Final

STOP: Final = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
SI_KERNEL: Final = 0x80
"""`si_code` of a signal that the kernel made; of SIGINT and SIGQUIT: a key on the terminal, sent to its whole foreground."""
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None)


def block(signals: Collection[signal.Signals]) -> None:
    """From now on these signals wait until `take` asks for them. Children get none of this (`in_child`)."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)


def take(signals: Collection[signal.Signals], timeout_s: float) -> signal.struct_siginfo | None:
    """The next of these signals that arrives within the time."""
    return signal.sigtimedwait(signals, max(timeout_s, 0.0))


def in_child(*, ends_with_parent: bool) -> Callable[[], None]:
    """What a child does between fork and exec: unblock signals, and tie its life to ours where it should not outlive us.

    The tie is SIGTERM at the parent's death, so that a supervisor that is killed leaves no process behind.
    """
    parent = os.getpid()

    def prepare() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if ends_with_parent:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if os.getppid() != parent:  # it died before the tie was made
                os.kill(os.getpid(), signal.SIGTERM)

    return prepare
