"""Events about the experiment itself: its definition, parameters, properties, tags and facts. Each sets registers."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from headrace_proto import names
from headrace_proto.errors import InvalidName
from headrace_proto.store.apply.draft import Draft
from headrace_proto.store.columns import Event
from headrace_proto.store.plain import plain
from headrace_proto.store.registers import Stamp, wins_fixed
from headrace_proto.store.times import at_us

_FACT_TYPES: Final[dict[str, type]] = {
    **dict.fromkeys(("name", "description", "author", "hostname", "entrypoint", "key"), str),
    "git": dict,
    "created_at": datetime,  # set by CREATE's `created_ns`; no event can hold a datetime of its own
}


def create(draft: Draft, source: str, event: Event) -> None:
    """[11, time, facts]: the experiment's definition."""
    time_ns, facts = event.fields
    stamp = Stamp(time_ns, source, event.position, definition=True)
    facts = dict(facts)
    _set_params(draft, stamp, event, facts.pop("params", None))
    for name, value in _mapping(facts.pop("properties", None)).items():
        _set_property(draft, stamp, event, name, str(plain(value)))
    for tag in _listed(facts.pop("tags", None)):
        _set_tag(draft, stamp, event, tag, present=True)
    created_ns = facts.pop("created_ns", time_ns)
    if isinstance(created_ns, int) and 0 <= created_ns < 1 << 64:
        facts["created_at"] = at_us(created_ns // 1000)
    _set_facts(draft, stamp, event, facts)


def parameters(draft: Draft, source: str, event: Event) -> None:
    """[13, time, {name: value}]: adds; what the definition says is fixed."""
    time_ns, params = event.fields
    _set_params(draft, Stamp(time_ns, source, event.position), event, params)


def property_(draft: Draft, source: str, event: Event) -> None:
    """[14, time, name, text or nil]."""
    time_ns, name, text = event.fields
    _set_property(draft, Stamp(time_ns, source, event.position), event, name, text)


def tags(draft: Draft, source: str, event: Event) -> None:
    """[15, time, [added], [removed]]."""
    time_ns, added, removed = event.fields
    stamp = Stamp(time_ns, source, event.position)
    for tag in added:
        _set_tag(draft, stamp, event, tag, present=True)
    for tag in removed:
        if tag not in added:
            _set_tag(draft, stamp, event, tag, present=False)


def facts(draft: Draft, source: str, event: Event) -> None:
    """[16, time, {name: value}]."""
    time_ns, facts = event.fields
    _set_facts(draft, Stamp(time_ns, source, event.position), event, facts)


def _set_params(draft: Draft, stamp: Stamp, event: Event, params: Any) -> None:
    for name, value in _mapping(params).items():
        fits = _named(draft, stamp, event, name, "parameter") and _fits(draft, stamp, event, "params", name, value)
        if fits and draft.claim("params", name, stamp, wins_fixed):
            draft.params[name] = plain(value)


def _set_property(draft: Draft, stamp: Stamp, event: Event, name: str, text: str | None) -> None:
    fits = _named(draft, stamp, event, name, "property") and _fits(draft, stamp, event, "properties", name, text)
    if not fits or not draft.claim("properties", name, stamp):
        return
    if text is None:
        draft.properties.pop(name, None)
    else:
        draft.properties[name] = text


def _set_tag(draft: Draft, stamp: Stamp, event: Event, tag: str, *, present: bool) -> None:
    try:
        names.stored_tag(tag)
    except InvalidName as error:
        draft.refuse(stamp.source, event, error)
        return
    if _fits(draft, stamp, event, "tags", tag, None) and draft.claim("tags", tag, stamp):
        (draft.tags.add if present else draft.tags.discard)(tag)


def _set_facts(draft: Draft, stamp: Stamp, event: Event, facts: dict[str, Any]) -> None:
    for name, value in facts.items():
        if value is None and name in _FACT_TYPES:
            continue  # nothing is said
        if not isinstance(value, _FACT_TYPES.get(name, object)):
            draft.refuse(stamp.source, event, f"the fact {name!r} is a {type(value).__name__}")
        elif (
            _named(draft, stamp, event, name, "fact")
            and _fits(draft, stamp, event, "facts", name, value)
            and draft.claim("facts", name, stamp)
        ):
            draft.facts[name] = value if name == "created_at" else plain(value)


def _fits(draft: Draft, stamp: Stamp, event: Event, group: str, name: str, value: Any) -> bool:
    reason = draft.room.refusal(group, name, value)
    if reason:
        draft.refuse(stamp.source, event, reason)
    return not reason


def _named(draft: Draft, stamp: Stamp, event: Event, name: str, what: str) -> bool:
    try:
        names.key(name, what)
    except InvalidName as error:
        draft.refuse(stamp.source, event, error)
        return False
    return True


def _mapping(value: Any) -> dict[str, Any]:
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else {}


def _listed(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
