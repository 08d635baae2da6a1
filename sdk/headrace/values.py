"""What a caller gives, as what an event holds: parameters, properties, steps and times, each refused where it is given."""

from __future__ import annotations

from math import isfinite

from headrace_proto import names
from headrace_proto.errors import InvalidValue
from headrace_proto.names import PROPERTY_BYTES_MAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Final

_INTEGER_MAX: Final = (1 << 64) - 1
_INTEGER_MIN: Final = -(1 << 63)
_TIME_US_MAX: Final = (1 << 63) // 1_000
"""Nanoseconds fit 63 bits until the year 2262."""
_DEPTH_MAX: Final = 32
"""Of a nested parameter: msgpack itself stops at 511, with an error that names nothing."""


def parameter(name: str, value: Any) -> Any:
    """The value of the parameter `name` as JSON has values: numbers, text, truth, None, lists and mappings of them.

    NumPy's numbers become Python's; what is of no such type is kept as its text; what is a secret is masked. Raises
    `InvalidValue` when it is too large.
    """
    from headrace.secrets import masked_value

    kept = _plain(value, name, 0)
    if parameter_size(kept) > PROPERTY_BYTES_MAX:
        raise InvalidValue(
            f"the parameter {name!r} is larger than {PROPERTY_BYTES_MAX} bytes: log it as an artifact, and its digest here"
        )
    return masked_value("parameter", name, kept)


def parameters(given: Any) -> dict[str, Any]:
    """A mapping of parameters, checked."""
    return {name: parameter(name, value) for name, value in named("parameter", given).items()}


def properties(given: Any) -> dict[str, str]:
    """A mapping of properties, checked."""
    return {name: property_text(name, value) for name, value in named("property", given).items()}


def fixed_parameter(name: str, kept: Any, given: Any) -> InvalidValue:
    """The refusal to change a parameter that the experiment was created with."""
    return InvalidValue(
        f"the parameter {name!r} was fixed at creation as {kept!r:.80}: log {given!r:.80} under another name, or as a property"
    )


def named(what: str, given: Any, separator: str | None = None) -> dict[str, Any]:
    """A mapping with names that can be kept, each of them once; with a `separator` mappings in it are flattened."""
    if not hasattr(given, "items"):
        raise InvalidValue(f"a {what} has a name and a value: give a mapping of them, not {given!r:.80}")
    found: dict[str, Any] = {}
    for name, value in _pairs(given, separator):
        if names.key(name, what) in found:
            raise InvalidValue(f"the {what} {name!r} is given twice: leave out one of its values")
        found[name] = value
    return found


def _pairs(given: Any, separator: str | None, prefix: str = "") -> Iterator[tuple[Any, Any]]:
    for name, value in given.items():
        if separator is not None and isinstance(value, dict) and value:
            yield from _pairs(value, separator, f"{prefix}{name}{separator}")
        else:
            yield (f"{prefix}{name}" if separator is not None else name), value


def _plain(value: Any, name: str, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int):
        return int(value) if _INTEGER_MIN <= value <= _INTEGER_MAX else str(value)
    if isinstance(value, float):
        return float(value)
    if depth == _DEPTH_MAX:
        raise InvalidValue(f"the parameter {name!r} is nested more than {_DEPTH_MAX} deep")
    if isinstance(value, dict):
        return {_text(str(key)): _plain(item, name, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, name, depth + 1) for item in value]
    if getattr(value, "shape", None) == () and hasattr(value, "item"):  # a number of NumPy, or a tensor of one element
        return _plain(value.item(), name, depth + 1)
    return _text(str(value))


def parameter_size(value: Any) -> int:
    """About the bytes of a parameter's value in JSON."""
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, dict):
        return sum(len(key.encode()) + parameter_size(item) + 2 for key, item in value.items())
    if isinstance(value, list):
        return sum(parameter_size(item) + 1 for item in value)
    return 9


def property_text(name: str, value: Any) -> str:
    """The text that the property `name` is kept as: `str(value)`, as Neptune's, without the secrets in it."""
    from headrace.secrets import masked_value

    return str(masked_value("property", name, _bounded_text(f"the property {name!r}", value)))


def _bounded_text(what: str, value: Any) -> str:
    text = _text(str(value))
    if len(text.encode()) > PROPERTY_BYTES_MAX:
        raise InvalidValue(f"{what} is larger than {PROPERTY_BYTES_MAX} bytes: log it as an artifact")
    return text


def optional_text(what: str, value: Any) -> str | None:
    """`value`, which must be text if it is given, without the secrets in it."""
    if value is not None and not isinstance(value, str):
        raise InvalidValue(f"{what} must be a str, not {value!r:.80} of type {type(value).__name__}")
    if value is None:
        return None
    from headrace.secrets import masked_text

    return masked_text(_bounded_text(what, value))


def _text(value: str) -> str:
    """`value` as UTF-8 can hold it: a lone surrogate, from a file name for instance, becomes a question mark."""
    return str(value) if value.isascii() else value.encode("utf-8", "replace").decode()


def text_value(channel: str, value: Any) -> str:
    """The value of a text channel."""
    if not isinstance(value, str):
        raise InvalidValue(
            f"{channel!r}: a text channel takes a str, not {value!r:.80} of type {type(value).__name__}: log str(...) of it"
        )
    return _text(value)


def as_float(value: Any) -> float | None:
    """What `float` makes of a value, None when it is no number. A text is none, whatever it spells."""
    if isinstance(value, str | bytes):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def metric_value(channel: str, value: Any) -> float:
    """The value of a numeric channel."""
    return _number(channel, "value", value)


def step_number(channel: str, step: Any) -> float | None:
    """A step as a number; None stays None. NaN and infinity are numbers here: they are the caller's to drop."""
    return None if step is None else _number(channel, "step", step)


def _number(channel: str, what: str, given: Any) -> float:
    number = as_float(given)
    if number is None:
        raise InvalidValue(f"{channel!r}: the {what} {given!r:.80} of type {type(given).__name__} is not a number")
    return number


def has_place(step: float | None) -> bool:
    """Whether a point with this step can be put into order."""
    return step is None or isfinite(step)


def timestamp_ns(timestamp: Any) -> int:
    """Unix time in seconds as nanoseconds, to the microsecond: a float of today's times has no more."""
    seconds = as_float(timestamp)
    # neither NaN nor an infinity is below a bound, and neither can be rounded
    time_us = round(seconds * 1_000_000) if seconds is not None and abs(seconds) < _TIME_US_MAX else -1
    if 0 <= time_us < _TIME_US_MAX:
        return time_us * 1_000
    raise InvalidValue(f"the timestamp {timestamp!r:.80} is not Unix time in seconds, such as time.time() gives")
