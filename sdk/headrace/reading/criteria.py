"""Neptune's criteria for lists: any of the ids, states and owners given, all of the tags, and every criterion at once."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple, get_args

import pyarrow as pa
import pyarrow.compute as pc

from headrace_proto.errors import InvalidValue
from headrace_proto.store.documents import State

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def matching(table: pa.Table, criteria: Criteria, now: datetime | None = None) -> pa.Table:
    """The rows of a catalog's table that meet all criteria."""
    found = _of_any(table, ("id", "experiment"), "id", criteria.id)
    found = _of_any(found, ("state",), "state", _known_states(criteria.state))
    found = _of_any(found, ("owner",), "owner", criteria.owner)
    found = _with_all_tags(found, _several("tag", criteria.tag))
    return _running_at_least(found, criteria.min_running_time, now or datetime.now(UTC))


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
        if value not in STATES:
            raise InvalidValue(f"state={value!r} is none of {', '.join(STATES)}")
    return values


def _of_any(table: pa.Table, columns: tuple[str, ...], what: str, given: Several) -> pa.Table:
    values = _several(what, given)
    if values is None:
        return table
    wanted = pa.array(values, pa.string())
    masks = [pc.is_in(table[column], value_set=wanted) for column in columns]
    return table.filter(masks[0] if len(masks) == 1 else pc.or_(*masks))


def _with_all_tags(table: pa.Table, tags: Sequence[str] | None) -> pa.Table:
    if not tags:
        return table
    wanted = set(tags)
    each: list[Any] = table["tags"].to_pylist()
    return table.filter(pa.array([wanted.issubset(has or ()) for has in each], pa.bool_()))


def _running_at_least(table: pa.Table, seconds: float | None, now: datetime) -> pa.Table:
    if seconds is None:
        return table
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise InvalidValue(f"min_running_time={seconds!r} must be a number of seconds")
    times: list[Any] = [table[column].to_pylist() for column in ("created_at", "finished_at")]
    keep = [
        running is not None and running >= timedelta(seconds=seconds)
        for running in (running_time(created, finished, now) for created, finished in zip(*times, strict=True))
    ]
    return table.filter(pa.array(keep, pa.bool_()))


def running_time(created: datetime | None, finished: datetime | None, now: datetime) -> timedelta | None:
    """How long an experiment ran, or has been running."""
    return None if created is None else (finished or now) - created
