"""What a source says with its n-th call: everything is a function of (source, sequence), so that a store can be judged without
having seen what went in.

A number carries its column, source and sequence, mixed so that no bit of it stands where it stood: a value that was cut, shifted
or flipped names a call that nobody made. Nothing here imports more than a trainer may.
"""

from __future__ import annotations

from enum import IntEnum
from hashlib import sha256
from typing import Final

SOURCES_MAX: Final = 1 << 16
MODULUS: Final = 1 << 52
"""Whole numbers below it are exact in a double."""
FACTOR: Final = 0x9E3779B97F4A7
INVERSE: Final = pow(FACTOR, -1, MODULUS)

POINTS: Final = ("even", "odd")
AUTO: Final = "auto"
ROW: Final = ("row/a", "row/b", "row/c", "row/d")
NUMERIC: Final = (*POINTS, AUTO, *ROW)
"""Numeric channels; the place of each is its column."""
TEXTS: Final = "log"
AUTO_COLUMN: Final = NUMERIC.index(AUTO)
ROW_COLUMN: Final = NUMERIC.index(ROW[0])

NOWHERE_REASON: Final = "step not finite"

LONG_TEXT: Final = 70_000
"""Beyond what an event holds: it goes through the spool."""
ARTIFACT_SPREAD: Final = 150_000


class Call(IntEnum):
    """What a sequence number is a call of."""

    POINT = 0
    AUTO = 1
    ROW = 2
    TEXT = 3
    ARTIFACT = 4
    NOWHERE = 5  # a step that is not finite: dropped, counted, and the count is stored


EVERY: Final = {
    Call.ARTIFACT: (40_000, 20_011),
    Call.NOWHERE: (10_000, 4_002),
    Call.TEXT: (500, 77),
    Call.ROW: (50, 3),
    Call.AUTO: (4, 1),
}
"""A call is of the first kind whose (period, remainder) its sequence number has, else a point: of an even channel or of an odd."""


def call_of(sequence: int) -> Call:
    """The kind of the call `sequence`. `oracle.expected_column` is the same for arrays."""
    for kind, (period, remainder) in EVERY.items():
        if sequence % period == remainder:
            return kind
    return Call.POINT


def number(column: int, source: int, sequence: int) -> float:
    """The value that `source` logs to a numeric column."""
    return float(((column << 48 | source << 32 | sequence) * FACTOR) % MODULUS)


def text(source: int, sequence: int) -> str:
    """The text that `source` logs."""
    length = LONG_TEXT if sequence % 50_000 == 577 else sequence % 300
    return f"{source} {sequence} " + "." * length


def artifact_name(source: int, sequence: int) -> str:
    """Where the file of a call lies."""
    return f"files/{source}/{sequence}.bin"


def artifact(source: int, sequence: int) -> bytes:
    """The file that `source` logs."""
    block = sha256(f"{source}:{sequence}".encode()).digest()
    return block * (1 + (sequence * 7_919) % ARTIFACT_SPREAD // len(block))
