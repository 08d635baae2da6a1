"""An experiment's document: what people, tools and readers know about it. Written to be read by eye.

Every model refuses fields that it does not know (`records.Record`).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final, Literal

from pydantic import Field

from headrace_proto.store.records import DOCUMENT_FORMAT, Record, State

Number = float | dict[str, str]
"""A float; NaN and infinities as {"$float": "nan"} (`plain.unplain` gives the float back)."""
SourceEnd = Literal["open", "succeeded", "failed", "aborted", "dead"]
FileState = Literal["pending", "stored", "changed"]
FileGroup = Literal["artifacts", "source_files"]
FILE_FOLDERS: Final[dict[FileGroup, str]] = {"artifacts": "artifacts", "source_files": "sources"}


class Last(Record):
    """A channel's last point: the highest step, then the latest time, then source and position."""

    step: float
    time: datetime
    value: Number | str | None  # a text's first TEXT_CHARACTERS_SHOWN characters; an image's file
    name: str | None = None  # an image's own name


class ChannelRecord(Record):
    """A channel, as far as it is visible."""

    count: int = 0
    last: Last | None = None
    max_step: float | None = None
    """Of all points, hidden ones too: automatic steps go on from it, so that no step is given twice."""
    reset_at: datetime | None = None
    """Points with a time up to this one are hidden (`reset_log`)."""


class Channels(Record):
    """Channels by type, then by name: one name may be numeric in one rank and text in another without any harm."""

    numeric: dict[str, ChannelRecord] = Field(default_factory=dict)
    text: dict[str, ChannelRecord] = Field(default_factory=dict)
    image: dict[str, ChannelRecord] = Field(default_factory=dict)


class FileRecord(Record):
    """An artifact, or a source file of the program."""

    size: int
    sha256: str
    state: FileState
    """`pending`: its bytes are on their way. `changed`: the file was rewritten while it was read, its bytes are not here."""
    logged_at: datetime
    mode: int | None = None
    modified_at: datetime | None = None
    file: str | None = None
    """Where it lies, from the experiment's folder, when that is not under its own path: a removed file of that path was swept."""


def file_place(group: FileGroup, path: str, record: FileRecord) -> str:
    """Where the file logged as `path` lies, from the experiment's folder."""
    return record.file or f"{FILE_FOLDERS[group]}/{path}"


class LostRange(Record):
    """Bytes of a source's journal that the store does not have. Good bytes that arrive later shrink it."""

    first: int
    end: int
    reason: str


class SourceRecord(Record):
    """One process (or agent) that writes to the experiment."""

    role: str = "worker"
    state: SourceEnd = "open"
    rank: int | None = None
    label: str = ""
    attempt: int = 0
    parent: str = ""
    host: str = ""
    pid: int | None = None
    user: str = ""
    opened_at: datetime | None = None
    ended_at: datetime | None = None
    last_seen_at: datetime | None = None
    detail: str | None = None
    """What its closing event said; of a failure, the traceback."""
    lost: tuple[LostRange, ...] = ()
    dropped: int = 0
    """Events that it could not journal, or that had no finite step."""


class Notes(Record):
    """What is missing or odd, so that nothing is missing silently. All zero for nearly every experiment."""

    gaps: dict[str, int] = Field(default_factory=dict)
    """Reason -> events that were dropped before they reached a journal, or that had no finite step."""
    lost_bytes: int = 0
    unknown_kinds: dict[str, int] = Field(default_factory=dict)
    """Kind -> events of a newer release, kept in the store's quarantine."""
    refused: dict[str, int] = Field(default_factory=dict)
    """What was wrong with an event -> how many were put into quarantine for it."""


class ExperimentDocument(Record):
    """One experiment."""

    id: str = ""
    """`KEY-7`, once it is known."""
    internal_id: str
    name: str = ""
    project: str
    state: State = "running"
    description: str = ""
    owner: str = ""
    created_at: datetime | None = None
    finished_at: datetime | None = None
    hostname: str = ""
    entrypoint: str = ""
    git: dict[str, Any] = Field(default_factory=dict)
    key: str | None = None
    params: dict[str, Any] = Field(default_factory=dict)
    properties: dict[str, str] = Field(default_factory=dict)
    tags: tuple[str, ...] = ()
    traceback: str | None = None
    """Of the source that made the experiment fail."""
    channels: Channels = Field(default_factory=Channels)
    artifacts: dict[str, FileRecord] = Field(default_factory=dict)
    source_files: dict[str, FileRecord] = Field(default_factory=dict)
    elsewhere: dict[str, int] = Field(default_factory=dict)
    """How many artifacts and sources are listed in the side file instead of here."""
    sources: dict[str, SourceRecord] = Field(default_factory=dict)
    notes: Notes = Field(default_factory=Notes)
    facts: dict[str, Any] = Field(default_factory=dict)
    """What else the program said about itself."""

    @property
    def running_time(self) -> timedelta | None:
        """From creation to the end; None while it runs."""
        if self.created_at is None or self.finished_at is None:
            return None
        return self.finished_at - self.created_at


class _Heading(Record):
    """What `experiment.json` begins with."""

    format: int = DOCUMENT_FORMAT
    commit: int
    """The commit that this is. Our own readers list `commits/` instead: this file may lag behind."""


class PublicDocument(ExperimentDocument, _Heading):
    """`experiment.json`: the document, and where its data is, for people and other tools."""

    parts: dict[str, tuple[str, ...]]
    """The live Parquet files by type, from the experiment's folder. Other files there are leftovers: never glob."""
    side: str | None = None

    def encode(self) -> bytes:
        """As it lies in the store."""
        return self.model_dump_json(indent=2, exclude_none=True).encode()
