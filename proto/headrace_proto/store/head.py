"""The head of an experiment's chain: the newest commit that was read or made, and what it says of the experiment.

A head is replaced as a whole and never changed, so that any thread, at any time, reads what fits together.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import pyarrow as pa

from headrace_proto.store import layout, parts
from headrace_proto.store.apply.draft import Place
from headrace_proto.store.apply.files import file_number
from headrace_proto.store.backend import Store
from headrace_proto.store.commits import Commit, PartKind, PartRecord, PendingFile, Side, SourceState
from headrace_proto.store.documents import ExperimentDocument, FileGroup, FileRecord, LostRange, SourceRecord


class Head(NamedTuple):
    """A commit, None before the first, and the side file that it names."""

    commit: Commit | None = None
    side: Side = Side()


class HeadView:
    """One experiment of a store, as its head has it."""

    def __init__(self, store: Store, project: str, experiment: str) -> None:
        self.store: Final = store
        self.place: Final = Place(project, experiment)
        self.folder: Final = layout.experiment_folder(project, experiment)
        self._head = Head()

    @property
    def head(self) -> Commit | None:
        """The newest commit that was read or made."""
        return self._head.commit

    @property
    def number(self) -> int:
        """The head's number, 0 if the experiment has no commit."""
        return self.head.number if self.head else 0

    @property
    def document(self) -> ExperimentDocument:
        """The head's document; an empty one if the experiment has no commit."""
        if self.head:
            return self.head.document
        return ExperimentDocument(internal_id=self.place.experiment, project=self.place.project)

    def watermark(self, source: str) -> int:
        """The position below which the store holds everything of a source, but for what `lost` says."""
        return self._state(source).position

    def site(self, source: str) -> str:
        """The first site that sent a source, "" while there is none."""
        return self._state(source).site

    def dead(self, source: str) -> bool:
        """Whether a source's writer was observed dead where its watermark stands."""
        state = self._state(source)
        return state.dead_at is not None and state.dead_at >= state.position

    def over(self, source: str) -> bool:
        """Whether a source has ended where its watermark stands: it said so, or its writer was observed dead."""
        commit, side = self._head
        if commit and source in commit.document.sources:
            return commit.document.sources[source].state != "open"
        return source in side.sources

    def lost(self, source: str) -> tuple[LostRange, ...]:
        """The ranges below the watermark that the store does not have, and takes when they come."""
        commit, side = self._head
        if commit and source in commit.document.sources:
            return commit.document.sources[source].lost
        return side.sources[source].record.lost if source in side.sources else ()

    def pending(self, source: str, file: str) -> PendingFile | None:
        """Where a spooled file's bytes are awaited; None before its event is stored, and once it is finished."""
        return self.head.pending.get(f"{source}/{file}") if self.head else None

    def has_file(self, source: str, file: str) -> bool:
        """Whether a spooled file needs no more bytes, whatever became of it."""
        number = file_number(file)
        return number is not None and any(first <= number < first + count for first, count in self._state(source).files)

    def sources(self) -> dict[str, SourceRecord]:
        """All sources, archived ones too."""
        archived = {source: item.record for source, item in self._head.side.sources.items()}
        return {**archived, **self.document.sources}

    @property
    def source_count(self) -> int:
        """How many sources the experiment has, archived ones too."""
        commit, side = self._head
        return len(side.sources) + (len(commit.sources) if commit else 0)

    def artifacts(self) -> dict[str, FileRecord]:
        """All artifacts, archived ones too."""
        archived = {path: item.record for path, item in self._head.side.artifacts.items() if item.record}
        return {**archived, **self.document.artifacts}

    def source_files(self) -> dict[str, FileRecord]:
        """All source files of the program, archived ones too."""
        archived = {path: item.record for path, item in self._head.side.source_files.items() if item.record}
        return {**archived, **self.document.source_files}

    def was_archived(self, group: FileGroup, path: str) -> bool:
        """Whether the side file lists a file, or its removal."""
        return path in getattr(self._head.side, group)

    def read(self, kind: PartKind, channels: Iterable[str] | None = None) -> pa.Table:
        """All stored points of some channels (all, if None), hidden ones too, sorted by channel, step and time."""
        paths = [f"{self.folder}/{part.path}" for part in self.head.parts.of(kind)] if self.head else []
        return parts.read(self.store, kind, paths, None if channels is None else set(channels))

    def _state(self, source: str) -> SourceState:
        commit, side = self._head
        if commit and source in commit.sources:
            return commit.sources[source]
        return side.sources[source].state if source in side.sources else SourceState()

    def _live(self, kind: PartKind) -> tuple[PartRecord, ...]:
        return self.head.parts.of(kind) if self.head else ()
