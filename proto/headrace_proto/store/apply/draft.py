"""A draft: the next commit while events are applied to it. The commit that it stands on is never changed.

Tables of the old commit are copied shallowly; their records are immutable and shared. What a handler changes, it replaces.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace_proto.errors import InvalidName
from headrace_proto.limits import ASIDE_MAX, COMMIT_EVENTS_MAX, EXPERIMENT_CHANNELS_MAX, EXPERIMENT_WORDS_MAX
from headrace_proto.store import layout
from headrace_proto.store.apply.room import Room
from headrace_proto.store.columns import Event
from headrace_proto.store.commits import (
    PART_KINDS,
    ArchivedFile,
    ArchivedSource,
    Commit,
    PartKind,
    PendingFile,
    Side,
    SourceState,
    Stamps,
)
from headrace_proto.store.documents import (
    ChannelRecord,
    ExperimentDocument,
    FileGroup,
    FileRecord,
    SourceRecord,
)
from headrace_proto.store.points import Points, Rows
from headrace_proto.store.registers import Stamp, wins
from headrace_proto.store.tables import UNDEFINED, SourceTable, placeholder

FACT_FIELDS: Final = {
    "name": "name",
    "description": "description",
    "author": "owner",
    "hostname": "hostname",
    "entrypoint": "entrypoint",
    "git": "git",
    "key": "key",
    "created_at": "created_at",
}
"""Facts that have a field of their own in the document; all others are listed under `facts`."""

BEYOND: Final = "unnamed/beyond"
"""The channel of all points whose channels are more than an experiment may have."""
REFUSALS_MAX: Final = 64
"""Different refusals that a document lists; the rest are counted together."""


class Place(NamedTuple):
    """Which experiment."""

    project: str
    experiment: str


class InlineFile(NamedTuple):
    """A file whose bytes came inside an event."""

    path: str
    data: bytes


class Quarantined(NamedTuple):
    """Bytes that are kept aside, and why."""

    source: str
    position: int
    raw: bytes
    reason: str


class SeriesRow(NamedTuple):
    """One point of a text or image channel."""

    channel: str
    step: float | None  # None: automatic
    time_us: int
    source: str
    position: int
    value: str | None = None  # a text
    file: str | None = None  # from the experiment's folder
    size: int | None = None
    sha256: str | None = None
    name: str | None = None
    description: str | None = None


class Columns(NamedTuple):
    """Numeric points of one batch, in terms of the experiment's list of channel names."""

    source: str
    code: NDArray[np.int32]
    points: Points

    def flat(self) -> Columns:
        """Itself."""
        return self


class RowColumns(NamedTuple):
    """Rows of one batch, in the same terms: `code` has one entry for each of a row's values."""

    source: str
    code: NDArray[np.int32]
    points: Rows

    def flat(self) -> Columns:
        """The same, value by value."""
        return Columns(self.source, np.tile(self.code, len(self.points.step)), self.points.flat())


class Draft:
    """Everything that a commit holds, open to change, and what is to be written before it."""

    def __init__(self, base: Commit | None, side: Side, place: Place, aside_max: int = ASIDE_MAX) -> None:
        document = base.document if base else ExperimentDocument(internal_id=place.experiment, project=place.project)
        stamps = base.stamps if base else Stamps()
        self.base: Final = base
        self.place: Final = place
        self.folder: Final = layout.experiment_folder(*place)
        self.document: Final = document
        self.facts: dict[str, Any] = _facts(document, stamps)
        self.params: dict[str, Any] = dict(document.params)
        self.properties: dict[str, str] = dict(document.properties)
        self.tags: set[str] = set(document.tags)
        self.stamps: Final[dict[str, dict[str, Stamp]]] = {
            name: dict(getattr(stamps, name)) for name in Stamps.model_fields
        }
        self.channels: Final[dict[PartKind, dict[str, ChannelRecord]]] = {
            kind: dict(getattr(document.channels, kind)) for kind in PART_KINDS
        }
        self.ties: Final[dict[PartKind, dict[str, tuple[str, int]]]] = {
            kind: dict(getattr(base.ties, kind)) if base else {} for kind in PART_KINDS
        }
        self.files: Final[dict[FileGroup, dict[str, FileRecord]]] = {
            "artifacts": dict(document.artifacts),
            "source_files": dict(document.source_files),
        }
        self.pending: dict[str, PendingFile] = dict(base.pending) if base else {}
        self.records: dict[str, SourceRecord] = dict(document.sources)
        self.states: dict[str, SourceState] = dict(base.sources) if base else {}
        self.names: list[str] = list(base.names) if base else []
        self.resets: dict[str, int] = dict(base.resets) if base else {}
        self.gaps: Counter[str] = Counter(document.notes.gaps)
        self.unknown_kinds: Counter[str] = Counter(document.notes.unknown_kinds)
        self.refused: Counter[str] = Counter(document.notes.refused)
        self.archive: Final = Archive(side)
        values = {"params": self.params, "properties": self.properties, "facts": self.facts}
        self.room: Final = Room(self.stamps, values)
        # what this draft adds
        self.points: list[Columns | RowColumns] = []
        self.automatic_rows: list[NDArray[np.int32]] = []
        self.rows: Final[dict[PartKind, list[SeriesRow]]] = {"text": [], "image": []}
        self.reset_now: set[str] = set()
        self.inline: dict[str, InlineFile] = {}
        self.quarantine: list[Quarantined] = []
        self.events_left = COMMIT_EVENTS_MAX
        self._aside_max: Final = aside_max
        self._aside: dict[str, list[Quarantined]] = {}
        self._words: int | None = None
        self.dropped: set[str] = set()
        self._codes: dict[str, int] = {name: code for code, name in enumerate(self.names)}
        self._tables: dict[str, SourceTable] = {}
        self._folders: dict[FileGroup, set[str]] = {}

    # -- Sources --------------------------------------------------------------------------------------------------------

    def record(self, source: str) -> SourceRecord:
        """What the document says of a source; fetched back from the side file if it was archived."""
        self._fetch(source)
        return self.records.get(source) or SourceRecord()

    def state(self, source: str) -> SourceState:
        """What the commit knows of a source."""
        self._fetch(source)
        return self.states.get(source) or SourceState()

    def change(self, source: str, **fields: Any) -> None:
        """Set fields of a source's record."""
        self.records[source] = self.record(source).model_copy(update=fields)
        self.states.setdefault(source, SourceState())

    def change_state(self, source: str, **fields: Any) -> None:
        """Set fields of a source's state."""
        self.states[source] = self.state(source).model_copy(update=fields)
        self.records.setdefault(source, SourceRecord())

    def table(self, source: str) -> SourceTable:
        """The words of a source, to be changed in place."""
        if source not in self._tables:
            self._tables[source] = SourceTable.of(self.state(source))
        return self._tables[source]

    def pack_tables(self) -> None:
        """Put the tables back into the states."""
        for source, table in self._tables.items():
            numbers, channels, schemas = table.packed()
            self.change_state(source, numbers=numbers, channels=channels, schemas=schemas)

    def room_for_words(self, count: int) -> bool:
        """Whether the experiment's tables may grow by `count` numbers, which are counted then."""
        if self._words is None:
            self._words = sum(
                len(state.numbers) + len(state.channels) + sum(map(len, state.schemas.values()))
                for state in self.states.values()
            )
        if self._words + count > EXPERIMENT_WORDS_MAX:
            return False
        self._words += count
        return True

    @cached_property
    def last_words(self) -> int:
        """Characters of all sources' tracebacks, counted when the first of this draft's ends with one."""
        archived = [item.record for item in self.archive.sources.values()]
        return sum(len(record.detail or "") for record in (*self.records.values(), *archived))

    def _fetch(self, source: str) -> None:
        archived = self.archive.take_source(source)
        if archived:
            self.records[source], self.states[source] = archived.record, archived.state

    # -- Names ----------------------------------------------------------------------------------------------------------

    def code(self, name: str) -> int:
        """The index of a channel's name in `names`; of BEYOND when the experiment has all that it may have."""
        if name not in self._codes and len(self.names) >= EXPERIMENT_CHANNELS_MAX:
            name = BEYOND
        if name not in self._codes:
            self._codes[name] = len(self.names)
            self.names.append(name)
        return self._codes[name]

    def channel_name(self, source: str, number: int) -> str:
        """The name that a source's channel number stands for."""
        code = self.table(source).code(number)
        return self.names[self.code(placeholder(source, number)) if code == UNDEFINED else code]

    # -- Registers ------------------------------------------------------------------------------------------------------

    def claim(self, group: str, field: str, stamp: Stamp, rule: Callable[[Stamp, Stamp | None], bool] = wins) -> bool:
        """Whether an event with `stamp` may set `field`; from then on the field is its."""
        stamps = self.stamps[group]
        if not rule(stamp, stamps.get(field)):
            return False
        stamps[field] = stamp
        return True

    # -- Files ----------------------------------------------------------------------------------------------------------

    def is_file(self, group: FileGroup, path: str) -> bool:
        """Whether the path is, or was, a file: a removed one lies there until a sweep."""
        return path in self.stamps[group] or path in self.archive.files[group]

    def files_known(self, group: FileGroup) -> int:
        """How many paths of the group are, or were, files."""
        return len(self.stamps[group]) + len(self.archive.files[group])

    def folders(self, group: FileGroup) -> set[str]:
        """The folders that paths of the group lie in."""
        if group not in self._folders:
            paths = (*self.stamps[group], *self.archive.files[group])
            self._folders[group] = {folder for path in paths for folder in folders_of(path)}
        return self._folders[group]

    # -- What is set aside ----------------------------------------------------------------------------------------------

    def refuse(self, source: str, event: Event, error: InvalidName | str) -> None:
        """Keep an event that the store cannot take, and say so in the document."""
        self.refuse_bytes(source, event.position, event.raw, error)

    def refuse_bytes(self, source: str, position: int, raw: bytes, error: InvalidName | str) -> None:
        """The same of an event that is not at hand any more; `raw` is what is kept of it."""
        reason = str(error)[:200]
        if reason not in self.refused and len(self.refused) >= REFUSALS_MAX:
            reason = "other"
        self.refused[reason] += 1
        self.set_aside(source, position, raw, reason)

    def set_aside(self, source: str, position: int, raw: bytes, reason: str) -> None:
        """Keep bytes in quarantine, once. Each is two objects of the store: what would be too many of them goes there together."""
        kept = self.quarantine if len(self.quarantine) < self._aside_max else self._aside.setdefault(source, [])
        last = (kept or self.quarantine)[-1:]
        if not last or last[0][:2] != (source, position):
            kept.append(Quarantined(source, position, raw, reason))

    def put_aside(self) -> list[Quarantined]:
        """All that is to be kept in quarantine."""
        together = [
            Quarantined(
                source,
                items[0].position,
                b"".join(item.raw for item in items),
                f"{len(items)} events, one after another, of which the first: {items[0].reason}",
            )
            for source, items in self._aside.items()
        ]
        return [*self.quarantine, *together]


def _facts(document: ExperimentDocument, stamps: Stamps) -> dict[str, Any]:
    """The facts that events have set; what the document derives from its sources is none."""
    own = {fact: getattr(document, field) for fact, field in FACT_FIELDS.items() if fact in stamps.facts}
    return {**document.facts, **own}


def folders_of(path: str) -> list[str]:
    """All folders above a relative path.

    >>> folders_of("a/b/c")
    ['a', 'a/b']
    """
    parts = path.split("/")[:-1]
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]


class Archive:
    """The side file's contents, from which a draft takes back what new events concern."""

    def __init__(self, side: Side) -> None:
        self.sources: dict[str, ArchivedSource] = dict(side.sources)
        self.files: Final[dict[FileGroup, dict[str, ArchivedFile]]] = {
            "artifacts": dict(side.artifacts),
            "source_files": dict(side.source_files),
        }
        self.swept: Final = frozenset(side.swept)
        self.changed = False

    def take_source(self, source: str) -> ArchivedSource | None:
        """An archived source, which is archived no longer."""
        archived = self.sources.pop(source, None)
        self.changed |= archived is not None
        return archived

    def take_file(self, group: FileGroup, path: str) -> ArchivedFile | None:
        """An archived file, which is archived no longer."""
        archived = self.files[group].pop(path, None)
        self.changed |= archived is not None
        return archived

    def side(self) -> Side:
        """As a side file."""
        return Side(
            sources=self.sources,
            artifacts=self.files["artifacts"],
            source_files=self.files["source_files"],
            swept=tuple(sorted(self.swept)),
        )
