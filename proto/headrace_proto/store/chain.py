"""The chain of one experiment: every change of what is stored is one commit, created only if absent.

Invariants
1. Order of a commit: quarantine, inline files, parts, side file; then `commits/<n>.json`, which makes all of it visible at once
   and moves the watermarks; then `experiment.json`. A kill before the create leaves unreferenced files and nothing else; a kill
   after it is met by batches that lie below the watermark.
2. A commit that could not be created has no effect. Its nonce tells whose the existing one is: an answer may get lost.
3. Nothing here acknowledges anything. A caller does, after `commit` has returned.

When the create is lost to another writer: if no source that the commit builds on has moved, the whole commit is made again upon the
new head (automatic steps and resets may come out differently there, so parts are written anew, too); if one moved, somebody else
owns those sources, and `CommitConflict` tells the caller to drop what it holds and to ask again.

What changes it is for one thread at a time; what only tells (`head.HeadView`) may be asked by any, at any time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from math import inf
from typing import Any, Final, NamedTuple

from headrace_proto.errors import CommitConflict, Corrupt
from headrace_proto.ids import random_id
from headrace_proto.limits import ASIDE_MAX, RETENTION_S
from headrace_proto.store import compaction, curation, layout
from headrace_proto.store.apply import Draft, FileDone, Tables, apply
from headrace_proto.store.apply.finish import archive, document_of, registers_of
from headrace_proto.store.backend import Store, store_id
from headrace_proto.store.claims import claim_id
from headrace_proto.store.commits import (
    CURATION_SOURCE,
    PART_KINDS,
    Commit,
    PartKind,
    PartRecord,
    Parts,
    PendingFile,
    Side,
)
from headrace_proto.store.curation import Change
from headrace_proto.store.documents import FILE_FOLDERS, ExperimentDocument
from headrace_proto.store.head import Head, HeadView
from headrace_proto.store.intake import Batch
from headrace_proto.store.publishing import DocumentFile
from headrace_proto.store.records import DOCUMENT_FORMAT
from headrace_proto.store.staging import Staging
from headrace_proto.store.times import at_us

__all__ = ["CURATION_SOURCE", "Batch", "Chain", "CommitResult", "FileDone"]

ATTEMPTS_MAX: Final = 16
"""Commits lost in a row to writers of other sources before the caller is told to come back later."""
LISTINGS_MAX: Final = 5
"""Listings of one load; each further one means that a sweep was faster than our reading."""
LATE_S: Final = RETENTION_S / 2
"""From a look at the head to the creation of its successor; past this the commit counts as lost."""
LOOK_AGAIN_S: Final = RETENTION_S / 8
"""Age of a look at the head at which a commit begins with another."""

Clock = Callable[[], float]
_BOOTTIME: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boot_clock() -> float:
    """Seconds since this host started, those in which it or this process slept included; else those of the monotonic clock."""
    return time.clock_gettime(_BOOTTIME)


class CommitResult(NamedTuple):
    """Where the experiment stands after a commit; the same when there was nothing new to commit."""

    number: int
    watermarks: dict[str, int]
    """Of the sources of what was given."""
    document: ExperimentDocument
    pending_files: frozenset[PendingFile]
    """Every spooled file of the experiment whose bytes are still to be put in place."""
    refused: tuple[str, ...] = ()
    """Why events of what was given are in quarantine instead; the first of them."""


class _Late(Exception):
    """A commit was created so long after the look at its predecessor that its number may have been taken and swept in between.

    It may be the newest commit or one that no reader will ever see. So its files stay where they are: only a look can tell.
    """


def _fields_of(commit: Commit) -> dict[str, Any]:
    return {name: getattr(commit, name) for name in Commit.model_fields}


class Chain(HeadView):
    """The commits of one experiment in one store."""

    def __init__(
        self, store: Store, project: str, experiment: str, *, clock: Clock = boot_clock, wanted_id: str = ""
    ) -> None:
        """`clock` gives seconds that go on while this process is stopped or its host sleeps; `wanted_id` is the id that a new
        experiment is to have, if that is free."""
        super().__init__(store, project, experiment)
        self._clock: Final = clock
        self._wanted_id: Final = wanted_id
        self._looked_at = -inf  # when the head was surely the newest commit
        self._store_id = ""
        self._document_file = DocumentFile(store, layout.document_file(project, experiment))

    # -- Looking at it --------------------------------------------------------------------------------------------------

    def load(self) -> Chain:
        """Read the newest commit, if it is newer than `head`. Raises `FormatUnknown`, `Corrupt` or `OSError`."""
        for _ in range(LISTINGS_MAX):
            looked_at = self._clock()
            number = self._newest_number()
            if number <= self.number:
                break
            try:
                commit = self.read_commit(number)
                self._head = Head(commit, self._read_side(commit.side))
            except FileNotFoundError:
                continue  # swept since the listing, so there is a newer one
            break
        else:
            raise Corrupt(f"commit {number} of {self.folder!r}, or the side file that it names, is missing")
        self._looked_at = looked_at
        return self

    def _newest_number(self) -> int:
        return max(layout.commit_numbers(self.store.names(layout.commits_folder(*self.place))), default=0)

    def _load_if_old(self) -> None:
        """Look before a commit that would count as lost, being made upon a head that was read long ago."""
        if self._clock() - self._looked_at > LOOK_AGAIN_S:
            self.load()

    def awaits(self, file: PendingFile) -> bool:
        """Whether the newest commit still waits for the file. Looks without moving `head`, so that any thread may ask."""
        newest = Chain(self.store, *self.place, clock=self._clock)
        newest._head = self._head
        return newest.load().pending(file.source, file.file) == file

    # -- Changing it ----------------------------------------------------------------------------------------------------

    def commit(self, batches: Sequence[Batch], *, files_done: Sequence[FileDone] = (), now_ns: int) -> CommitResult:
        """Store batches, and what became of spooled files. When this has returned, it is stored.

        That takes more than one commit when there are more than COMMIT_EVENTS_MAX events besides points. The batches of one
        source are in order; what lies below the watermark is dropped, a batch that straddles it is cut.
        Raises `ValueError` above a gap, `BadCut` when a cut would go through an event (keep that batch aside, ask for it
        again), `CommitConflict` when another writer moved one of these sources on (what is stored, the watermarks tell;
        the head is its commit now), and `OSError` when the store fails (it may or may not have been stored: give the same again).
        """
        self._load_if_old()
        sources = {batch.source for batch in batches} | {report.source for report in files_done}
        left, refused = self._commit_some(batches, files_done, sources, now_ns, ASIDE_MAX)
        while left:
            left, _ = self._commit_some(left, files_done, sources, now_ns, 0)
        return self._result(sources, refused)

    def _commit_some(
        self,
        batches: Sequence[Batch],
        files_done: Sequence[FileDone],
        sources: Collection[str],
        now_ns: int,
        aside_max: int,
    ) -> tuple[list[Batch], tuple[str, ...]]:
        """One commit, of what it has room for; what is left, nothing when all of it is stored, and why anything was refused."""
        before = {source: self._state(source).position for source in sources}
        for _ in range(ATTEMPTS_MAX):
            with self._in_doubt(), suppress(_Late):
                applied = apply(self.head, self._head.side, self.place, batches, files_done, self.read, aside_max)
                if applied is None:
                    return [], ()
                if self._commit_draft(applied.draft, applied.tables, now_ns):
                    return applied.left, tuple(item.reason for item in applied.draft.quarantine)
            self.load()
            moved = sorted(source for source in sources if self.watermark(source) != before[source])
            if moved:
                raise CommitConflict(f"another writer stored {', '.join(moved)} of {self.place.experiment} first")
        raise self._too_busy()

    def curate(self, changes: Sequence[Change], *, now_ns: int) -> CommitResult:
        """Change a stored experiment, in one commit: `changes` are those of `curation`, at most CHANGES_MAX.

        Raises `ValueError` for a change that is none, else what `commit` does.
        """
        for _ in range(ATTEMPTS_MAX):
            self.load()
            with suppress(CommitConflict):
                return self.commit(curation.batches(changes, self.head, self._head.side), now_ns=now_ns)
        raise self._too_busy()

    def compact(self, *, now_ns: int, final: bool = False) -> bool:
        """Merge parts when there are PARTS_MAX of a kind; with `final`, as an ended experiment rests. False if none were merged.

        What was merged stays in place for readers of older commits, and the commit lists it as `dropped`. Nothing is changed
        when another writer's compaction was faster.
        """
        self._load_if_old()
        plans = {kind: run for kind in PART_KINDS if (run := compaction.plan(self._live(kind), final=final))}
        merged = False
        with self._in_doubt(), suppress(_Late):
            merged = bool(plans) and self._commit_merged(plans, now_ns)
        if final and self.head:
            self._document_file.refresh(self.head, now_ns, anyway=True)
        return merged

    def fence(self, cleared: Collection[str], *, now_ns: int) -> bool:
        """Create the commit that a sweep of this head rests on: nothing changes but `sweep`. False if another was first.

        Whoever wrote files for this head's successor finds its number taken, and writes them anew. `cleared` are the places
        of artifacts and source files that the sweep removes: the next file that is logged there is put elsewhere, for the
        sweeper may be slow. Upon False nothing may be removed: look at the new head.
        """
        staging = Staging(self.store, self.place, self.number + 1, random_id())
        side = self._head.side
        fields: dict[str, Any] = _fields_of(self.head) if self.head else {"document": self.document}
        fields["dropped"] = ()
        with self._in_doubt(), suppress(_Late):
            if not set(cleared) <= set(side.swept):
                side = side.model_copy(update={"swept": tuple(sorted({*side.swept, *cleared}))})
                path = staging.put_side(side)
                fields |= {"side": path, "dropped": self._dropped(path)}
            if self._create(staging, side, fields, now_ns, sweeps=True):
                return True
            staging.discard()
        self.load()
        return False

    # -- How a commit is made -------------------------------------------------------------------------------------------

    @contextmanager
    def _in_doubt(self) -> Iterator[None]:
        """When the store fails, a commit may have been created all the same: look before the next one."""
        try:
            yield
        except OSError:
            self._looked_at = -inf
            raise

    def _commit_draft(self, draft: Draft, tables: Tables, now_ns: int) -> bool:
        """Write a draft and create its commit. False, and nothing left behind, when another writer was first."""
        archive(draft)
        staging = Staging(self.store, self.place, self.number + 1, random_id())
        staging.put_aside(draft.put_aside(), now_ns)
        mutable = tuple(f"{self.folder}/{folder}/" for folder in FILE_FOLDERS.values())
        if any(path.startswith(mutable) for path in draft.inline) and self._newest_number() > self.number:
            return False  # whoever slept since the look at the head must not put older bytes over newer ones
        staging.put_inline(draft.inline)
        added = {
            "numeric": staging.put_stretches(tables.numeric),
            "text": staging.put_part("text", tables.text),
            "image": staging.put_part("image", tables.image),
        }
        side, side_path = self._head.side, self.head.side if self.head else None
        if draft.archive.changed:
            side = draft.archive.side()
            side_path = staging.put_side(side)
        fields = {
            "document": document_of(draft, self.document.id or claim_id(self.store, *self.place, self._wanted_id)),
            "parts": Parts(**{kind: (*self._live(kind), *added[kind]) for kind in PART_KINDS}),
            "dropped": self._dropped(side_path, draft.dropped),
            "side": side_path,
            **registers_of(draft),
        }
        created = self._create(staging, side, fields, now_ns)
        if not created:
            staging.discard()
        return created

    def _commit_merged(self, plans: dict[PartKind, compaction.Run], now_ns: int) -> bool:
        staging = Staging(self.store, self.place, self.number + 1, random_id())
        sweep = self.head.sweep if self.head else 0
        merged = {kind: staging.put_merged(kind, run) for kind, run in plans.items()}
        dropped = sorted(part.path for run in plans.values() for part in run)
        self._load_if_old()  # a merge may take long; its parts are good as long as nobody sweeps
        for _ in range(ATTEMPTS_MAX):
            live = self._live_after(plans, merged)
            # a sweeper may have taken the merged parts, which no commit names yet, for leftovers
            if not self.head or live is None or self.head.sweep != sweep:
                break
            fields = _fields_of(self.head)
            fields |= {"parts": self.head.parts.model_copy(update=live), "dropped": tuple(dropped)}
            if self._create(staging, self._head.side, fields, now_ns):
                return True
            self.load()
        staging.discard()
        return False

    def _live_after(
        self, plans: dict[PartKind, compaction.Run], merged: dict[PartKind, PartRecord]
    ) -> dict[str, compaction.Run] | None:
        """The live parts with those that were merged replaced; None when another writer has replaced some of them."""
        live: dict[str, compaction.Run] = {}
        for kind, run in plans.items():
            after = compaction.replaced(self._live(kind), run, merged[kind])
            if after is None:
                return None
            live[kind] = after
        return live

    def _dropped(self, side: str | None, others: Iterable[str] = ()) -> tuple[str, ...]:
        """What the next commit drops: its predecessor's side file, if it has another, and others."""
        old = self.head.side if self.head else None
        return tuple(sorted({*others, *({old} if old and old != side else ())}))

    def _create(
        self, staging: Staging, side: Side, fields: dict[str, Any], now_ns: int, *, sweeps: bool = False
    ) -> bool:
        """Create the next commit. False when another writer has its number; `_Late` when nobody can tell."""
        head, number = self.head, self.number + 1
        own = {
            "format": DOCUMENT_FORMAT,
            "number": number,
            "nonce": staging.nonce,
            "written_at": at_us(now_ns // 1000),
            "store": self._store_id or store_id(self.store),
            "sweep": (head.sweep if head else 0) + sweeps,
            "swept": number if sweeps else head.swept if head else 0,
            "drops": 0 if not head else head.number if head.dropped else head.drops,
        }
        commit = Commit(**{**fields, **own})
        self._store_id = commit.store
        path = layout.commit_file(*self.place, commit.number)
        began = self._clock()
        if not self.store.create(path, commit.encode()) and self.read_commit(commit.number).nonce != commit.nonce:
            return False
        if self._clock() - self._looked_at > LATE_S:
            self._looked_at = -inf
            raise _Late
        self._looked_at = began  # a successor can only have come after this
        self._head = Head(commit, side)
        self._document_file.refresh(commit, now_ns)
        return True

    # -- Small things ---------------------------------------------------------------------------------------------------

    def read_commit(self, number: int) -> Commit:
        """One commit. Raises `FileNotFoundError` when it was swept, `FormatUnknown` or `Corrupt`."""
        path = layout.commit_file(*self.place, number)
        return Commit.decode(self.store.read(path), path)

    def _read_side(self, name: str | None) -> Side:
        if name is None:
            return Side()
        if self.head and self.head.side == name:
            return self._head.side
        path = f"{self.folder}/{name}"
        return Side.decode(self.store.read(path), path)

    def _result(self, sources: Collection[str], refused: tuple[str, ...] = ()) -> CommitResult:
        waiting = self.head.pending.values() if self.head else ()
        watermarks = {source: self.watermark(source) for source in sources}
        return CommitResult(self.number, watermarks, self.document, frozenset(waiting), refused)

    def _too_busy(self) -> CommitConflict:
        return CommitConflict(f"other writers of {self.place.experiment} were first {ATTEMPTS_MAX} times in a row")
