"""Times of documents and of columns: microseconds since 1970, and datetimes in UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def at_us(time_us: int) -> datetime:
    """Microseconds since 1970 as a datetime."""
    return EPOCH + timedelta(microseconds=time_us)


def us_of(time: datetime) -> int:
    """A datetime as microseconds since 1970, rounded down.

    >>> us_of(at_us(1_763_692_800_000_001))
    1763692800000001
    """
    return (time - EPOCH) // _MICROSECOND
