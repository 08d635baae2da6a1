"""The ground of all edits: a change, its payload, and the commit that brings both into the store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from threading import RLock
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from headrace import buffering
from headrace.live.stamps import stamp_ns
from headrace.placing import put_in_place
from headrace_proto.errors import CommitConflict, Corrupt, InvalidValue
from headrace_proto.limits import INLINE_BYTES_MAX, MIB
from headrace_proto.store.backend import open_store
from headrace_proto.store.catalog import append_rows, row_of
from headrace_proto.store.chain import Batch, Chain, FileDone
from headrace_proto.store.commits import CURATION_SOURCE
from headrace_proto.store.curation import CHANGES_MAX, Change, Held

if TYPE_CHECKING:
    from headrace.reading.snapshot import Snapshot
    from headrace_proto.events import Kind
    from headrace_proto.store.backend import Store
    from headrace_proto.store.commits import PendingFile

COMMIT_BYTES: Final = 16 * MIB
"""Of payloads within the changes of one commit."""
FINISH_ATTEMPTS_MAX: Final = 16
"""Commits lost in a row while a file is reported as being in place."""


class Payload(NamedTuple):
    """Bytes that are too many for an event: what they are, and how to read them."""

    held: Held
    content: Callable[[], Iterable[bytes]]
    close: Callable[[], None] = lambda: None


class Edit(NamedTuple):
    """A change, and the payload that it holds if that is a large one."""

    change: Change
    payload: Payload | None = None
    size: int = 0


class _Writing(NamedTuple):
    """The experiment's chain in a store that may be written to; one thread at a time."""

    chain: Chain
    lock: RLock


class Changes:
    """What the groups of edits share. Subclasses are handles of a stored experiment."""

    def __init__(self, store: Store, project: str, internal_id: str) -> None:
        self.store: Final = store
        self.project: Final = project
        self.internal_id: Final = internal_id

    @cached_property
    def _snapshot(self) -> Snapshot:  # made when it is needed, as the next one: a list may be of 100,000 handles
        from headrace.reading.snapshot import Snapshot

        return Snapshot(self.store, self.project, self.internal_id)

    @cached_property
    def _writing(self) -> _Writing:
        return _Writing(Chain(open_store(self.store.url), self.project, self.internal_id), RLock())

    def _edit(self, kind: Kind, *fields: Any, payload: Payload | None = None) -> None:
        """Change something as of now."""
        self._edit_all([Edit((kind, stamp_ns(), *fields), payload, _size_of(fields))])

    def _edit_all(self, edits: Iterable[Edit]) -> None:
        """Commit these edits together, or with the others of a `buffered` block."""
        block = buffering.current()
        if block is None:
            self._commit(edits)
            return
        for edit in edits:
            block.add((self.store.url, self.project, self.internal_id), self._commit, edit)

    def _commit(self, edits: Iterable[Edit]) -> None:
        chain, lock = self._writing
        refused: list[str] = []
        with lock:
            for some in _bounded(edits):
                try:
                    result = chain.curate([edit.change for edit in some], now_ns=time.time_ns())
                    waiting = [file for file in result.pending_files if file.source == CURATION_SOURCE]
                    self._put(chain, [edit.payload for edit in some if edit.payload], waiting)
                finally:
                    for edit in some:
                        if edit.payload is not None:
                            edit.payload.close()
                refused += result.refused
            self._seen(chain)
        if refused:
            raise InvalidValue(f"{len(refused)} change(s) of {self.internal_id} cannot be stored: {refused[0]}")

    def _commit_batch(self, batch: Batch) -> None:
        """Commit the words of a source of its own."""
        chain, lock = self._writing
        with lock:
            chain.load()
            chain.commit([batch], now_ns=time.time_ns())
            self._seen(chain)

    def _seen(self, chain: Chain) -> None:
        """The newest commit is ours: show it in lists, and here; keep its parts few."""
        chain.compact(now_ns=time.time_ns())
        if chain.head is not None:
            append_rows(chain.store, self.project, [row_of(chain.head)])
            self._snapshot.saw(chain.head)

    def _put(self, chain: Chain, payloads: Sequence[Payload], waiting: Sequence[PendingFile]) -> None:
        """Put the payloads in place that the experiment waits for now, and say so."""
        by_digest = {payload.held.sha256: payload for payload in payloads}
        wanted = [file for file in waiting if file.sha256 in by_digest]
        done = [
            FileDone(file.source, file.file, put_in_place(chain.store, chain, file, by_digest[file.sha256].content))
            for file in wanted
        ]
        for _ in range(FINISH_ATTEMPTS_MAX if done else 0):
            try:
                chain.commit([], files_done=done, now_ns=time.time_ns())
                break
            except CommitConflict:  # another curator's change: what is still awaited the newest commit says
                continue
        bad = [f"{file.name!r}: {report.bad}" for file, report in zip(wanted, done, strict=True) if report.bad]
        if bad:
            raise Corrupt(f"not all that was logged is stored: {'; '.join(bad)}. Log it again")


def _bounded(edits: Iterable[Edit]) -> Iterator[list[Edit]]:
    """As many edits as a commit takes, at a time."""
    some: list[Edit] = []
    size = 0
    for edit in edits:
        if some and (len(some) == CHANGES_MAX or size + edit.size > COMMIT_BYTES):
            yield some
            some, size = [], 0
        some.append(edit)
        size += edit.size
    if some:
        yield some


def _size_of(fields: Sequence[Any]) -> int:
    return sum(len(field) for field in fields if isinstance(field, str | bytes))


def inline_or_held(data: bytes | str) -> tuple[Any, Payload | None]:
    """`data` as a change holds it: itself when it is small, else with the payload that is put in place after the commit."""
    from hashlib import sha256

    raw = data.encode() if isinstance(data, str) else data
    if len(raw) <= INLINE_BYTES_MAX:
        return data, None
    held = Held(len(raw), sha256(raw).hexdigest())
    return held, Payload(held, lambda: [raw])
