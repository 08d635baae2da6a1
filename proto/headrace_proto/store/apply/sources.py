"""Events about sources: who opens, how it ends, what is lost or was dropped."""

from __future__ import annotations

from typing import Any, Final

from headrace_proto.events import Outcome
from headrace_proto.frame import ABORTED
from headrace_proto.limits import LOST_RANGES_MAX, SOURCE_TEXT_MAX, TRACEBACK_BYTES_MAX, TRACEBACKS_BYTES_MAX
from headrace_proto.store.apply.draft import Draft
from headrace_proto.store.columns import Event
from headrace_proto.store.documents import SourceEnd
from headrace_proto.store.intake import add_lost
from headrace_proto.store.times import at_us

_OUTCOMES: Final = frozenset({Outcome.SUCCEEDED, Outcome.FAILED, Outcome.ABORTED})
_NUMBER_MAX: Final = 1 << 53
_OPEN_FACTS: Final[dict[str, type]] = {
    "role": str,
    "rank": int,
    "label": str,
    "attempt": int,
    "parent": str,
    "host": str,
    "pid": int,
    "user": str,
}
GAP_REASONS_MAX: Final = 64
"""Different reasons that a document lists; the rest are counted together."""
REASON_CHARACTERS_MAX: Final = 200


def open_(draft: Draft, source: str, event: Event) -> None:
    """[10, time, facts]: a source's first event."""
    time_ns, facts = event.fields
    known: dict[str, Any] = {
        name: value[:SOURCE_TEXT_MAX] if isinstance(value, str) else value
        for name, kind in _OPEN_FACTS.items()
        if type(value := facts.get(name)) is kind and not (isinstance(value, int) and abs(value) >= _NUMBER_MAX)
    }
    draft.change(source, opened_at=at_us(time_ns // 1000), **known)


def closed(draft: Draft, source: str, event: Event) -> None:
    """[12, time, outcome, detail or nil]: its last event."""
    time_ns, outcome, detail = event.fields
    state = outcome if outcome in _OUTCOMES else Outcome.FAILED
    kept = None if detail is None else _last_words(draft, detail)
    draft.change(source, state=state, ended_at=at_us(time_ns // 1000), detail=kept)


def _last_words(draft: Draft, detail: str) -> str:
    """The end of what is said of a source's end, as far as there is room."""
    bytes_max = TRACEBACK_BYTES_MAX if draft.last_words < TRACEBACKS_BYTES_MAX else SOURCE_TEXT_MAX
    kept = detail.encode(errors="replace")[-bytes_max:].decode(errors="ignore")
    draft.last_words += len(kept)
    return kept


def gap(draft: Draft, source: str, event: Event) -> None:
    """[20, time, dropped, reason]."""
    _, dropped, reason = event.fields
    count_gap(draft, source, dropped, reason)


def count_gap(draft: Draft, source: str, dropped: int, reason: str) -> None:
    """Count events that the store will never have."""
    reason = reason[:REASON_CHARACTERS_MAX]
    if reason not in draft.gaps and len(draft.gaps) >= GAP_REASONS_MAX:
        reason = "other"
    draft.gaps[reason] += dropped
    draft.change(source, dropped=draft.record(source).dropped + dropped)


def lost(draft: Draft, source: str, first: int, end: int, reason: str) -> None:
    """`[first, end)` of a journal cannot be had: let the watermark pass, and remember."""
    known = draft.record(source).lost
    if len(known) >= LOST_RANGES_MAX and known[-1].end == first:
        reason = known[-1].reason
    ranges = add_lost(known, first, end, reason[:REASON_CHARACTERS_MAX])
    draft.change(source, lost=ranges)


def dead(draft: Draft, source: str, position: int, reason: str = "") -> bool:
    """The writer is gone without a closing event; *aborted* if somebody had asked for that. Events beyond `position` withdraw it.

    False if that was known.
    """
    if draft.record(source).state != "open" and not _died(draft, source):
        return False
    if draft.state(source).dead_at == position:
        return False
    record, asked = draft.record(source), reason.startswith(ABORTED)
    detail = _last_words(draft, reason.removeprefix(ABORTED)) if asked else None
    state: SourceEnd = "aborted" if asked else "dead"
    draft.change(source, state=state, ended_at=record.last_seen_at or record.opened_at, detail=detail)
    draft.change_state(source, dead_at=position)
    return True


def _died(draft: Draft, source: str) -> bool:
    """Whether its end, as it stands, is a death, and not its own word."""
    state = draft.record(source).state
    return state == "dead" or (state == "aborted" and draft.state(source).dead_at is not None)


def revive(draft: Draft, source: str) -> None:
    """Later events of the source arrived: it was not dead, or had more to say."""
    if _died(draft, source):
        draft.change(source, state="open", ended_at=None, detail=None)
        draft.change_state(source, dead_at=None)


def seen(draft: Draft, source: str, time_us: int) -> None:
    """The source logged something at this time."""
    time, last = at_us(time_us), draft.record(source).last_seen_at
    if last is None or time > last:
        draft.change(source, last_seen_at=time)
