"""Numeric points in memory: value by value, or as a grid of rows that were logged together."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Points(NamedTuple):
    """Numeric points. One length for all columns."""

    position: NDArray[np.int64]  # of the event; the values of one row share it
    channel: NDArray[np.int32]  # the source's number for it
    step: NDArray[np.float64]  # 0.0 where automatic
    automatic: NDArray[np.bool_]
    time_us: NDArray[np.int64]
    value: NDArray[np.float64]

    def of(self, wanted: NDArray[np.bool_]) -> Points:
        """Some of them."""
        return Points._make(column[wanted] for column in self)

    def flat(self) -> Points:
        """Itself."""
        return self


class Rows(NamedTuple):
    """Rows of one schema, all with a step of their own or all without: n events of k values. They stay a grid as long as they can,
    because a column of it is a channel in order, and nothing need be repeated or sorted value by value. The values stay where they
    are."""

    position: NDArray[np.int64]  # (n,)
    channel: NDArray[np.int32]  # (k,)
    step: NDArray[np.float64]  # (n,), 0.0 where automatic
    automatic: bool
    time_us: NDArray[np.int64]  # (n,)
    raw: bytes
    begin: NDArray[np.int64]  # (n,) where in `raw` the values of each row begin

    def of(self, wanted: NDArray[np.bool_]) -> Rows:
        """Some of the rows."""
        position, channel, step, automatic, time_us, raw, begin = self
        return Rows(position[wanted], channel, step[wanted], automatic, time_us[wanted], raw, begin[wanted])

    def values(self) -> NDArray[np.float64]:
        """The values (n, k), in the order of bytes that they came in."""
        return row_values(self.raw, self.begin, len(self.channel))

    def flat(self) -> Points:
        """The same as points, value by value."""
        count, width = len(self.step), len(self.channel)
        return Points(
            np.repeat(self.position, width),
            np.tile(self.channel, count),
            np.repeat(self.step, width),
            np.full(count * width, self.automatic),
            np.repeat(self.time_us, width),
            self.values().astype(np.float64).ravel(),
        )


def row_values(raw: bytes, begin: NDArray[np.int64], width: int) -> NDArray[np.float64]:
    """The values (n, k) of rows, big-endian as they lie, where each begins."""
    packed = records_at(raw, begin, np.dtype((np.void, 8 * width)))
    return packed.view(">f8").reshape(len(begin), width)


def records_at(raw: bytes, starts: NDArray[np.int64], dtype: np.dtype[np.void]) -> NDArray[np.void]:
    """The records at `starts`, all of them within `raw`, copied out of overlapping views one byte apart."""
    return np.ndarray((len(raw) - dtype.itemsize + 1,), dtype, raw, strides=(1,))[starts]
