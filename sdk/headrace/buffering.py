"""`with headrace.buffered():` gathers the changes of stored experiments into one commit each."""

from __future__ import annotations

from _thread import _local  # not threading: every trainer's import would pay for it

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final, Self

_thread: Final = _local()


class buffered:  # noqa: N801 - called like the function that it stands for
    """Commit the changes that this thread makes in the block when the block ends, also when an exception ends it.

    Of each stored experiment all changes together become one commit (as many as fit: some thousands, or 16 MiB), in their order.
    Until then nobody sees them, not even this thread. A block within a block belongs to the outer one. Live experiments, which
    journal, are not concerned.
    """

    def __init__(self) -> None:
        self._changes: dict[Any, tuple[Callable[[list[Any]], None], list[Any]]] = {}
        self._outer: buffered | None = None

    def __enter__(self) -> Self:
        self._outer = current()
        if self._outer is None:
            _thread.buffer = self
        return self

    def __exit__(self, *_: object) -> None:
        if self._outer is not None:
            return
        _thread.buffer = None
        faults: list[Exception] = []
        for commit, changes in self._changes.values():
            try:
                commit(changes)
            except Exception as error:  # the others' changes must not be lost with these
                faults.append(error)
        self._changes = {}
        if faults:
            raise faults[0]

    def add(self, key: Any, commit: Callable[[list[Any]], None], change: Any) -> None:
        """Keep a change of what `key` stands for until the block ends."""
        self._changes.setdefault(key, (commit, []))[1].append(change)


def current() -> buffered | None:
    """The block that this thread is in."""
    return getattr(_thread, "buffer", None)
