"""Damage to a journal: one byte of what its agent has not read yet, as a bad disk or a bad memory would."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Final

from headrace_proto.home import Home
from headrace_proto.journal.layout import BASE_AT
from headrace_proto.limits import CHECK_BYTES, HEADER_BYTES, INLINE_BYTES_MAX

TAIL: Final = 4 * CHECK_BYTES
"""The end of a killed writer's journal is covered by no check yet: what flips there nobody can know."""
LOST_BYTES_MAX: Final = 2 * CHECK_BYTES + INLINE_BYTES_MAX
"""What one flipped byte may cost: its block, and the event that crosses the block's end, be that a file which an event holds."""
LOST_CALLS_MAX: Final = 2 * CHECK_BYTES // 30
_FLIP: Final = 0x10


def flip_a_byte(home: Home, source: str, first: int, end: int, dice: random.Random) -> int | None:
    """Flip one byte in [first, end) of a journal, but for its tail. Its position; None when there is too little to choose from."""
    if first >= end - TAIL:
        return None
    position = dice.randrange(first, end - TAIL)
    segments = [(_base(path), path) for path in Path(home.journal(source)).glob("*.seg")]
    base, path = max((base, path) for base, path in segments if base <= position)
    with path.open("r+b") as file:
        file.seek(position - base + HEADER_BYTES)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ _FLIP]))
    return position


def _base(segment: Path) -> int:
    """The position of a segment's first byte; beyond all positions while it is not in use."""
    with segment.open("rb") as file:
        file.seek(BASE_AT)
        return int(struct.unpack("<Q", file.read(8))[0])
