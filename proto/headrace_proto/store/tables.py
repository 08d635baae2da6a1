"""What a source's numbers mean: its channels and the schemas of its rows.

A number means one thing for as long as its source lives, so definitions only ever add. A number that no stored event defines
(the definition lies in a range that was lost) does not cost the points that use it: they are kept under a placeholder name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from headrace_proto.limits import CHANNELS_MAX, ROW_VALUES_MAX, SCHEMAS_MAX
from headrace_proto.store.commits import Runs, SourceState

NUMBERS_MAX: Final = CHANNELS_MAX
"""Channel numbers are below this."""
UNDEFINED: Final = -1
_ROW_STRIDE: Final = 1 << (ROW_VALUES_MAX - 1).bit_length()


def runs(numbers: Iterable[int]) -> Runs:
    """Numbers as runs of consecutive ones, in the order given.

    >>> runs([4, 5, 6, 1, 9])
    ((4, 3), (1, 1), (9, 1))
    """
    listed = list(numbers)
    if not listed:
        return ()
    cuts = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(listed)) if b != a + 1), len(listed)]
    return tuple((listed[a], b - a) for a, b in pairwise(cuts))


def unrolled(packed: Runs) -> list[int]:
    """The numbers that `runs` packed.

    >>> unrolled(((4, 3), (1, 1)))
    [4, 5, 6, 1]
    """
    return [first + i for first, count in packed for i in range(count)]


def undefined_row_channel(schema: int, index: int) -> int:
    """The number that stands for the `index`-th value of rows whose schema is not known: above all real ones."""
    return NUMBERS_MAX + schema * _ROW_STRIDE + index


def placeholder(source: str, number: int) -> str:
    """The name under which the points of an undefined number are kept."""
    if number < NUMBERS_MAX:
        return f"unnamed/{source[:8]}/{number}"
    schema, index = divmod(number - NUMBERS_MAX, _ROW_STRIDE)
    return f"unnamed/{source[:8]}/row{schema}/{index}"


class SourceTable:
    """The words of one source."""

    __slots__ = ("codes", "schemas")

    def __init__(self, codes: NDArray[np.int32], schemas: Mapping[int, NDArray[np.int32]]) -> None:
        self.codes = codes
        """By channel number: the channel's index in the experiment's list of names, UNDEFINED where there is none."""
        self.schemas: dict[int, NDArray[np.int32]] = dict(schemas)

    @classmethod
    def of(cls, state: SourceState) -> SourceTable:
        """The table that a commit holds."""
        numbers = unrolled(state.numbers)
        codes = np.full(max(numbers, default=-1) + 1, UNDEFINED, np.int32)
        codes[numbers] = unrolled(state.channels)
        schemas = {schema: np.array(unrolled(packed), np.int32) for schema, packed in state.schemas.items()}
        return cls(codes, schemas)

    def packed(self) -> tuple[Runs, Runs, dict[int, Runs]]:
        """Numbers, channels and schemas as `SourceState` holds them."""
        numbers = np.flatnonzero(self.codes != UNDEFINED)
        schemas = {schema: runs(channels.tolist()) for schema, channels in self.schemas.items()}
        return runs(numbers.tolist()), runs(self.codes[numbers].tolist()), schemas

    def code(self, number: int) -> int:
        """The index of the name that `number` stands for, or UNDEFINED."""
        return int(self.codes[number]) if number < len(self.codes) else UNDEFINED

    def define(self, number: int, code: int) -> None:
        """Give a number its meaning."""
        if number >= len(self.codes):
            room = np.full(max(number + 1, 2 * len(self.codes)), UNDEFINED, np.int32)
            room[: len(self.codes)] = self.codes
            self.codes = room
        self.codes[number] = code


def is_schema_number(number: int) -> bool:
    """Whether a writer may give this number to a schema."""
    return 0 <= number < SCHEMAS_MAX
