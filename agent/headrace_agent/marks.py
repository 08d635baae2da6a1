"""The store's word: which marks are believed, and how they are kept.

Invariants
1. A home believes one store. The first mark names it; another's marks free nothing here and raise an alarm: that store may
   lack what this home's own has.
2. Of a source's marks the one of the highest commit counts: two collectors may answer out of order. Unless a lower one is said
   again, and nothing else: then the store was put back to an older state. Believing that by mistake frees nothing and costs
   sending again; not believing it would stop freeing until the store's commits have caught up.
3. A mark is on the disk, synced, before anything below it is deleted. One that was lost with the power costs sending again:
   shipping then begins at the oldest segment that is left.
"""

from __future__ import annotations

import logging
import os
from typing import Final

from headrace_agent.trouble import Trouble
from headrace_proto.home import FILE_MODE, Home, open_plain
from headrace_proto.messages import Mark, decode, encode

MARK_NAME: Final = "mark"
SETBACK_S: Final = 1.0
"""A collector that was replaced may say one more mark; one that serves says them again and again, and the broker keeps the last."""
log = logging.getLogger(__name__)


def supersedes(new: Mark, old: Mark | None) -> bool:
    """Whether `new` says more than `old`: a later commit of the experiment."""
    if old is None or new.commit != old.commit:
        return old is None or new.commit > old.commit
    return (new.position, new.dead) > (old.position, old.dead)


class Setbacks:
    """Finds out that a store went back."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[float, int]] = {}  # source -> when a lower commit was first said, and its number

    def believes(self, mark: Mark, newest: Mark, now_s: float) -> bool:
        """Whether `mark`, which does not supersede `newest`, tells of a store that was put back."""
        if mark.commit >= newest.commit:
            self.forget(mark.source)
            return False
        since_s, commit = self._since.setdefault(mark.source, (now_s, mark.commit))
        if mark.commit < commit or now_s - since_s < SETBACK_S:
            return False
        self.forget(mark.source)
        return True

    def doubtful(self, now_s: float) -> list[str]:
        """The sources whose newest mark should be asked for: whoever said it last was late, or the store went back."""
        return [source for source, (since_s, _) in self._since.items() if now_s - since_s >= SETBACK_S]

    def forget(self, source: str) -> None:
        """The store has said more than it had, or the source is finished."""
        self._since.pop(source, None)


class StoreBinding:
    """The one store whose marks this home believes."""

    def __init__(self, home: Home) -> None:
        self._path = home.bound_store
        self._store = self._noted = self._read()
        self.foreign: set[str] = set()
        self._trouble: Final = Trouble(log)

    def _read(self) -> str:
        try:
            with open(self._path, encoding="utf-8") as file:
                return file.read(256).strip()
        except FileNotFoundError:
            return ""

    def believes(self, store: str) -> bool:
        """Whether the word of this store counts here. The first one that speaks is bound."""
        if not self._store:
            self._store = store
        if store == self._store:
            return True
        if store not in self.foreign and len(self.foreign) < 16:
            self.foreign.add(store)
            log.error("the store %s answers for this home, which is bound to %s: nothing is freed", store, self._store)
        return False

    @property
    def is_kept(self) -> bool:
        """Whether the disk says what is believed."""
        return self._noted == self._store

    def keep(self) -> None:
        """Write down which store is believed, synced. May run in another thread than the rest."""
        store = self._store
        try:
            _write_synced(self._path, store.encode())
        except OSError as error:
            # The store is believed meanwhile, because a full disk needs freeing; the next round tries again.
            self._trouble.tell("the home's binding to the store %s cannot be kept: %s", store, error)
        else:
            self._noted = store

    def kept(self, folder: str) -> Mark | None:
        """The mark kept in a journal's folder, if it is of the store believed here, or no store is yet."""
        mark = read_mark(folder)
        return mark if mark is not None and self._store in ("", mark.store) else None


def read_mark(folder: str) -> Mark | None:
    """The mark kept in a journal's folder."""
    try:
        with open(os.path.join(folder, MARK_NAME), "rb", opener=open_plain) as file:
            return decode(Mark, file.read(4096))
    except OSError:
        return None


def write_mark(folder: str, mark: Mark) -> None:
    """Keep a mark in a journal's folder; it survives a power loss when this returns."""
    _write_synced(os.path.join(folder, MARK_NAME), encode(mark))


def _write_synced(path: str, data: bytes) -> None:
    temporary = f"{path}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    try:
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(temporary, path)
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
