"""Runs of an export on their way into a store: each through its own chain of commits, as a collector would store it.

What tells whether a run is there is the store itself: the experiment's id follows from project and run id, its sources' ids from
that, and the watermark says how much of their journals is stored. The fact `import` holds the export's fingerprint, so that an
export that has changed since is seen, and not mixed with what is there.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final, NamedTuple

from headrace import secrets
from headrace.moving import meaning
from headrace.moving.attachments import Attachment, Attachments
from headrace.moving.contents import contents_of
from headrace.moving.export import Export, Run
from headrace.moving.journal import Piece, RunJournal
from headrace_proto.errors import CommitConflict, InvalidName, InvalidValue
from headrace_proto.ids import ID_LENGTH, derived_id
from headrace_proto.limits import MIB
from headrace_proto.names import project_name
from headrace_proto.store.backend import Store
from headrace_proto.store.catalog import CatalogRow, row_of
from headrace_proto.store.chain import Batch, Chain, FileDone

JOURNAL_FORMAT: Final = 1
"""Of the bytes that `journal` makes: a release that makes others from the same export says so here."""
COMMIT_BYTES: Final = 32 * MIB
"""Of events in one commit: a million points, which take about 200 MB while they are stored."""
ATTACHMENTS_MAX: Final = 256
ATTACHED_BYTES: Final = 32 * MIB
"""Of payloads held in memory until they are put in place."""
_CONFLICTS_MAX: Final = 8
_FACT: Final = "import"


Progress = Callable[[int], None]


class Fate(StrEnum):
    """What became of a run."""

    IMPORTED = "imported"
    THERE = "already there"
    CHANGED = "changed"
    TAKEN = "taken"


class Arrived(NamedTuple):
    """A run, after its import."""

    run: Run
    fate: Fate
    project: str
    row: CatalogRow | None
    """What the catalog is to show of it."""
    left_out: dict[str, int]
    masked: int = 0
    says: str = ""
    """Why it was not imported, or what is different from what was wanted."""


def import_run(
    store: Store, export: Export, run: Run, project: str | None = None, progress: Progress | None = None
) -> Arrived:
    """Store a run, or what the store lacks of it. Imports of one run at the same time do no harm.

    `progress` is told how many rows more are stored, from time to time.

    Raises `Corrupt` when the export cannot be read, `OSError` when the store fails: what was committed stays, and the next import
    goes on from there.
    """
    place = project or project_of(run.project_id)
    experiment = derived_id(place, run.run_id)
    mark = run.fingerprint(f"{JOURNAL_FORMAT} {secrets.setting()}")
    found = Chain(store, place, experiment).load()
    there = _import_of(found)
    if found.head is not None and not found.head.blank:
        if there is None:
            return _left(run, Fate.TAKEN, place, f"{found.document.id} has its key {run.run_id!r}, and is no import")
        if there.get("fingerprint") != mark:
            return _left(
                run, Fate.CHANGED, place, f"{found.document.id} was imported from another state of this export"
            )
        if _is_whole(found, int(there.get("sources", 1))):
            found.compact(now_ns=time.time_ns(), final=True)  # a kill may have come between the last commit and this
            return Arrived(run, Fate.THERE, place, _row(found), _left_out(found))
    return _Arrival(store, export, run, place, experiment, mark, progress or _silent).complete()


def project_of(project_id: str) -> str:
    """The project that a Neptune project becomes: of the same name, but for characters that ours may not have."""
    try:
        return project_name(project_id)
    except InvalidName:
        workspace, _, name = project_id.rpartition("/")
        parts = [re.sub(r"[^A-Za-z0-9._-]+", "-", part).strip("-._")[:64] for part in (workspace, name)]
        return project_name("/".join(part or "neptune" for part in parts))


def source_id(experiment: str, number: int) -> str:
    """The source that a run's journal is of."""
    return sha256(f"{experiment}:neptune-exporter:{number}".encode()).hexdigest()[:ID_LENGTH]


class _Arrival:
    """One run on its way."""

    def __init__(
        self, store: Store, export: Export, run: Run, project: str, experiment: str, mark: str, progress: Progress
    ) -> None:
        contents = contents_of(run)
        if contents.files and not os.path.isdir(export.files):
            raise InvalidValue(
                f"{run.run_id} of {run.project_id} has files, and there is no folder {export.files!r}: name the one that "
                "neptune-exporter downloaded them to with --files (an empty one, if they are not wanted)"
            )
        self._said: Final = meaning.meaning_of(run, contents)
        self._run: Final = run
        self._progress: Final = progress
        self._chain: Final = Chain(store, project, experiment, wanted_id=self._said.wanted_id)
        self._store: Final = store
        note: dict[str, Any] = {
            "from": "neptune-exporter",
            "project_id": run.project_id,
            "run_id": run.run_id,
            "fingerprint": mark,
        }
        names = meaning.short_names(contents.files, meaning.ARTIFACTS)
        self._attachments: Final = Attachments(export.files, names)
        self._journal: Final = RunJournal(run, contents, self._said, self._attachments, note)
        note["sources"] = self._journal.sources

    def complete(self) -> Arrived:
        """Store all of it."""
        for attempt in range(_CONFLICTS_MAX):
            try:
                for number in range(self._journal.sources):
                    self._store_source(source_id(self._chain.place.experiment, number), number)
                break
            except CommitConflict:  # the same run is imported by somebody else, too: go on from what is there
                if attempt == _CONFLICTS_MAX - 1:
                    raise
                self._chain.load()
        self._chain.compact(now_ns=time.time_ns(), final=True)
        says = ""
        if self._said.wanted_id and self._chain.document.id != self._said.wanted_id:
            says = (
                f"{self._said.wanted_id} is called {self._chain.document.id} here: that id, or the key of it, was taken"
            )
        place = self._chain.place.project
        return Arrived(
            self._run, Fate.IMPORTED, place, _row(self._chain), _left_out(self._chain), self._said.masked, says
        )

    def _store_source(self, source: str, number: int) -> None:
        self._chain.load()
        position = 0
        gathered = _Gathered(source)
        for piece in self._journal.pieces(number):
            first, position = position, position + len(piece.raw)
            if self._is_stored(source, position, piece):
                continue
            gathered.add(Batch(source, first, position, piece.raw), piece)
            if gathered.is_full:
                self._commit(gathered)
                gathered = _Gathered(source)
        self._commit(gathered)

    def _is_stored(self, source: str, end: int, piece: Piece) -> bool:
        waiting = any(self._chain.pending(source, attachment.file) for attachment in piece.attachments)
        return end <= self._chain.watermark(source) and not waiting

    def _commit(self, gathered: _Gathered) -> None:
        chain, now_ns = self._chain, time.time_ns()
        if gathered.batches:
            chain.commit(gathered.batches, now_ns=now_ns)
        done = []
        for attachment in gathered.attachments:
            pending = chain.pending(gathered.source, attachment.file)
            if pending is not None:
                self._store.put_stream(pending.path, attachment.blocks())
                done.append(FileDone(gathered.source, attachment.file))
        if done:
            chain.commit([], files_done=done, now_ns=now_ns)
        chain.compact(now_ns=now_ns)
        self._progress(gathered.rows)


class _Gathered:
    """What the next commit takes up."""

    def __init__(self, source: str) -> None:
        self.source: Final = source
        self.batches: Final[list[Batch]] = []
        self.attachments: Final[list[Attachment]] = []
        self.rows = 0
        self._bytes = 0
        self._held = 0

    def add(self, batch: Batch, piece: Piece) -> None:
        self.rows += piece.rows
        self.batches.append(batch)
        self.attachments.extend(piece.attachments)
        self._bytes += len(batch.raw)
        self._held += sum(len(attachment.data or b"") for attachment in piece.attachments)

    @property
    def is_full(self) -> bool:
        return self._bytes >= COMMIT_BYTES or self._held >= ATTACHED_BYTES or len(self.attachments) >= ATTACHMENTS_MAX


def _import_of(chain: Chain) -> dict[str, Any] | None:
    note = chain.document.facts.get(_FACT)
    return note if isinstance(note, dict) else None


def _left_out(chain: Chain) -> dict[str, int]:
    """What the experiment itself says it lacks."""
    refused = {f"refused: {what}": count for what, count in chain.document.notes.refused.items()}
    return {**((_import_of(chain) or {}).get("left_out") or {}), **refused}


def _silent(rows: int) -> None:
    """Nobody wants to know."""


def _is_whole(chain: Chain, sources: int) -> bool:
    own = [source_id(chain.place.experiment, number) for number in range(sources)]
    known = chain.sources()
    closed = all(source in known and known[source].state != "open" for source in own)
    waiting = chain.head is not None and any(file.source in own for file in chain.head.pending.values())
    return closed and not waiting


def _row(chain: Chain) -> CatalogRow | None:
    return row_of(chain.head) if chain.head is not None else None


def _left(run: Run, fate: Fate, project: str, says: str) -> Arrived:
    return Arrived(run, fate, project, None, {}, says=says)
