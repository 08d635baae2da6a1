"""What happens to writers when their process forks: no event is split, and no turn stays taken in the child."""

from __future__ import annotations

import os
from _weakrefset import WeakSet  # not weakref: every trainer's import would pay for it

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Forkable(Protocol):
        """What a writer does for a fork."""

        def hold(self, timeout_s: float) -> bool:
            """Keep every thread out; False if that could not be had in time."""
            ...

        def let_go(self) -> None:
            """Let threads in again, in the parent."""
            ...

        def forked(self) -> None:
            """Begin anew, in the child."""
            ...


_FORK_WAIT_S = 0.5
"""How long a fork waits for a call in another thread; such a call lasts microseconds, unless this very thread is inside it."""

_writers: WeakSet[Forkable] = WeakSet()
_held: list[Forkable] = []


def watch(writer: Forkable) -> None:
    """Take care of `writer` at every fork, as long as it lives."""
    _register()
    _writers.add(writer)


_registered = False


def _register() -> None:
    global _registered
    if not _registered:  # there is no way to unregister
        _registered = True
        os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)


def _before() -> None:
    _held.extend(writer for writer in list(_writers) if writer.hold(_FORK_WAIT_S))


def _after_in_parent() -> None:
    while _held:
        _held.pop().let_go()


def _after_in_child() -> None:
    _held.clear()
    for writer in list(_writers):
        writer.forked()
