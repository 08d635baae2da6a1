"""A lock that costs the hot path 15 ns and not 90: whoever takes the one token out of a deque has it.

A deque's `pop` and `append` are atomic, and several times cheaper than a lock's `acquire(False)` and `release`, which parse
arguments. (A list's are 5 ns cheaper still; but at the very end of the stack CPython 3.11 may let its `pop` through and not its
`append`, and the token would be lost.) Only who finds the deque empty waits, in a queue. When the first in the queue has waited for
long enough, the token goes to it instead of back to the deque, so that a thread in a tight loop cannot starve the others. If it
always did, each call of two such threads would wait for a switch between them.

To leave the queue by another's hand is to have the token: one atomic step, so that at each moment the token is in the deque, or
with a frame that can be named (`Waiter.may_have`, and the callers' own). A thread that has it may be without the interpreter for
seconds; that must not look like a token that is lost.

The hot path writes it out: `take()` raises `IndexError` when another has the turn; `give(None)`, or `hand_over()` while `waiting`,
ends it.
"""

from __future__ import annotations

from _thread import allocate_lock
from collections import deque
from contextlib import suppress
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

_LOOK_S: Final = 0.005
"""How soon who waits looks again: for a token that was given back in the very moment in which the waiting began."""
_LOOK_MAX_S: Final = 0.1
PATIENCE_S: Final = 0.005
"""How long a thread may lose the race for the token: as long as the interpreter lets a thread run on."""
_LOST_S: Final = 0.25
"""How long the first in the queue waits before it asks whether anybody has the turn at all."""


class Waiter:
    """One wait of one thread."""

    __slots__ = ("_bell", "looks", "queued", "since")

    def __init__(self) -> None:
        self.since: Final = monotonic()
        self.looks = self.queued = False
        self._bell: Final = allocate_lock()
        self._bell.acquire()

    def wake(self) -> None:
        """End its sleep, or its next one."""
        with suppress(RuntimeError):  # it was woken before
            self._bell.release()

    def sleep(self, timeout_s: float) -> None:
        """Sleep until woken, or for so long."""
        self._bell.acquire(timeout=timeout_s)

    def may_have(self, turn: Turn) -> bool:
        """Whether it may have the token by now. Once it has, this is never False again."""
        return self.looks or self not in turn.waiting


class Turn:
    """One token: in the deque, or with whoever has the turn."""

    __slots__ = ("give", "take", "waiting")

    def __init__(self) -> None:
        free: deque[None] = deque([None])
        self.take: Final[Callable[[], None]] = free.pop
        self.give: Final[Callable[[None], None]] = free.append
        self.waiting: Final[deque[Waiter]] = deque()

    def acquire(self, timeout_s: float) -> bool:
        """Wait for the turn; False when it could not be had in time."""
        return self.wait(Waiter(), timeout_s, lambda: False)

    def wait(self, waiter: Waiter, timeout_s: float, is_lost: Callable[[], bool]) -> bool:
        """The same, as this waiter. `is_lost` says whether nobody who is inside, or waits, has the token.

        An exception from a signal handler leaves no token with nobody but where it strikes between two steps: then the next one
        who waits finds it lost. It never makes a second one.
        """
        pause_s = _LOOK_S
        try:
            self.waiting.append(waiter)
            waiter.queued = True
            while not self._has(waiter):
                waited_s = monotonic() - waiter.since
                if waited_s >= timeout_s:
                    return not self._leave(waiter)
                if waited_s >= _LOST_S and self._is_first(waiter) and is_lost():
                    # It may have lain in the deque then, put there by one who had not seen us: that happens once in a wait.
                    if self._has(waiter):
                        break
                    if is_lost():
                        self._leave(waiter)
                        break
                waiter.sleep(min(timeout_s - waited_s, pause_s))
                pause_s = min(2 * pause_s, _LOOK_MAX_S)
        except BaseException:
            if not self._leave(waiter) and waiter.queued:
                self.release()
            raise
        return True

    def _has(self, waiter: Waiter) -> bool:
        """Whether the waiter has the token: from the deque, or by another's hand."""
        waiter.looks = True
        try:
            self.take()
        except IndexError:
            waiter.looks = False
            return waiter not in self.waiting
        self._leave(waiter)
        return True

    def _is_first(self, waiter: Waiter) -> bool:
        """Only one waiter may replace a lost token: the first. To the next, one that has left the queue may have it."""
        try:
            return self.waiting[0] is waiter
        except IndexError:
            return False

    def _leave(self, waiter: Waiter) -> bool:
        """Leave the queue; False when the waiter was not in it any more."""
        try:
            self.waiting.remove(waiter)
        except ValueError:
            return False
        return True

    def release(self) -> None:
        """End the turn."""
        if self.waiting:
            self.hand_over()
        else:
            self.give(None)

    def hand_over(self) -> None:
        """End the turn in favour of whoever has waited longest. After PATIENCE_S the waiter is given the token; before, it is woken
        and must be quicker than we are."""
        try:
            first = self.waiting[0]
            if monotonic() - first.since < PATIENCE_S:
                self.give(None)
            else:
                first = self.waiting.popleft()
        except IndexError:  # it has just gone
            self.give(None)
            return
        first.wake()  # struck down before this, it finds out at its next look
