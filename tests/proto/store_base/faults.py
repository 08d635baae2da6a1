"""A store whose calls fail as networks do: before their effect, or after it, when only the answer is lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from headrace_proto.store.backend import Store

Fault = Literal["before", "after"]


@dataclass
class FaultyStore:
    """Passes calls on to `inner`; `faults[n]` says how the n-th writing call (from 0) fails."""

    inner: Store
    faults: dict[int, Fault] = field(default_factory=dict)
    writes: int = 0
    on_names: Callable[[str], None] | None = None
    """Called with the folder after a listing was taken and before the caller sees it: the moment for others to move."""

    @property
    def url(self) -> str:
        return self.inner.url

    @property
    def local(self) -> bool:
        return self.inner.local

    def _written(self, write: Callable[[], bool | None]) -> bool | None:
        fault = self.faults.get(self.writes)
        self.writes += 1
        if fault == "before":
            raise TimeoutError("the request is lost")
        result = write()
        if fault == "after":
            raise TimeoutError("the answer is lost")
        return result

    def create(self, path: str, data: bytes) -> bool:
        return bool(self._written(lambda: self.inner.create(path, data)))

    def put(self, path: str, data: bytes) -> None:
        self._written(lambda: self.inner.put(path, data))

    def put_stream(self, path: str, blocks: Iterable[bytes]) -> None:
        self._written(lambda: self.inner.put_stream(path, blocks))

    def delete(self, paths: Iterable[str]) -> None:
        self._written(lambda: self.inner.delete(paths))

    def read(self, path: str) -> bytes:
        return self.inner.read(path)

    def open(self, path: str) -> BinaryIO:
        return self.inner.open(path)

    def names(self, folder: str) -> list[str]:
        found = self.inner.names(folder)
        if self.on_names is not None:
            self.on_names(folder)
        return found

    def size(self, path: str) -> int | None:
        return self.inner.size(path)

    def modified_ns(self, path: str) -> int | None:
        return self.inner.modified_ns(path)

    def url_of(self, path: str) -> str:
        return self.inner.url_of(path)
