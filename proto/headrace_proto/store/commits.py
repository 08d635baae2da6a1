"""A commit: one step of an experiment's chain, `commits/<20 digits>.json`. The highest number is the experiment.

A commit is complete: whoever has read it needs no other commit. It is created only if absent, so of two writers who build on the
same commit one wins; its `nonce` tells a writer whose answer was lost whether it was the one. It grows with what is *live*
(channels, open sources, at most PARTS_MAX parts a kind), not with the experiment's age: closed sources and artifacts beyond
their limits move to an immutable side file that the commit names.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

from pydantic import Field

from headrace_proto.store.documents import ExperimentDocument, FileRecord, SourceRecord
from headrace_proto.store.records import DOCUMENT_FORMAT, Record, parse
from headrace_proto.store.registers import Stamp

CURATION_SOURCE: Final = "0" * 32
"""The source of changes made to a stored experiment. One for all: its watermark lets two curators notice each other."""
Runs = tuple[tuple[int, int], ...]
"""Whole numbers as (first, count) runs of consecutive ones: a source's tables are nearly always one run."""
PartKind = Literal["numeric", "text", "image"]
PART_KINDS: Final[tuple[PartKind, ...]] = ("numeric", "text", "image")


class SourceState(Record):
    """What the next batch of a source meets: its watermark and its words."""

    position: int = 0
    """Everything below is in the store, exactly once, but for the ranges that the source's record lists as lost."""
    dead_at: int | None = None
    """Observed dead when it had written this much; bytes beyond withdraw it."""
    numbers: Runs = ()
    """The channel numbers that it has defined, and in `channels`, one for one, what they mean: indices into `Commit.names`."""
    channels: Runs = ()
    schemas: dict[int, Runs] = Field(default_factory=dict)
    """Schema number -> channel numbers."""
    files: Runs = ()
    """Numbers of its spooled files that need no more bytes."""
    site: str = ""
    """The first site that sent it. A frame of it from another is refused: whoever may publish for one site may not for another."""


class PendingFile(Record):
    """A spooled file that an event named and whose bytes are not in place yet."""

    source: str
    file: str
    size: int
    sha256: str
    path: str
    """Where it will lie, from the store's root."""
    kind: Literal["artifact", "source", "text", "image", "refused"]
    name: str = ""
    """The artifact's path or the channel."""
    stamp: Stamp


class PartRecord(Record):
    """One Parquet file."""

    path: str
    """From the experiment's folder."""
    rows: int
    bytes: int
    level: int = 0
    """How often its rows have been rewritten by compaction."""


class Parts(Record):
    """The live parts. What no commit lists is no part of the experiment."""

    numeric: tuple[PartRecord, ...] = ()
    text: tuple[PartRecord, ...] = ()
    image: tuple[PartRecord, ...] = ()

    def of(self, kind: PartKind) -> tuple[PartRecord, ...]:
        """The parts of one kind, oldest first."""
        parts: tuple[PartRecord, ...] = getattr(self, kind)
        return parts


class Ties(Record):
    """Source and position of each channel's last point, to decide between points of one step and time."""

    numeric: dict[str, tuple[str, int]] = Field(default_factory=dict)
    text: dict[str, tuple[str, int]] = Field(default_factory=dict)
    image: dict[str, tuple[str, int]] = Field(default_factory=dict)


class Stamps(Record):
    """The stamps of the document's registers; one without a value is that of a removal."""

    facts: dict[str, Stamp] = Field(default_factory=dict)
    params: dict[str, Stamp] = Field(default_factory=dict)
    properties: dict[str, Stamp] = Field(default_factory=dict)
    tags: dict[str, Stamp] = Field(default_factory=dict)
    artifacts: dict[str, Stamp] = Field(default_factory=dict)
    source_files: dict[str, Stamp] = Field(default_factory=dict)


class Commit(Record):
    """One commit."""

    format: int
    number: int
    nonce: str
    written_at: datetime
    store: str
    """The store's id: a commit copied into another store is recognised."""
    sweep: int = 0
    """Counts the sweeps of unreferenced files. A part is valid only under the sweep that its writer knew."""
    swept: int = 0
    """The number of the commit that the last sweep made."""
    document: ExperimentDocument
    parts: Parts = Field(default_factory=Parts)
    dropped: tuple[str, ...] = ()
    """Files, from the experiment's folder, that the commit before this one listed and this one does not. They stay for those
    who still read that one; a sweep removes them later."""
    drops: int = 0
    """The newest commit before this one that `dropped` anything, so that a sweep finds them all without reading the others."""
    side: str | None = None
    """The side file, from the experiment's folder."""
    sources: dict[str, SourceState] = Field(default_factory=dict)
    pending: dict[str, PendingFile] = Field(default_factory=dict)
    """`<source>/<file>` -> file whose bytes are on their way."""
    names: tuple[str, ...] = ()
    """Channel names; the sources' tables are indices into it."""
    resets: dict[str, int] = Field(default_factory=dict)
    """Channel name -> microseconds since 1970: points up to then are hidden, also those still to come."""
    stamps: Stamps = Field(default_factory=Stamps)
    ties: Ties = Field(default_factory=Ties)

    @property
    def blank(self) -> bool:
        """Whether nothing was ever stored: a sweep of a folder without commits made it. No experiment, for any reader."""
        return not self.document.id

    def encode(self) -> bytes:
        """As it lies in the store."""
        return self.model_dump_json(exclude_defaults=True).encode()

    @classmethod
    def decode(cls, data: bytes, what: str) -> Commit:
        """Read one back. Raises `FormatUnknown` or `Corrupt`."""
        return parse(cls, data, what)


class ArchivedSource(Record):
    """A source that has ended, as it was."""

    record: SourceRecord
    state: SourceState


class ArchivedFile(Record):
    """An artifact, or the stamp of its removal."""

    record: FileRecord | None
    stamp: Stamp


class Side(Record):
    """What no longer fits a commit. Immutable; a change is another side file, named by the next commit."""

    format: int = DOCUMENT_FORMAT
    sources: dict[str, ArchivedSource] = Field(default_factory=dict)
    artifacts: dict[str, ArchivedFile] = Field(default_factory=dict)
    source_files: dict[str, ArchivedFile] = Field(default_factory=dict)
    swept: tuple[str, ...] = ()
    """Places of removed artifacts and source files, from the experiment's folder, that a sweep has cleared. Nothing is ever put
    there again: that sweep may still be at it."""

    def encode(self) -> bytes:
        """As it lies in the store."""
        return self.model_dump_json().encode()

    @classmethod
    def decode(cls, data: bytes, what: str) -> Side:
        """Read one back. Raises `FormatUnknown` or `Corrupt`."""
        return parse(cls, data, what)
