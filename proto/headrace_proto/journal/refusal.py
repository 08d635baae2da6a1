"""What a caller is told whose point was refused: `struct` says only that something is no number, here it is found out what."""

from __future__ import annotations

from headrace_proto import names
from headrace_proto.errors import HeadraceError, InvalidValue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final

_STANDING: Final = (HeadraceError, RecursionError, MemoryError)
"""Errors that say what is wrong, and nothing about an argument."""


def point_refusal(error: Exception, name: Any, value: Any, step: Any, time_ns: Any) -> Exception:
    """The error to raise for a point: which of its arguments was wrong. One of ours or of the machine stands as it is."""
    if isinstance(error, _STANDING):
        return error
    names.channel_name(name)
    for what, number in (("step", step), ("value", value)):
        if not _is_number(number):
            return InvalidValue(f"{name!r}: the {what} {number!r} of type {type(number).__name__} is not a number")
    return InvalidValue(f"{name!r}: the time {time_ns!r} is not a count of nanoseconds since 1970")


def row_refusal(error: Exception, values: Mapping[str, float], step: Any, time_ns: Any) -> Exception:
    """The same for a row: it names the first value that is wrong."""
    if isinstance(error, _STANDING):
        return error
    for name, value in values.items():
        if not _is_number(value):
            return point_refusal(error, name, value, 0, 0)
    return point_refusal(error, next(iter(values), "row"), 0, 0 if step is None else step, time_ns)


def _is_number(value: Any) -> bool:
    if isinstance(value, (str, bytes)):
        return False
    try:
        float(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True
