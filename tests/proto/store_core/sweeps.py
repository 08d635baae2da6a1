"""A store whose clock a test sets and whose calls a test may interrupt, and what must hold of whatever lies in it."""

from __future__ import annotations

from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

from headrace_proto.store import layout, parts
from headrace_proto.store.chain import Chain
from headrace_proto.store.sweeping import named_places, sweep
from tests.proto.store_base.faults import FaultyStore
from tests.proto.store_core.script import EXPERIMENT, NOW_NS, PROJECT, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from headrace_proto.store.backend import Store
    from headrace_proto.store.sweeping import Swept

FOLDER = layout.experiment_folder(PROJECT, EXPERIMENT)
COMMITS = layout.commits_folder(PROJECT, EXPERIMENT)
HOUR_S = 3600.0
WRITES = ("create", "put", "put_stream", "delete")


class Nap:
    """What others do while somebody sleeps before one of its writes."""

    def __init__(self, at: int, meanwhile: Callable[[], object]) -> None:
        self.reached = False
        """Whether whoever sleeps has made so many writes at all."""
        self._at = at
        self._meanwhile = meanwhile

    def __call__(self, write: int) -> None:
        if write == self._at and not self.reached:
            self.reached = True
            self._meanwhile()


class TimedStore(FaultyStore):
    """Its clock is `now_s`, the hosts' clocks too. `interrupt(n)` is called before the n-th call that writes."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.now_s = 1_000_000.0
        self.calls: list[tuple[str, str]] = []
        self.interrupt: Callable[[int], object] | None = None
        self._times: dict[str, float] = {}

    def clock(self) -> float:
        return self.now_s

    @property
    def now_ns(self) -> int:
        return round(self.now_s * 1e9)

    def _count(self, call: str, path: str) -> None:
        self.calls.append((call, path))
        if self.interrupt and call in WRITES:
            writes = sum(made in WRITES for made, _ in self.calls)
            interrupt, self.interrupt = self.interrupt, None  # what others do meanwhile is not interrupted
            interrupt(writes - 1)
            self.interrupt = interrupt

    def create(self, path: str, data: bytes) -> bool:
        self._count("create", path)
        if self.inner.create(path, data):
            self._times[path] = self.now_s
            return True
        return False

    def put(self, path: str, data: bytes) -> None:
        self._count("put", path)
        self._times[path] = self.now_s
        self.inner.put(path, data)

    def put_stream(self, path: str, blocks: Iterable[bytes]) -> None:
        self._count("put_stream", path)
        self._times[path] = self.now_s
        self.inner.put_stream(path, blocks)

    def delete(self, paths: Iterable[str]) -> None:
        for path in paths:
            self._count("delete", path)
            self.inner.delete([path])

    def read(self, path: str) -> bytes:
        self._count("read", path)
        return super().read(path)

    def names(self, folder: str) -> list[str]:
        self._count("names", folder)
        return super().names(folder)

    def size(self, path: str) -> int | None:
        self._count("size", path)
        return super().size(path)

    def modified_ns(self, path: str) -> int | None:
        self._count("modified_ns", path)
        if self.inner.modified_ns(path) is None:
            return None
        return round(self._times[path] * 1e9)

    @contextmanager
    def nap(self, at: int, meanwhile: Callable[[], object]) -> Iterator[Nap]:
        """Have `meanwhile` happen once, before the `at`-th call that writes from now on."""
        self.calls.clear()
        nap = self.interrupt = Nap(at, meanwhile)
        yield nap
        self.interrupt = None

    # -- Who uses it ----------------------------------------------------------------------------------------------------

    def chain(self) -> Chain:
        return Chain(self, PROJECT, EXPERIMENT, clock=self.clock).load()

    def sweep(self, grace_s: float = 0.0) -> Swept:
        return sweep(self.chain(), now_ns=NOW_NS, grace_s=grace_s)

    def files(self, folder: str = FOLDER) -> set[str]:
        """All files below a folder, from it."""
        found: set[str] = set()
        for name in self.inner.names(folder):
            path = f"{folder}/{name}" if folder else name
            if self.inner.size(path) is None:
                found |= {f"{name}/{inside}" for inside in self.files(path)}
            else:
                found.add(name)
        return found


def naps(case: Callable[[int], bool]) -> int:
    """Try `case(0)`, `case(1)`, ... until one says that nobody wrote so often; how many there were."""
    n = 0
    while case(n):
        n += 1
    return n


def missing(store: Store, project: str = PROJECT, experiment: str = EXPERIMENT) -> set[str]:
    """What the newest commit names and the store does not have, or has with other bytes."""
    chain = Chain(store, project, experiment).load()
    head, folder = chain.head, chain.folder
    if head is None:
        return set()
    awaited = {file.path.removeprefix(f"{folder}/") for file in head.pending.values()}
    places = named_places(chain) - awaited
    gone = {place for place in places if store.size(f"{folder}/{place}") is None}
    if not gone:
        live = [f"{folder}/{part.path}" for part in (*head.parts.text, *head.parts.image)]
        rows = parts.files(store, live) - awaited
        gone |= {place for place in rows if store.size(f"{folder}/{place}") is None}
    for path, record in chain.artifacts().items():
        place = record.file or f"artifacts/{path}"
        if record.state == "stored" and place not in gone:
            gone |= {place} if sha256(store.read(f"{folder}/{place}")).hexdigest() != record.sha256 else set()
        if record.state != "stored":
            gone.discard(place)
    return gone


def commit(store: TimedStore, *sources: Source, **options: Any) -> None:
    store.chain().commit([source.batch() for source in sources], now_ns=NOW_NS, **options)


def grown(store: TimedStore, commits: int = 3) -> Source:
    """An experiment of so many commits of a point each."""
    source = Source().create()
    for step in range(commits):
        commit(store, source.point("x", step, float(step)))
    return source


def leave_a_part(store: TimedStore, source: Source | None = None) -> str:
    """Write a part as a committer does that is killed before its commit; returns where."""

    class Killed(BaseException):
        pass

    def kill(_: int) -> None:
        if store.calls[-1] == ("create", layout.commit_file(PROJECT, EXPERIMENT, chain.number + 1)):
            raise Killed

    before = store.files()
    chain = store.chain()
    store.interrupt = kill
    with pytest.raises(Killed):
        chain.commit([(source or Source("f", "rank")).point("x", 1, 0.5).batch()], now_ns=NOW_NS)
    store.interrupt = None
    (place,) = store.files() - before
    return place
