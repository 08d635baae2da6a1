"""The order of points in a part: by channel, step and time; those that tie keep the order in which they were committed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_RADIX_MAX = 1 << 16


def series_order(
    channel: NDArray[np.integer[Any]], step: NDArray[np.float64], time_us: NDArray[np.int64]
) -> NDArray[np.intp] | None:
    """The permutation that sorts, None if the points are sorted. `channel` numbers are in the order of names, from 0.

    A process logs with rising steps, so once the channels are apart (a radix sort: 2 ns a point) nearly every channel is in
    order, and only those that are not pay for a sort by two keys (150 ns a point).
    """
    order: NDArray[np.intp] | None = None
    if (channel[1:] < channel[:-1]).any():
        small = channel.astype(np.uint16) if len(channel) and channel.max() < _RADIX_MAX else channel
        order = np.argsort(small, kind="stable")
        channel, step, time_us = channel[order], step[order], time_us[order]
    same = channel[1:] == channel[:-1]
    falls = same & ((step[1:] < step[:-1]) | ((step[1:] == step[:-1]) & (time_us[1:] < time_us[:-1])))
    if not falls.any():
        return order
    order = np.arange(len(channel)) if order is None else order
    for bad in np.unique(channel[1:][falls]).tolist():
        begin, end = np.searchsorted(channel, [bad, bad + 1])
        order[begin:end] = order[begin:end][np.lexsort((time_us[begin:end], step[begin:end]))]
    return order


def channel_runs(channels: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Each channel of a sorted sequence with where it begins and ends.

    >>> list(channel_runs(["a", "a", "b"]))
    [('a', 0, 2), ('b', 2, 3)]
    """
    begin = 0
    for end in range(1, len(channels) + 1):
        if end == len(channels) or channels[end] != channels[begin]:
            yield channels[begin], begin, end
            begin = end
