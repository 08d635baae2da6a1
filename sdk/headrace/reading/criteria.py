"""Neptune's criteria for lists: any of the ids, states and owners given, all of the tags, and every criterion at once."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace_proto.errors import InvalidValue
from headrace_proto.store.records import State
from headrace_proto.store.signs import NOT_RESPONDING
from headrace_proto.store.times import us_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]

STATES: Final[tuple[str, ...]] = get_args(State)

Several = str | Iterable[str] | None
"""One value, several, or any."""


class Criteria(NamedTuple):
    """What a list is to hold. None means any."""

    id: Several = None
    state: Several = None
    owner: Several = None
    tag: Several = None
    min_running_time: float | None = None


def matching(
    table: pa.Table, criteria: Criteria, now: datetime | None = None, silent: Callable[[], Mask] | None = None
) -> pa.Table:
    """The rows of a catalog's table that meet all criteria; the table itself if there are none.

    `silent` tells the rows that do not respond, for whoever asks for these.
    """
    masks = [
        _of_any(table, ("id", "experiment"), "id", criteria.id),
        _in_states(table, _known_states(criteria.state), silent),
        _of_any(table, ("owner",), "owner", criteria.owner),
        *_with_tags(table, _several("tag", criteria.tag)),
        _running_at_least(table, criteria.min_running_time, now or datetime.now(UTC)),
    ]
    given = [mask for mask in masks if mask is not None]
    return table.filter(pa.array(np.logical_and.reduce(given))) if given else table


def _several(what: str, given: object) -> Sequence[str] | None:
    if given is None:
        return None
    values: list[Any] = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    if not all(isinstance(value, str) for value in values):
        raise InvalidValue(f"{what}={given!r} must be a str or several")
    return values


def _known_states(given: Several) -> Sequence[str] | None:
    values = _several("state", given)
    for value in values or ():
        if value not in (*STATES, NOT_RESPONDING):
            raise InvalidValue(f"state={value!r} is none of {', '.join((*STATES, NOT_RESPONDING))}")
    return values


def _in_states(table: pa.Table, states: Sequence[str] | None, silent: Callable[[], Mask] | None) -> Mask | None:
    """One that does not respond is running, too: it is what the store knows of it."""
    found = _of_any(table, ("state",), "state", states)
    if found is None or silent is None or NOT_RESPONDING not in (states or ()):
        return found
    return found | silent()


def _of_any(table: pa.Table, columns: tuple[str, ...], what: str, given: Several) -> Mask | None:
    values = _several(what, given)
    if values is None:
        return None
    wanted = pa.array(values, pa.string())
    masks: list[Mask] = [pc.is_in(table[column], value_set=wanted).to_numpy() for column in columns]
    found: Mask = np.logical_or.reduce(masks)
    return found


def _with_tags(table: pa.Table, tags: Sequence[str] | None) -> Iterator[Mask]:
    if not tags:
        return
    column: Any = table["tags"].combine_chunks()
    each: Any = column.flatten()
    rows = pc.list_parent_indices(column).to_numpy()
    for tag in set(tags):
        found: Mask = np.zeros(table.num_rows, np.bool_)
        found[rows[pc.equal(each, pa.scalar(tag)).to_numpy(zero_copy_only=False)]] = True
        yield found


def _running_at_least(table: pa.Table, seconds: float | None, now: datetime) -> Mask | None:
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float, np.integer, np.floating)):
        raise InvalidValue(f"min_running_time={seconds!r} must be a number of seconds")
    created, known = times_us(table["created_at"])
    finished, ended = times_us(table["finished_at"])
    running = np.where(ended, finished, us_of(now)) - created
    return known & (running >= float(seconds) * 1e6)


def times_us(column: pa.ChunkedArray[Any]) -> tuple[NDArray[np.int64], Mask]:
    """The times of a column in microseconds since 1970, and of which rows there is one."""
    times: Any = column.cast(pa.int64())
    return times.fill_null(0).to_numpy(), column.is_valid().to_numpy()


def running_time(created: datetime | None, finished: datetime | None, now: datetime) -> timedelta | None:
    """How long an experiment ran, or has been running."""
    return None if created is None else (finished or now) - created
