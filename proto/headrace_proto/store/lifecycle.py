"""An experiment's state: a fold over its sources, never a register, so that it cannot depend on what arrived first."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final, NamedTuple

from headrace_proto.events import Role
from headrace_proto.store.documents import SourceRecord
from headrace_proto.store.records import State

_WORST_FIRST: Final[tuple[State, ...]] = ("aborted", "failed", "succeeded")


class Fold(NamedTuple):
    """What the sources say together."""

    state: State = "running"
    finished_at: datetime | None = None
    detail: str | None = None  # of the source that made it fail


def fold(sources: Iterable[SourceRecord]) -> Fold:
    """The state: running if any source is open, else aborted before failed before succeeded.

    Only owners and ranks count: a worker or an agent comes and goes. A later owner is a restart: it supersedes whatever had ended
    before it opened, of any attempt (a job that is submitted again counts its attempts from 0), and, within the highest
    `attempt` of the rest, every other owner. A source that was observed dead has failed.
    """
    deciding = _deciding(list(sources))
    if not deciding or any(source.state == "open" for source in deciding):
        return Fold()
    states: set[State] = {_outcome(source) for source in deciding}
    state = next(state for state in _WORST_FIRST if state in states)
    ends = [(source.ended_at, source.detail or "") for source in deciding if source.ended_at]
    finished_at = max(ends)[0] if ends else None
    failures = [end for end in ends if end[1]] if state == "failed" else []
    return Fold(state, finished_at, max(failures)[1] if failures else None)


def _outcome(source: SourceRecord) -> State:
    return source.state if source.state in ("succeeded", "aborted") else "failed"


def _deciding(sources: list[SourceRecord]) -> list[SourceRecord]:
    counted = [source for source in sources if source.role in (Role.OWNER, Role.RANK) and source.opened_at]
    newest = _newest_owner(counted)
    if newest is not None:
        counted = [source for source in counted if not _ended_before(source, newest)]
    attempt = max((source.attempt for source in counted), default=0)
    counted = [source for source in counted if source.attempt == attempt]
    newest = _newest_owner(counted)
    return [source for source in counted if source.role == Role.RANK or source.opened_at == newest]


def _ended_before(source: SourceRecord, newest_owner: datetime) -> bool:
    """Never so of that owner itself, whose clock may have been set back."""
    itself = source.role == Role.OWNER and source.opened_at == newest_owner
    return not itself and source.ended_at is not None and source.ended_at < newest_owner


def _newest_owner(sources: list[SourceRecord]) -> datetime | None:
    """When the owner opened that did so last."""
    opened = [source.opened_at for source in sources if source.role == Role.OWNER and source.opened_at]
    return max(opened, default=None)
