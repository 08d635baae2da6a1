"""Stamps: why documents come out the same in whatever order sources arrive.

Every field of a document is a register: a value and the stamp of the event that set it. Of two events the one with the greater
stamp wins, whichever was applied first. A journal carried in on Tuesday with Sunday's events changes nothing that was set on
Monday.

What CREATE says is the *definition*. A restart with the same key writes CREATE again, so of definitions the earliest wins, and
any later word (PROPERTY, TAGS, FACTS) wins over a definition. Parameters are the other way round: they are fixed at creation, so
a definition wins over PARAMETERS.
"""

from __future__ import annotations

from typing import NamedTuple


class Stamp(NamedTuple):
    """Which event set a register."""

    time_ns: int
    source: str
    position: int
    definition: bool = False


def wins(new: Stamp, old: Stamp | None) -> bool:
    """Whether `new` replaces `old` in a field that later events may change."""
    if old is None:
        return True
    if new.definition != old.definition:
        return old.definition
    return new < old if new.definition else new > old


def wins_fixed(new: Stamp, old: Stamp | None) -> bool:
    """Whether `new` replaces `old` in a field that is fixed at creation."""
    if old is None:
        return True
    if new.definition != old.definition:
        return new.definition
    return new < old if new.definition else new > old
