"""A store in a folder of this machine, or of a network file system that has atomic link and rename.

How each promise of `Store` is kept
- `create`: the bytes go to a file under `_headrace/temporary/`, are synced, and get their name by link(2), which fails if the name
  is taken. A kill in between leaves a temporary file, never a short object that would block its name.
- `put`: the same, with rename(2).
- Folders are synced after each change of a name, and so are the parents of folders that had to be made: on ext4 and xfs a
  synced file without its synced entry can be gone after a power loss, while the commit that names it is there.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO, Final

from headrace_proto.ids import random_id
from headrace_proto.store.layout import TEMPORARY, checked_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

TEMPORARY_AGE_NS: Final = 24 * 3600 * 10**9
"""Of a file without a name before it is taken for a killed writer's: far longer than the longest upload."""

_PLACE_ATTEMPTS: Final = 100
"""Each is lost only to a `delete` that empties the same folder at the same moment."""


class LocalStore:
    """A `Store` of plain files below one folder."""

    local: Final = True

    def __init__(self, root: str | os.PathLike[str]) -> None:
        # Resolved once: the root itself may be reached through links, what lies below it may not lead out of it.
        self.url: Final = os.path.realpath(os.path.expanduser(root))

    def __repr__(self) -> str:
        return f"LocalStore({self.url!r})"

    def create(self, path: str, data: bytes) -> bool:
        """Make the file if there is none of this name."""
        target = self._inside_folder(path)
        with self._temporary((data,)) as temporary:
            try:
                _place(os.link, temporary, target)
            except FileExistsError:
                return False
        return True

    def put(self, path: str, data: bytes) -> None:
        """Make or replace the file."""
        self.put_stream(path, (data,))

    def put_stream(self, path: str, blocks: Iterable[bytes]) -> None:
        """Make or replace the file with all `blocks`."""
        target = self._inside_folder(path)
        with self._temporary(blocks) as temporary:
            _place(os.rename, temporary, target)

    def read(self, path: str) -> bytes:
        """The file's bytes."""
        with self.open(path) as file:
            return file.read()

    def open(self, path: str) -> BinaryIO:
        """The file, open for reading."""
        inside = self._inside(path)
        try:
            return open(inside, "rb")
        except (NotADirectoryError, IsADirectoryError) as error:
            raise FileNotFoundError(f"{path!r} is no file in the store {self.url!r}") from error

    def names(self, folder: str) -> list[str]:
        """The sorted names in the folder."""
        try:
            return sorted(os.listdir(self._inside(folder) if folder else self.url))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def size(self, path: str) -> int | None:
        """The file's size."""
        inside = self._inside(path)
        try:
            return os.stat(inside).st_size if not os.path.isdir(inside) else None
        except (FileNotFoundError, NotADirectoryError):
            return None

    def modified_ns(self, path: str) -> int | None:
        """When the file's bytes were written."""
        inside = self._inside(path)
        try:
            return os.stat(inside).st_mtime_ns if not os.path.isdir(inside) else None
        except (FileNotFoundError, NotADirectoryError):
            return None

    def clear_temporary(self, *, now_ns: int, age_ns: int = TEMPORARY_AGE_NS) -> int:
        """Remove files without a name that a killed writer left; returns how many. A writer that lives begins again."""
        paths = [f"{TEMPORARY}/{name}" for name in self.names(TEMPORARY)]
        old = [path for path in paths if now_ns - (self.modified_ns(path) or now_ns) >= age_ns]
        self.delete(old)
        return len(old)

    def delete(self, paths: Iterable[str]) -> None:
        """Remove files, and then the folders that this leaves empty."""
        for path in paths:
            target = self._inside_folder(path)
            with suppress(FileNotFoundError, NotADirectoryError):
                os.unlink(target)
            self._prune(os.path.dirname(target))

    def url_of(self, path: str) -> str:
        """The file's absolute path."""
        return os.path.join(self.url, checked_path(path))

    def _inside(self, path: str) -> str:
        """The real path of an object to read. Refuses links that lead out of the root."""
        real = os.path.realpath(os.path.join(self.url, checked_path(path)))
        if not real.startswith(os.path.join(self.url, "")):
            raise PermissionError(f"{path!r} is a link that leads out of the store {self.url!r}: remove it")
        return real

    def _inside_folder(self, path: str) -> str:
        """The path of a name to change: its folder is resolved, the name itself is not followed."""
        folder, _, name = checked_path(path).rpartition("/")
        return os.path.join(self._inside(folder) if folder else self.url, name)

    @contextmanager
    def _temporary(self, blocks: Iterable[bytes]) -> Iterator[str]:
        """A synced file with all `blocks`, which is gone at the end, unless it was renamed."""
        folder = self._inside(TEMPORARY)
        _make_folder(folder)
        temporary = os.path.join(folder, random_id())
        try:
            with open(temporary, "xb") as file:
                file.writelines(blocks)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)

    def _prune(self, folder: str) -> None:
        """Remove empty folders upward, as object stores have none."""
        while folder != self.url:
            try:
                os.rmdir(folder)
            except OSError:  # not empty, or somebody else was first
                return
            folder = os.path.dirname(folder)


def _place(give: Callable[[str, str], None], temporary: str, target: str) -> None:
    """Give a finished file its name (by link or rename), in a folder that is made if need be, and sync that folder."""
    folder = os.path.dirname(target)
    for attempt in range(_PLACE_ATTEMPTS):
        try:
            _make_folder(folder)
            give(temporary, target)
            break
        except FileNotFoundError:  # `_prune` took the folder, which was empty, between the two
            if attempt == _PLACE_ATTEMPTS - 1:
                raise
    _sync_folder(folder)


def _make_folder(folder: str) -> None:
    """Make the folder and its parents, and sync the entries made."""
    if os.path.isdir(folder):
        return
    parent = os.path.dirname(folder)
    _make_folder(parent)
    with suppress(FileExistsError):
        os.mkdir(folder)
    _sync_folder(parent)


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
