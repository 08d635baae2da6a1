"""Direct mode: a process that brings its own journal into the store, without agent, broker or collector.

It is the collector's way in one place: the same batches of whole events, the same `Chain.commit`, the same watermarks. So an
agent that finds the journal later sends nothing twice, and a journal that this process leaves behind is shipped like any other.
"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 - now: pandas wants it, and at a process's end (Python 3.13) it can't be imported
import os
import shutil
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from headrace import waiting
from headrace.placing import put_in_place
from headrace.waiting import Receipt
from headrace_proto.errors import CommitConflict, HeadraceError, MissingExtra, SaveError
from headrace_proto.frame import FrameKind
from headrace_proto.home import GONE
from headrace_proto.journal import Damage, JournalReader
from headrace_proto.limits import BATCH_RAW_MAX, MIB
from headrace_proto.spool import COMPANION_SUFFIX

try:
    from headrace_proto.store.backend import open_store
    from headrace_proto.store.catalog import append_rows, row_of
    from headrace_proto.store.chain import Batch, Chain, FileDone
except ImportError as error:
    raise MissingExtra.named("direct=True", "read") from error

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from headrace_proto.home import Home
    from headrace_proto.store.commits import PendingFile

COMMIT_BYTES: Final = 16 * MIB
"""Of events in one commit: about half a million points."""
_PAUSE_S: Final = 0.001
_RETRY_S: Final = 0.2


def check_store(url: str) -> None:
    """Raise what is wrong with a store's URL, without writing there."""
    open_store(url, writable=False)


class Direct:
    """The way of one experiment's events into the store. One thread at a time."""

    def __init__(self, home: Home, store: str, project: str, experiment: str) -> None:
        self._home: Final = home
        self._store: Final = open_store(store)
        self._project: Final = project
        self._chain: Final = Chain(self._store, project, experiment)

    def short_id(self, positions: Mapping[str, int], timeout_s: float | None) -> str | None:
        """The experiment's short id. It comes with the first commit, so there is one afterwards, or None in time."""
        if not self._chain.document.id:
            self.save(positions, timeout_s)
        return self._chain.document.id or None

    def save(self, positions: Mapping[str, int], timeout_s: float | None) -> Receipt:
        """Store each source up to its position, and its files.

        A failing store is tried again until the time is over. Raises `SaveError` when it fails still.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            try:
                return self._save(positions, deadline)
            except CommitConflict:
                self._chain.load()  # another writer was first: go on from there
            except OSError as error:
                if isinstance(error, HeadraceError):
                    raise
                if _is_over(deadline):
                    raise SaveError(
                        f"the store {self._store.url!r} failed: {error}. All is safe in the journal"
                    ) from error
                time.sleep(_RETRY_S)

    def _save(self, positions: Mapping[str, int], deadline: float | None) -> Receipt:
        self._chain.load()
        for source, position in positions.items():
            for batches in self._batches(source, position, deadline):
                self._chain.commit(batches, now_ns=time.time_ns())
        for source in positions:
            self._put_files(source)
        self._finish()
        stored = sum(min(self._chain.watermark(source), position) for source, position in positions.items())
        files = sum(len(waiting.spooled(self._home, source)) for source in positions)
        journaled = sum(positions.values())
        return Receipt(journaled, stored, stored, files, stored == journaled and files == 0)

    # -- Events ----------------------------------------------------------------------------------------------------------

    def _batches(self, source: str, position: int, deadline: float | None) -> Iterator[list[Batch]]:
        """What the store lacks of a source, in lists worth a commit."""
        first = self._chain.watermark(source)
        if first >= position:
            return
        reader = JournalReader(self._home.journal(source))
        try:
            gathered: list[Batch] = []
            while first < position:
                reader.poll(time.monotonic_ns())
                batch = _batch(source, first, reader.read(first, BATCH_RAW_MAX))
                if batch is None:
                    if _is_over(deadline):
                        break
                    time.sleep(_PAUSE_S)
                    continue
                gathered.append(batch)
                first = batch.end
                if first - gathered[0].first >= COMMIT_BYTES:
                    yield gathered
                    gathered = []
            if gathered:
                yield gathered
        finally:
            reader.close()

    # -- Files -----------------------------------------------------------------------------------------------------------

    def _put_files(self, source: str) -> None:
        """Put every spooled file in place that the experiment waits for, commit that, and free what it needs no more."""
        head = self._chain.head
        pending = [file for file in head.pending.values() if file.source == source] if head else []
        done = [FileDone(source, file.file, self._put(file)) for file in pending]
        if done:
            self._chain.commit([], files_done=done, now_ns=time.time_ns())
        for file in waiting.spooled(self._home, source):
            if self._chain.has_file(source, file):
                path = os.path.join(self._home.spool(source), file)
                os.unlink(path)
                os.unlink(path + COMPANION_SUFFIX)

    def _put(self, file: PendingFile) -> str:
        """Put one file in place; the reason why not, if what we hold is not what was logged."""
        return put_in_place(self._store, self._chain, file, lambda: self._spooled(file))

    def _spooled(self, file: PendingFile) -> Iterator[bytes]:
        with open(os.path.join(self._home.spool(file.source), file.file), "rb", buffering=0) as content:
            while block := content.read(MIB):
                yield block

    # -- The end ---------------------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Show the experiment in lists; a finished one in few files."""
        head = self._chain.head
        if head is None or head.blank:
            return
        if head.document.state != "running":
            self._chain.compact(now_ns=time.time_ns(), final=True)
        append_rows(self._store, self._project, [row_of(self._chain.head or head)])

    def free(self, source: str) -> None:
        """Delete the journal of a source that is closed and stored. An agent that serves this home does that itself."""
        if not waiting.agent_serves(self._home):
            gone = os.path.join(self._home.journals, f"{GONE}{source}")
            with suppress(OSError):  # in one step, so that what a kill leaves behind is known for what it is
                os.rename(self._home.journal(source), gone)
            shutil.rmtree(gone, ignore_errors=True)
            shutil.rmtree(self._home.spool(source), ignore_errors=True)


def _batch(source: str, first: int, found: bytes | Damage | None) -> Batch | None:
    if isinstance(found, Damage):
        return Batch(source, first, found.end, kind=FrameKind.LOST, reason=found.reason)
    return Batch(source, first, first + len(found), found) if found else None


def _is_over(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline
