"""A worker's blocking side: one experiment's chain of commits. `load` and `commit` run in the store's threads, one
at a time; what else it tells is read from immutable commits, at any time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from headrace_collector.gathering import Taken
from headrace_collector.intake import Arrival, Standing
from headrace_collector.quarantine import put_away
from headrace_proto.errors import Corrupt, HeadraceError
from headrace_proto.events import Role
from headrace_proto.frame import SOURCE_GONE, Frame, FrameKind, raw_body
from headrace_proto.ids import token
from headrace_proto.store.backend import Store
from headrace_proto.store.chain import Batch, Chain, FileDone
from headrace_proto.store.columns import BadCut
from headrace_proto.store.commits import PART_KINDS, Commit, PendingFile
from headrace_proto.store.documents import LostRange
from headrace_proto.store.intake import admit

_LOG: Final = logging.getLogger(__name__)


POISON_TRIES: Final = 4
"""A commit that fails so often, by nobody's fault that is known, has a batch that this release cannot take: it must not hold up
the others for ever."""
NOT_APPLIED: Final = "cannot be applied"


class Stored(NamedTuple):
    """What became of what a commit was given."""

    taken: Taken
    refused: list[Arrival]
    """Batches that contradict what is stored: put into quarantine, to be sent again. What followed them was not taken."""
    points: int


class Committer:
    """One experiment in the store."""

    def __init__(self, store: Store, project: str, experiment: str) -> None:
        self.store: Final = store
        self.project: Final = project
        self.experiment: Final = experiment
        self._chain: Final = Chain(store, project, experiment)
        self._failures = 0

    # -- In a thread ----------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Look where the store stands. Raises `OSError`, and `FormatUnknown` or `Corrupt` for what is stored there."""
        self._chain.load()

    def commit(self, taken: Taken, files_done: Sequence[FileDone]) -> Stored:
        """Store what was taken. Raises `CommitConflict` when somebody else did, `OSError` when the store is out of order."""
        accepted: Taken = {}
        batches: list[Batch] = []
        refused: list[Arrival] = []
        for source, arrivals in taken.items():
            opened = self._open(source, arrivals)
            accepted[source] = arrivals[: len(opened)]
            batches += opened
            refused += arrivals[len(opened) : len(opened) + 1]
        before = self._chain.head
        self._commit(batches, files_done)
        return Stored(accepted, refused, _new_points(before, self._chain.head))

    def _commit(self, batches: list[Batch], files_done: Sequence[FileDone]) -> None:
        try:
            self._chain.commit(batches, files_done=files_done, now_ns=time.time_ns())
        except (OSError, HeadraceError, MemoryError):  # the store's doing, or the machine's: no batch is to blame
            raise
        except Exception:
            self._failures += 1
            if self._failures < POISON_TRIES:
                raise
            _LOG.exception(
                "batches cannot be applied together: each is tried alone", extra={"failures": self._failures}
            )
            for batch in batches:
                self._commit_alone(batch)
            self._chain.commit([], files_done=files_done, now_ns=time.time_ns())
        self._failures = 0

    def _commit_alone(self, batch: Batch) -> None:
        """Store one batch; one that this release fails at is kept for a person, and becomes a lost range of exactly its bytes."""
        try:
            self._chain.commit([batch], now_ns=time.time_ns())
        except (OSError, HeadraceError, MemoryError):
            raise
        except Exception as error:
            reason = f"poison: it cannot be applied: {type(error).__name__}: {error}"
            _LOG.exception("a batch goes to quarantine", extra={"source": batch.source, "first": batch.first})
            facts = {name: value for name, value in batch._asdict().items() if name != "raw"}
            put_away(self.store, token(self.experiment), batch.raw, {"batch": facts, "reason": reason})
            lost = batch._replace(raw=b"", kind=FrameKind.LOST, reason=NOT_APPLIED)
            self._chain.commit([lost], now_ns=time.time_ns())

    def _open(self, source: str, arrivals: Sequence[Arrival]) -> list[Batch]:
        """The batches of one source, up to the first that contradicts what stands before it."""
        position, lost = self._chain.watermark(source), self._lost(source)
        opened: list[Batch] = []
        for arrival in arrivals:
            batch = self._batch(arrival.frame)._replace(site=arrival.site)
            if batch.first < position:  # rare, and the only batches that are cut
                try:
                    admit(batch, position, lost)
                except BadCut as error:
                    self._put_away(arrival.frame, f"it contradicts what is stored: {error}")
                    break
            opened.append(batch)
            position = max(position, batch.end)
        return opened

    def _batch(self, frame: Frame) -> Batch:
        try:
            raw = raw_body(frame)
        except Corrupt as error:  # sent so, for the checksum over all of it held: sent again it would be the same
            self._put_away(frame, f"poison: {error}")
            return Batch(frame.source, frame.first, frame.end, b"", FrameKind.LOST, "does not decompress")
        return Batch(frame.source, frame.first, frame.end, raw, frame.kind, frame.reason)

    def _put_away(self, frame: Frame, reason: str) -> None:
        _LOG.error("a batch goes to quarantine", extra={"source": frame.source, "first": frame.first, "reason": reason})
        facts = {name: value for name, value in frame._asdict().items() if name != "body"}
        put_away(self.store, token(frame.experiment), bytes(frame.body), {"frame": facts, "reason": reason})

    def awaits(self, file: PendingFile) -> bool:
        """Whether the newest commit, whoever made it, still waits for a file."""
        return self._chain.awaits(file)

    # -- At any time ----------------------------------------------------------------------------------------------------

    @property
    def head(self) -> Commit | None:
        """The newest commit, if there is one."""
        return self._chain.head

    @property
    def number(self) -> int:
        """The newest commit's number; 0 before the first."""
        return self._chain.number

    @property
    def short_id(self) -> str:
        """`KEY-7`, or "" before the first commit."""
        return self._chain.document.id

    def standing(self, source: str) -> Standing:
        """Where the store stands with a source."""
        lost = tuple((gap.first, gap.end) for gap in self._lost(source))
        return Standing(self._chain.watermark(source), lost)

    def _lost(self, source: str) -> tuple[LostRange, ...]:
        record = self._chain.document.sources.get(source)  # nearly always: the chain would join the archived ones first
        return record.lost if record else self._chain.lost(source)

    def missing(self, source: str) -> int:
        """Where the first range begins that collectors gave up and somebody may still have; -1 if there is none."""
        return next((gap.first for gap in self._lost(source) if gap.reason == SOURCE_GONE), -1)

    def site(self, source: str) -> str:
        """The site that a source is bound to, "" while there is none."""
        return self._chain.site(source)

    @property
    def sources(self) -> int:
        """How many sources the experiment has."""
        return self._chain.source_count

    def dead(self, source: str) -> bool:
        """Whether the store knows that a source's writer is gone."""
        return self._chain.dead(source)

    def is_over(self, source: str) -> bool:
        """Whether the store has all that a source will ever log: it is closed, or its writer is gone, and no gap may be filled."""
        return self._chain.over(source) and self.missing(source) < 0

    def is_system(self, source: str) -> bool:
        """Whether a source is an agent that samples hardware."""
        record = self._chain.document.sources.get(source)
        return record is not None and record.role == Role.SYSTEM

    def pending(self, source: str, file: str) -> PendingFile | None:
        """A file that an event named and that is not in place yet."""
        return self._chain.pending(source, file)

    def has_file(self, source: str, file: str) -> bool:
        """Whether a file needs no more bytes, whatever became of it."""
        return self._chain.has_file(source, file)


def _new_points(before: Commit | None, head: Commit | None) -> int:
    """Points in parts that were not there before and are no work of compaction."""
    if head is None:
        return 0
    known = {part.path for kind in PART_KINDS for part in before.parts.of(kind)} if before else set()
    fresh = (part for kind in PART_KINDS for part in head.parts.of(kind) if part.path not in known)
    return sum(part.rows for part in fresh if part.level == 0)
