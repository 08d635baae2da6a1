"""Making bad inputs of good ones: a small seeded mutator that knows what our formats are made of."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

INPUT_BYTES_MAX: Final = 1024 * 1024
_INTERESTING: Final = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    1 << 31,
    (1 << 32) - 1,
    1 << 62,
    (1 << 63) - 1,
    (1 << 64) - 1,
)
_TOKENS: Final = (
    *(
        bytes((tag,))
        for tag in (0x80, 0x8F, 0x90, 0x91, 0x95, 0x9F, 0xC0, 0xC1, 0xC4, 0xC5, 0xCA, 0xCB, 0xCF, 0xD3, 0xD9)
    ),
    *(bytes((tag, 0xFF, 0xFF, 0xFF, 0xFF)) for tag in (0xC6, 0xC9, 0xDB, 0xDD, 0xDF)),
    b"\x91" * 600,
    b"\x81\xa1a" * 600,
    b"\x80" * 4096,
    b"\x00" * 512,
    b"\xff" * 64,
    b"\xc0\xaf../..\x00",
    b"NaN",
    b"1e999",
    b"-1",
    b"[" * 3000,
    b'{"a":' * 1500,
    b'"\\ud800"',
    b"\x28\xb5\x2f\xfd",
    b"PAR1",
)


def mutated(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """`data` after a few small changes, which may take pieces of `others`."""
    for _ in range(1 << chance.randrange(5)):
        data = chance.choice(_CHANGES)(data, others, chance)
    return data[:INPUT_BYTES_MAX]


def _place(data: bytes, chance: random.Random) -> int:
    """Anywhere, but more often near an end, where headers and trailers are."""
    near = min(len(data), 64)
    way = chance.randrange(4)
    if way == 0:
        return chance.randrange(near + 1)
    return len(data) - chance.randrange(near + 1) if way == 1 else chance.randrange(len(data) + 1)


def _flip(data: bytes, _: Sequence[bytes], chance: random.Random) -> bytes:
    at = _place(data, chance)
    return data[:at] + bytes((data[at] ^ 1 << chance.randrange(8),)) + data[at + 1 :] if at < len(data) else data


def _number(data: bytes, _: Sequence[bytes], chance: random.Random) -> bytes:
    width, at, value = chance.choice((1, 2, 4, 8)), _place(data, chance), chance.choice(_INTERESTING)
    packed = (value & (1 << 8 * width) - 1).to_bytes(width, chance.choice(("little", "big")))
    return data[:at] + packed + data[at + width :]


def _insert(data: bytes, _: Sequence[bytes], chance: random.Random) -> bytes:
    at = _place(data, chance)
    return data[:at] + chance.choice(_TOKENS) + data[at:]


def _overwrite(data: bytes, _: Sequence[bytes], chance: random.Random) -> bytes:
    at, token = _place(data, chance), chance.choice(_TOKENS)
    return data[:at] + token + data[at + len(token) :]


def _delete(data: bytes, _: Sequence[bytes], chance: random.Random) -> bytes:
    at = _place(data, chance)
    return data[:at] + data[at + (1 << chance.randrange(13)) :]


def _cut(data: bytes, _: Sequence[bytes], chance: random.Random) -> bytes:
    return data[: _place(data, chance)]


def _repeat(data: bytes, _: Sequence[bytes], chance: random.Random) -> bytes:
    at, size = _place(data, chance), 1 << chance.randrange(12)
    return data[:at] + data[at : at + size] * chance.randrange(2, 40) + data[at + size :]


def _splice(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    other = chance.choice(others)
    return data[: _place(data, chance)] + other[_place(other, chance) :]


def _noise(data: bytes, _: Sequence[bytes], chance: random.Random) -> bytes:
    at, size = _place(data, chance), chance.randrange(1, 40)
    return data[:at] + chance.randbytes(size) + data[at + size :]


_CHANGES: Final[tuple[Callable[[bytes, Sequence[bytes], random.Random], bytes], ...]] = (
    _flip, _flip, _flip, _number, _number, _insert, _overwrite, _delete, _cut, _repeat, _splice, _noise,
)  # fmt: skip
