"""A store whose calls fail as networks and disks do: one wrapper for every back end, one vocabulary of faults.

What fails is told by number (`faults`: the n-th writing call) or by a `plan` that looks at each call; `seeded` makes a plan out
of a seed. Several clients of one store get a wrapper each, and share a `History` so that a stale listing of one can lack what
another has just made.
"""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from headrace_proto.store.backend import Store

Fault = Literal[
    "before",  # the request is lost, or answered with 500: no effect
    "after",  # the effect is there, the answer is lost
    "late",  # the caller has given up, and then the create takes effect: before the next call of this client
    "torn",  # the bytes end in the middle, on their way up (a stream) or down (a read, an open file)
    "slow",  # all is well, but the answer takes so long that the world moves meanwhile
    "stale",  # a listing of a moment ago: without what is new, with what is deleted
]

_Result = TypeVar("_Result")

WRITES: Final = frozenset({"create", "put", "put_stream", "delete"})
FITTING: Final[dict[str, tuple[Fault, ...]]] = {
    "create": ("before", "after", "late", "slow"),
    "put": ("before", "after", "slow"),
    "put_stream": ("before", "after", "torn", "slow"),
    "delete": ("before", "after", "slow"),
    "read": ("before", "torn", "slow"),
    "open": ("before", "torn", "slow"),
    "names": ("before", "stale", "slow"),
    "size": ("before", "slow"),
    "modified_ns": ("before", "slow"),
}
"""What can happen to which method."""


class Call(NamedTuple):
    """One call of a store's method."""

    number: int
    """Of all calls of this wrapper, from 0."""
    write: int | None
    """Of all its writing calls, from 0; None for one that reads."""
    method: str
    path: str


Plan = Callable[[Call], Fault | None]


def seeded(seed: int, rate: float) -> Plan:
    """A plan under which about `rate` of all calls fail, each in a way that fits its method; the same for the same seed."""
    chance = random.Random(seed)

    def plan(call: Call) -> Fault | None:
        return chance.choice(FITTING[call.method]) if chance.random() < rate else None

    return plan


class History:
    """Listings as they were: what a stale one may show."""

    def __init__(self) -> None:
        self._past: defaultdict[str, deque[list[str]]] = defaultdict(lambda: deque(maxlen=3))

    def note(self, store: Store, path: str) -> None:
        """Remember the listings that a change of `path` is about to make old."""
        folder = path.rpartition("/")[0]
        past, names = self._past[folder], store.names(folder)
        if not past or past[-1] != names:
            past.append(names)

    def stale(self, store: Store, folder: str) -> list[str]:
        """The folder's listing of a few changes ago."""
        past = self._past[folder]
        return past[0] if past else store.names(folder)


@dataclass
class FaultyStore:
    """Passes calls on to `inner`; `faults[n]` says how the n-th writing call (from 0) fails, `plan` how any call does."""

    inner: Store
    faults: dict[int, Fault] = field(default_factory=dict)
    plan: Plan | None = None
    history: History | None = None
    writes: int = 0
    called: int = 0
    failed: list[tuple[Call, Fault]] = field(default_factory=list)
    """What went wrong so far: shown when a test of a seed fails."""
    on_names: Callable[[str], None] | None = None
    """Called with the folder after a listing was taken and before the caller sees it: the moment for others to move."""
    meanwhile: Callable[[], None] | None = None
    """What the world does while an answer is slow."""
    _late: list[Callable[[], object]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.inner.url

    @property
    def local(self) -> bool:
        return self.inner.local

    def heal(self) -> None:
        """From now on nothing fails, and what was on its way has arrived."""
        self.faults, self.plan = {}, None
        self._arrive()

    # -- The interface --------------------------------------------------------------------------------------------------

    def create(self, path: str, data: bytes) -> bool:
        return self._call("create", path, lambda: self.inner.create(path, data))

    def put(self, path: str, data: bytes) -> None:
        self._call("put", path, lambda: self.inner.put(path, data))

    def put_stream(self, path: str, blocks: Iterable[bytes]) -> None:
        self._call(
            "put_stream",
            path,
            lambda: self.inner.put_stream(path, blocks),
            torn=lambda: self.inner.put_stream(path, _breaking(blocks)),
        )

    def delete(self, paths: Iterable[str]) -> None:
        listed = list(paths)
        self._call("delete", listed[0] if listed else "", lambda: self.inner.delete(listed))

    def read(self, path: str) -> bytes:
        return self._call("read", path, lambda: self.inner.read(path), torn=lambda: _broken(self.inner.read(path)))

    def open(self, path: str) -> BinaryIO:
        return self._call("open", path, lambda: self.inner.open(path), torn=lambda: _TornFile(self.inner.read(path)))

    def names(self, folder: str) -> list[str]:
        return self._call("names", folder, lambda: self._names(folder), stale=lambda: self._stale(folder))

    def size(self, path: str) -> int | None:
        return self._call("size", path, lambda: self.inner.size(path))

    def modified_ns(self, path: str) -> int | None:
        return self._call("modified_ns", path, lambda: self.inner.modified_ns(path))

    def url_of(self, path: str) -> str:
        return self.inner.url_of(path)

    # -- How a call goes wrong ------------------------------------------------------------------------------------------

    def _call(
        self,
        method: str,
        path: str,
        act: Callable[[], _Result],
        *,
        torn: Callable[[], _Result] | None = None,
        stale: Callable[[], _Result] | None = None,
    ) -> _Result:
        self._arrive()
        fault = self._fault(method, path)
        if fault == "before":
            raise TimeoutError(f"the request is lost: {method} {path}")
        if fault == "late":
            self._late.append(act)
            raise TimeoutError(f"no answer in time: {method} {path}")
        if fault == "torn" and torn is not None:
            return torn()
        if fault == "stale" and stale is not None:
            return stale()
        if method in WRITES and self.history is not None and path:
            self.history.note(self.inner, path)
        result = act()
        if fault == "after":
            raise TimeoutError(f"the answer is lost: {method} {path}")
        if fault == "slow" and self.meanwhile is not None:
            self.meanwhile()
        return result

    def _fault(self, method: str, path: str) -> Fault | None:
        write = self.writes if method in WRITES else None
        call = Call(self.called, write, method, path)
        self.called += 1
        fault = self.plan(call) if self.plan is not None else None
        if write is not None:
            self.writes += 1
            fault = self.faults.get(write, fault)
        if fault is not None:
            self.failed.append((call, fault))
        return fault

    def _arrive(self) -> None:
        late, self._late = self._late, []
        for act in late:
            act()

    def _names(self, folder: str) -> list[str]:
        found = self.inner.names(folder)
        if self.on_names is not None:
            self.on_names(folder)
        return found

    def _stale(self, folder: str) -> list[str]:
        return self.history.stale(self.inner, folder) if self.history is not None else self.inner.names(folder)


def _breaking(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The first block and half of the second, then the connection is gone."""
    for number, block in enumerate(blocks):
        yield block if number == 0 else block[: len(block) // 2]
        if number == 1:
            break
    raise ConnectionResetError("the connection broke in the middle of the upload")


def _broken(data: bytes) -> bytes:
    raise ConnectionResetError(f"the connection broke after {len(data) // 2} of {len(data)} bytes")


class _TornFile(BytesIO):
    """An open object whose second half never comes. Readers begin at the end (a Parquet footer), so the front half is missing."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._half = len(data) // 2

    def read(self, size: int | None = -1, /) -> bytes:
        self._check()
        return super().read(size)

    def readinto(self, buffer: Any, /) -> int:
        self._check()
        return super().readinto(buffer)

    def _check(self) -> None:
        if self.tell() < self._half:
            raise ConnectionResetError("the connection broke in the middle of the object")


class Meddler(FaultyStore):
    """Lets another writer commit just before the first create of a commit."""

    meddle: Callable[[], object] | None = None

    def create(self, path: str, data: bytes) -> bool:
        if self.meddle and "/commits/" in path:
            meddle, self.meddle = self.meddle, None
            meddle()
        return super().create(path, data)
