"""Thrift's compact protocol, as far as Parquet's own records need it, and only to write.

A struct is given as its fields in ascending order, each as `(number, type, encoded value)`; the functions below make those.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

TRUE: Final = 1
I16: Final = 4
I32: Final = 5
I64: Final = 6
BINARY: Final = 8
LIST: Final = 9
STRUCT: Final = 12

Field = tuple[int, int, bytes]
_SHORT_LIST: Final = 15
_SHORT_STEP: Final = 15


def varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first.

    >>> varint(300).hex()
    'ac02'
    """
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def integer(number: int) -> bytes:
    """A signed number: 0, -1, 1, -2, ... are 0, 1, 2, 3, ...

    >>> integer(-2).hex(), integer(2).hex()
    ('03', '04')
    """
    return varint(number << 1 if number >= 0 else (-number << 1) - 1)


def binary(data: bytes) -> bytes:
    """Bytes, or text in UTF-8."""
    return varint(len(data)) + data


def listed(kind: int, items: Sequence[bytes]) -> bytes:
    """Items of one type."""
    count = len(items)
    head = bytes([count << 4 | kind]) if count < _SHORT_LIST else bytes([0xF0 | kind]) + varint(count)
    return head + b"".join(items)


def struct(fields: Iterable[Field]) -> bytes:
    """A struct. Of a true boolean the type says everything, and its value is b""."""
    out = bytearray()
    last = 0
    for number, kind, value in fields:
        step = number - last
        if step > _SHORT_STEP:
            raise ValueError(f"field {number} stands more than {_SHORT_STEP} after field {last}")
        out.append(step << 4 | kind)
        out += value
        last = number
    out.append(0)
    return bytes(out)


def i16(number: int, value: int) -> Field:
    """A field of 16 bits."""
    return number, I16, integer(value)


def i32(number: int, value: int) -> Field:
    """A field of 32 bits."""
    return number, I32, integer(value)


def i64(number: int, value: int) -> Field:
    """A field of 64 bits."""
    return number, I64, integer(value)


def text(number: int, value: str | bytes) -> Field:
    """A field of bytes."""
    return number, BINARY, binary(value.encode() if isinstance(value, str) else value)


def record(number: int, fields: Iterable[Field]) -> Field:
    """A field that is a struct."""
    return number, STRUCT, struct(fields)


def many(number: int, kind: int, items: Sequence[bytes]) -> Field:
    """A field that is a list."""
    return number, LIST, listed(kind, items)
