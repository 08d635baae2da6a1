"""What of a batch is new: arithmetic on `[first, end)` against a source's watermark and its lost ranges. No I/O.

Invariants
1. Below the watermark everything is stored or in a lost range; so a batch is dropped there, but for what it brings of such a
   range: good bytes fill it.
2. At the watermark a batch is cut, event by event. Above it is a gap, which is for the caller to wait out.
3. What is admitted lies in the order of positions and never overlaps.
"""

from __future__ import annotations

from typing import NamedTuple

from headrace_proto.frame import FrameKind
from headrace_proto.store.columns import cut
from headrace_proto.store.documents import LostRange


class Batch(NamedTuple):
    """A run of whole events of one source, or a word about it."""

    source: str
    first: int
    end: int
    raw: bytes = b""
    kind: FrameKind = FrameKind.EVENTS
    reason: str = ""
    site: str = ""


class Admitted(NamedTuple):
    """Part of a batch that the store does not have."""

    batch: Batch
    fills: bool  # it lies below the watermark, in a lost range


def admit(batch: Batch, position: int, lost: tuple[LostRange, ...]) -> list[Admitted]:
    """What of `batch` is new to a source whose watermark is `position`.

    Raises `ValueError` above a gap or when the batch is not what it says, `BadCut` when a cut would go through an event.
    """
    if batch.kind is FrameKind.EVENTS and len(batch.raw) != batch.end - batch.first:
        raise ValueError(f"a batch of {len(batch.raw)} bytes claims [{batch.first}, {batch.end}) of {batch.source}")
    if batch.first > position:
        raise ValueError(f"a batch of {batch.source} begins at {batch.first}, above its watermark {position}")
    if batch.kind is FrameKind.DEAD:
        return [Admitted(batch, fills=False)] if batch.end == position else []
    pieces = _fills(batch, lost) if batch.kind is FrameKind.EVENTS else []
    if batch.end > position:
        pieces.append(Admitted(between(batch, position, batch.end), fills=False))
    return pieces


def _fills(batch: Batch, lost: tuple[LostRange, ...]) -> list[Admitted]:
    edges = [(max(gap.first, batch.first), min(gap.end, batch.end)) for gap in lost]
    return [Admitted(between(batch, first, end), fills=True) for first, end in edges if first < end]


def between(batch: Batch, first: int, end: int) -> Batch:
    """The part of a batch that lies in [first, end). Raises `BadCut`."""
    if (first, end) == (batch.first, batch.end):
        return batch
    raw = cut(batch.raw, first - batch.first, end - batch.first) if batch.kind is FrameKind.EVENTS else b""
    return batch._replace(first=first, end=end, raw=raw)


def add_lost(lost: tuple[LostRange, ...], first: int, end: int, reason: str) -> tuple[LostRange, ...]:
    """The ranges with `[first, end)`; it joins its neighbour when that was lost for the same reason."""
    if first == end:
        return lost
    if lost and lost[-1].end == first and lost[-1].reason == reason:
        return (*lost[:-1], LostRange(first=lost[-1].first, end=end, reason=reason))
    return (*lost, LostRange(first=first, end=end, reason=reason))


def without(lost: tuple[LostRange, ...], first: int, end: int) -> tuple[LostRange, ...]:
    """The ranges without `[first, end)`, which good bytes have filled."""
    left: list[LostRange] = []
    for gap in lost:
        if gap.end <= first or end <= gap.first:
            left.append(gap)
            continue
        edges = ((gap.first, first), (end, gap.end))
        left.extend(LostRange(first=a, end=b, reason=gap.reason) for a, b in edges if a < b)
    return tuple(left)
