"""What an inspection finds, and what it is told."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from headrace_proto.limits import SWEEP_GRACE_S

FRESH_S: Final = 120.0
"""A commit this young may be ahead of the catalog and of `experiment.json`: its writer is about to put them right. Collectors
refresh the latter once a minute."""


class Severity(StrEnum):
    """How a finding is meant."""

    ERROR = "error"  # something is gone, wrong, or shown wrongly
    WARNING = "warning"  # nothing is wrong with what is stored, but somebody should look, or sweep
    NOTE = "note"  # good to know


class Finding(NamedTuple):
    """One thing that was found."""

    severity: Severity
    path: str
    """From the store's root."""
    says: str
    remedy: str = ""
    mended: bool = False
    """Whether the repair has put it right."""

    @property
    def is_damage(self) -> bool:
        """Whether the store is not as it should be, still."""
        return self.severity is Severity.ERROR and not self.mended


class Depth(StrEnum):
    """How closely is looked."""

    FAST = "fast"  # newest commits, presence and sizes
    USUAL = "usual"  # also every retained commit, and every part read in full
    DIGESTS = "digests"  # also the digest of every file


class Options(NamedTuple):
    """How a store is inspected."""

    depth: Depth = Depth.USUAL
    repair: bool = False
    """Put right what needs no invention: catalog, `experiment.json`, FORMAT.md; remove old leftovers."""
    threads: int = 1
    """Experiments looked at at once."""
    grace_s: float = SWEEP_GRACE_S
    """Age of a leftover before it is removed."""
    now_ns: int = 0
    """The time, in nanoseconds since 1970."""


def error(path: str, says: str, remedy: str) -> Finding:
    """Something is wrong."""
    return Finding(Severity.ERROR, path, says, remedy)


def warning(path: str, says: str, remedy: str) -> Finding:
    """Somebody should look."""
    return Finding(Severity.WARNING, path, says, remedy)


def note(path: str, says: str, remedy: str = "") -> Finding:
    """Good to know."""
    return Finding(Severity.NOTE, path, says, remedy)
