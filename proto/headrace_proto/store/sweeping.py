"""Sweeping: what lies in an experiment's folder and no commit names is removed, and so are commits that have grown old.

Invariants
1. Nothing is removed that a commit names which was the newest within the last RETENTION_S, or that one still to come may name.
   The sweep lists first, then creates the next commit (`Chain.fence`), and removes only then. Whoever had written files for that
   commit finds its number taken and writes them anew. What a sweeper that sleeps in between removes later, nobody names then:
   parts and side files have names that are used once; the path of a text or an image belongs to one event, which lies below
   its source's watermark by now; the place of an artifact is noted as cleared in that very commit, and never used again.
2. Commits stay RETENTION_S and the last COMMITS_KEPT of them longer, so that a writer who builds on an old one finds its number
   taken, or sees by its own clock that it has slept (`Chain`). What such a sleeper makes lies below, and goes with the next.
3. Pieces of a file on its way stay until the file is finished, or its source has closed without having named it.
4. Ages come from one clock, the store's own: no host's clock is compared with another's.

Costs per sweep: listings of the folder, a commit, and requests for what is removed; other commits are not read, but those within
the retention that dropped something.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from headrace_proto.events import Outcome
from headrace_proto.ids import is_id, random_id
from headrace_proto.limits import COMMITS_KEPT, RETENTION_S, SWEEP_GRACE_S
from headrace_proto.names import path_part
from headrace_proto.store import layout, parts
from headrace_proto.store.backend import Store
from headrace_proto.store.chain import Chain
from headrace_proto.store.commits import PART_KINDS, Commit, PartKind
from headrace_proto.store.documents import FILE_FOLDERS, FileGroup, file_place

__all__ = ["Orphan", "Swept", "find_orphans", "first_of_chain", "named_places", "sweep"]

ATTEMPTS_MAX: Final = 4
"""Sweeps of one experiment that lose their commit to another writer; the next occasion will do as well."""

_NUMBERED: Final = re.compile(r"(?:part-|index-|)([0-9]{20})-[0-9a-f]{32}\.(?:parquet|json)")
_NUMBERED_FOLDERS: Final = {"channels": "part-", "texts": "part-", "images": "index-", "side": ""}
_OF_EVENT: Final = re.compile(r"(?:texts|images)/.+-([0-9a-f]{12})-([0-9]+)\.[a-z0-9]{1,8}")
_AGAIN: Final = re.compile(r"again/([0-9]{20})-([0-9a-f]{32})/.+")
_CLOSED: Final = frozenset({Outcome.SUCCEEDED, Outcome.FAILED, Outcome.ABORTED})


class Orphan(NamedTuple):
    """A file in an experiment's folder that no commit of the last RETENTION_S names."""

    path: str
    """From the store's root."""
    bytes: int
    old: bool
    """Whether a sweep would remove it now. One that is not may be on its way into a commit."""


class Swept(NamedTuple):
    """What a sweep removed."""

    paths: tuple[str, ...] = ()
    """Files that no commit names, from the store's root."""
    commits: int = 0
    """Commits that had grown old."""


class _Leftover(NamedTuple):
    """A file that the head does not name."""

    place: str  # from the experiment's folder
    number: int | None = None  # of the commit that it was written for
    settled: bool = True  # no event that is still to come can name it
    useless: bool = False  # whatever its age


def find_orphans(chain: Chain, *, now_ns: int, grace_s: float = SWEEP_GRACE_S) -> list[Orphan]:
    """What lies in the experiment's folder and belongs to nothing. Changes nothing; `now_ns` is compared with the store's clock."""
    chain.load()
    survey = _Survey(chain, now_ns, grace_s)
    found = []
    for leftover in survey.leftovers():
        size = chain.store.size(path := f"{chain.folder}/{leftover.place}")
        if size is not None:
            found.append(Orphan(path, size, survey.is_old(leftover)))
    return found


def sweep(
    chain: Chain, *, now_ns: int, grace_s: float = SWEEP_GRACE_S, thorough: bool = True, anyway: bool = False
) -> Swept:
    """Remove old orphans and old commits; nothing at all is written when there are none.

    `thorough` looks for texts and images that no row names, too, and reads all the names of them for that. With `anyway` the
    commit is made even if there is nothing to remove, so that the next sweep can be counted from it. Raises `OSError`,
    `Corrupt` and `FormatUnknown` as `Chain.load` does: what was removed until then was rightly removed.
    """
    store = chain.store
    for _ in range(ATTEMPTS_MAX):
        chain.load()
        try:
            survey = _Survey(chain, _store_now_ns(store), grace_s)
            old = [leftover.place for leftover in survey.leftovers(thorough=thorough) if survey.is_old(leftover)]
        except FileNotFoundError:  # another sweep is at work
            continue
        commits = survey.expired()
        if not old and not commits and not anyway:
            return Swept()
        if chain.fence([place for place in old if _is_reusable(place)], now_ns=now_ns):
            break
    else:
        return Swept()
    paths = tuple(f"{chain.folder}/{place}" for place in old)
    store.delete(paths)
    store.delete(layout.commit_file(*chain.place, number) for number in commits)
    return Swept(paths, len(commits))


def first_of_chain(numbers: Iterable[int], newest: int) -> int:
    """The lowest number that leads to the newest without a hole: below it is only what a writer that slept has made."""
    listed, first = set(numbers), newest
    while first - 1 in listed:
        first -= 1
    return first


def named_places(chain: Chain) -> set[str]:
    """All files that the head names, from the experiment's folder, but for the texts and images that rows name."""
    head = chain.head
    if head is None:
        return set()
    named = {part.path for kind in PART_KINDS for part in head.parts.of(kind)}
    named |= {head.side} if head.side else set()
    named |= {file_place("artifacts", path, record) for path, record in chain.artifacts().items()}
    named |= {file_place("source_files", path, record) for path, record in chain.source_files().items()}
    prefix = f"{chain.folder}/"
    return named | {file.path.removeprefix(prefix) for file in head.pending.values() if file.path.startswith(prefix)}


def _is_reusable(place: str) -> bool:
    """Whether a later event could be given the same place: that of an artifact or source file under its own path."""
    return place.startswith(tuple(f"{folder}/" for folder in FILE_FOLDERS.values())) and not _is_piece(place)


def _is_piece(place: str) -> bool:
    return place.startswith(f"artifacts/{layout.UPLOADS}/")


def _store_now_ns(store: Store) -> int:
    """The time by the store's own clock, or a moment before."""
    path = f"{layout.PROBES}/{random_id()}"
    store.create(path, b"")
    try:
        return store.modified_ns(path) or 0
    finally:
        store.delete([path])


class _Survey:
    """One experiment's folder as it stands beside one head."""

    def __init__(self, chain: Chain, now_ns: int, grace_s: float) -> None:
        self._chain: Final = chain
        self._store: Final = chain.store
        self._grown_ns: Final = now_ns - round(grace_s * 1e9)
        self._numbers: Final = layout.commit_numbers(self._store.names(layout.commits_folder(*chain.place)))
        self._first: Final = first_of_chain(self._numbers, chain.number)
        self._retained: Final = self._newest_before(now_ns - round(RETENTION_S * 1e9))
        self._grown: Final = self._newest_before(self._grown_ns)

    # -- Commits --------------------------------------------------------------------------------------------------------

    def expired(self) -> list[int]:
        """Commits to remove, lowest first."""
        kept = min(self._retained, self._chain.number + 2 - COMMITS_KEPT)  # the sweep adds one
        return [number for number in self._numbers if number < kept]

    def _newest_before(self, limit_ns: int) -> int:
        """The newest commit written before `limit_ns`, 0 if there is none.

        A writer may sleep between its bytes and their name; but whoever wrote a successor had seen the commit by then, so
        all below the one that is found are surely older than the limit.
        """
        low, high = self._first - 1, self._chain.number
        while low < high:
            middle = (low + high + 1) // 2
            written_ns = self._store.modified_ns(layout.commit_file(*self._chain.place, middle))
            if written_ns is None or written_ns <= limit_ns:
                low = middle
            else:
                high = middle - 1
        return low if low >= self._first else 0

    def _dropped(self) -> set[str]:
        """What commits of the retention named and the head does not."""
        dropped: set[str] = set()
        commit: Commit | None = self._chain.head
        while commit and commit.number > self._retained:
            dropped.update(commit.dropped)
            commit = self._chain.read_commit(commit.drops) if commit.drops > self._retained else None
        return dropped

    # -- Files ----------------------------------------------------------------------------------------------------------

    def is_old(self, leftover: _Leftover) -> bool:
        """Whether nobody can be at work on it."""
        if leftover.useless:
            return True
        if leftover.number is not None:
            if leftover.number <= self._grown:
                return True
            if leftover.number > self._chain.number + 1:
                return False
        written_ns = self._store.modified_ns(f"{self._chain.folder}/{leftover.place}")
        return leftover.settled and written_ns is not None and written_ns <= self._grown_ns

    def leftovers(self, *, thorough: bool = True) -> Iterator[_Leftover]:
        """What no commit of the retention names."""
        named = named_places(self._chain) | self._dropped()
        folders = {folder for place in named for folder in _folders_of(place)}
        yield from self._numbered(named)
        for group, folder in FILE_FOLDERS.items():
            for place in self._walk(folder, named, folders):
                yield _Leftover(place, settled=self._is_removed(group, place.removeprefix(f"{folder}/")))
        for place in self._walk("again", named, folders):
            found = _AGAIN.fullmatch(place)
            yield _Leftover(place, settled=found is not None and self._is_settled(found[2], int(found[1])))
        yield from self._pieces()
        if thorough:
            yield from self._of_events(named)

    def _numbered(self, named: set[str]) -> Iterator[_Leftover]:
        """Parts and side files."""
        channels = self._chain.document.channels
        taken = {path_part(name) for name in (*channels.text, *channels.image)}
        for folder, prefix in _NUMBERED_FOLDERS.items():
            for name in self._names(folder):
                found = _NUMBERED.fullmatch(name)
                if found and name.startswith(prefix) and name not in taken and f"{folder}/{name}" not in named:
                    yield _Leftover(f"{folder}/{name}", int(found[1]))

    def _of_events(self, named: set[str]) -> Iterator[_Leftover]:
        """Long texts and images: rows name them."""
        head = self._chain.head
        kinds: tuple[tuple[PartKind, str], ...] = (("text", "texts"), ("image", "images"))
        for kind, folder in kinds:
            rows: set[str] | None = None
            for channel in self._names(folder):
                if _NUMBERED.fullmatch(channel):
                    continue
                for place in self._walk(f"{folder}/{channel}", named, set()):
                    found = _OF_EVENT.fullmatch(place)
                    if not found:
                        continue
                    if rows is None:
                        live = head.parts.of(kind) if head else ()
                        rows = parts.files(self._store, [f"{self._chain.folder}/{part.path}" for part in live])
                    if place not in rows:
                        yield _Leftover(place, settled=self._is_settled(found[1], int(found[2])))

    def _is_removed(self, group: FileGroup, path: str) -> bool:
        """Whether a file that no commit names was an artifact once, or its run has ended: else its event is likely to come yet."""
        head = self._chain.head
        if head is None or head.document.state != "running":
            return True
        return path in getattr(head.stamps, group) or self._chain.was_archived(group, path)

    def _is_settled(self, source: str, position: int) -> bool:
        """Whether the event at `position` of a source (or of the one that begins so) was stored, and can never be again."""
        matching = [name for name in self._chain.sources() if name.startswith(source)]
        if len(matching) != 1 or self._chain.watermark(matching[0]) <= position:
            return False
        return not any(gap.first <= position < gap.end for gap in self._chain.lost(matching[0]))

    def _pieces(self) -> Iterator[_Leftover]:
        """Pieces of files that need no more bytes."""
        uploads = f"artifacts/{layout.UPLOADS}"
        for source in filter(is_id, self._names(uploads)):
            for file in self._names(f"{uploads}/{source}"):
                finished = self._chain.has_file(source, file)
                wanted = not finished and (self._chain.pending(source, file) or not self._is_closed(source))
                for piece in self._names(f"{uploads}/{source}/{file}"):
                    yield _Leftover(f"{uploads}/{source}/{file}/{piece}", settled=not wanted, useless=finished)

    def _is_closed(self, source: str) -> bool:
        """Whether a source has said all it will ever say, and all of it is stored."""
        record = self._chain.sources().get(source)
        return record is not None and record.state in _CLOSED and not record.lost

    def _names(self, folder: str) -> list[str]:
        return self._store.names(f"{self._chain.folder}/{folder}")

    def _walk(self, folder: str, named: set[str], folders: set[str]) -> Iterator[str]:
        """All files below a folder that are not `named`. `folders` are known to be some: the others have to be asked."""
        for name in self._names(folder):
            place = f"{folder}/{name}"
            if place in named or place == f"artifacts/{layout.UPLOADS}":
                continue
            if place in folders or self._store.size(f"{self._chain.folder}/{place}") is None:
                yield from self._walk(place, named, folders)
            else:
                yield place


def _folders_of(place: str) -> Iterator[str]:
    while place := place.rpartition("/")[0]:
        yield place
