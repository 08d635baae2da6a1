"""What the fields of each kind of event must be: bytes from a network are hostile until looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from headrace_proto.events import Kind
from headrace_proto.limits import CHANNELS_MAX, ROW_VALUES_MAX, SCHEMAS_MAX

KNOWN_KINDS: Final = frozenset(int(kind) for kind in Kind)
_TIME_MAX: Final = 1 << 64
_SIZE_MAX: Final = 1 << 53


def _time(value: Any) -> bool:
    return type(value) is int and 0 <= value < _TIME_MAX


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _SIZE_MAX


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _text_or_nil(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _channel(value: Any) -> bool:
    return type(value) is int and 0 <= value < CHANNELS_MAX


def _schema(value: Any) -> bool:
    return type(value) is int and 0 <= value < SCHEMAS_MAX


def _channels(value: Any) -> bool:
    return isinstance(value, list) and 0 < len(value) <= ROW_VALUES_MAX and all(map(_channel, value))


def _type(value: Any) -> bool:
    return type(value) is int  # another type than ours is a newer release's, and harmless


def _step(value: Any) -> bool:
    return value is None or type(value) in (int, float)


def _facts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


def is_file_reference(payload: Any) -> bool:
    """Whether a payload names a file of its source's spool."""
    return (
        isinstance(payload, dict)
        and isinstance(payload.get("file"), str)
        and _count(payload.get("size"))
        and isinstance(payload.get("sha256"), str)
    )


def _payload(value: Any) -> bool:
    return isinstance(value, (str, bytes)) or is_file_reference(value)


_SHAPES: Final[dict[int, tuple[Callable[[Any], bool], ...]]] = {
    Kind.CHANNEL: (_channel, _text, _type),
    Kind.SCHEMA: (_schema, _channels),
    Kind.TEXT: (_channel, _step, _time, _payload),
    Kind.IMAGE: (_channel, _step, _time, _payload, _facts),
    Kind.OPEN: (_time, _facts),
    Kind.CREATE: (_time, _facts),
    Kind.CLOSED: (_time, _text, _text_or_nil),
    Kind.PARAMETERS: (_time, _facts),
    Kind.PROPERTY: (_time, _text, _text_or_nil),
    Kind.TAGS: (_time, _texts, _texts),
    Kind.FACTS: (_time, _facts),
    Kind.ARTIFACT: (_time, _text, _payload, _facts),
    Kind.UNLINK: (_time, _texts),
    Kind.RESET: (_time, _text),
    Kind.GAP: (_time, _count, _text),
}


def checked_fields(kind: int, fields: list[Any]) -> None:
    """Raise `ValueError` unless `fields` are what an event of this kind has. Unknown kinds may have any.

    A hot kind or a check that comes here was not written in its fixed layout, which is part of the format.
    """
    shape = _SHAPES.get(kind)
    if shape is None:
        if kind in KNOWN_KINDS:
            raise ValueError(f"an event of kind {kind} is not in its fixed layout")
        return
    if len(fields) != len(shape):
        raise ValueError(f"an event of kind {Kind(kind).name} has {len(fields)} fields, not {len(shape)}")
    for index, (check, value) in enumerate(zip(shape, fields, strict=True), start=1):
        if not check(value):
            raise ValueError(f"field {index} of a {Kind(kind).name} is no such field: {type(value).__name__}")
