"""A watch on the order of arguments: other libraries take the value before the step, and a mix-up would be stored in silence."""

from __future__ import annotations

from headrace_proto.warning import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

WATCHED_CALLS: Final = 256
"""Of a process; after them the hot path goes straight to the journal."""
_COUNTED: Final = 3
"""Values 0, 1, 2 in a row, under steps with fractions: those are steps and values, exchanged."""


class OrderWatch:
    """Stands before `point` for the first calls with both a step and a value."""

    def __init__(self, point: Callable[[str, Any, Any, int], None], done: Callable[[], None]) -> None:
        self._point: Final = point
        self._done: Final = done
        self._calls = 0
        self._counted: Final[dict[str, int]] = {}
        self._fractions: Final[set[str]] = set()

    def __call__(self, name: str, x: Any, y: Any, time_ns: int) -> None:
        """Log the point, then look at it."""
        self._point(name, x, y, time_ns)
        self._calls += 1
        if self._calls >= WATCHED_CALLS:
            self._done()
        if x is not None:
            self._look(name, float(x), float(y))

    def _look(self, name: str, x: float, y: float) -> None:
        counted = self._counted.get(name, 0)
        if counted < 0 or y != counted:
            self._counted[name] = -1  # not a count
            return
        if not x.is_integer():
            self._fractions.add(name)
        self._counted[name] = counted + 1
        if counted + 1 == _COUNTED:
            self._counted[name] = -1
            if name in self._fractions:
                warn(
                    f"log_metric({name!r}, x, y): the steps have fractions while the values count 0, 1, 2. If they are exchanged, "
                    f"write log_metric({name!r}, value, step=step)"
                )
