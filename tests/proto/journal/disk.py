"""A disk that may lose power: which files a node may find when it boots again, of those that a journal's calls have left.

The model is the weakest that POSIX allows and file systems make true: of a file, what was there at its last sync is there; each
512-byte sector that changed since may hold any later content, independent of every other (so pages are lost, torn, or arrive in
any order); a file that was never synced may be empty. Of a folder, the names at its last sync, or at any moment since.

Stores into a map are no system calls, so they are recorded at the journal's calls: `look` after each of them.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

from headrace_proto.journal.layout import SECTOR

Names = dict[str, int]
_WAYS: Final = ("nothing", "everything", "pages", "sectors", "all but one", "only one")


_Version = TypeVar("_Version", bytes, Names)


def _note(kept: dict[int, list[_Version]], inode: int, now: _Version, never: _Version) -> None:
    versions = kept.setdefault(inode, [never])
    if versions[-1] != now:
        versions.append(now)


class Disk:
    """What of the folder `root` is surely on the disk, and what may be. `root` itself and its name are."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self._root: Final = root
        self._files: dict[int, list[bytes]] = {}  # by inode: what was synced, then every content since
        self._folders: dict[int, list[Names]] = {}
        self.look()
        for inode, versions in self._folders.items():
            self._folders[inode] = versions[-1:]
        for name in ("fsync", "fdatasync"):
            real = getattr(os, name)
            patch.setattr(os, name, lambda descriptor, real=real: self._sync(descriptor, real))
        for name in ("rename", "unlink", "mkdir"):
            real = getattr(os, name)
            patch.setattr(os, name, lambda *arguments, real=real: self._rename(real, *arguments))

    # -- What happens ----------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Note every content and every name that are new."""
        for path, folders, files in os.walk(self._root):
            here = Path(path)
            names = {name: (here / name).lstat().st_ino for name in (*folders, *files)}
            _note(self._folders, here.stat().st_ino, names, {})
            for name in files:
                _note(self._files, names[name], (here / name).read_bytes(), b"")

    def _sync(self, descriptor: int, real: Callable[[int], None]) -> None:
        self.look()
        real(descriptor)
        status = os.fstat(descriptor)
        if status.st_ino in self._folders:
            self._folders[status.st_ino] = self._folders[status.st_ino][-1:]
        elif status.st_ino in self._files:
            self._files[status.st_ino] = self._files[status.st_ino][-1:]

    def _rename(self, real: Callable[..., None], *arguments: Any) -> None:
        self.look()
        real(*arguments)
        self.look()

    # -- What may be left ------------------------------------------------------------------------------------------------

    def after_power_loss(self, target: Path, chance: random.Random) -> Path:
        """One legal image, made at `target`."""
        self.look()
        self._make(self._root.stat().st_ino, target, chance)
        return target

    def _make(self, inode: int, target: Path, chance: random.Random) -> None:
        target.mkdir()
        for name, child in chance.choice(self._folders[inode]).items():
            if child in self._folders:
                self._make(child, target / name, chance)
            else:
                (target / name).write_bytes(self._content(self._files[child], chance))

    @staticmethod
    def _content(versions: list[bytes], chance: random.Random) -> bytes:
        oldest, newest = versions[0], versions[-1]
        if len(versions) == 1 or not newest:
            return oldest
        size = len(newest) if oldest else chance.choice([len(newest), len(newest), 0])
        way = chance.choice(_WAYS)
        count = -(-size // SECTOR)
        odd = chance.randrange(count) if count else 0
        found = bytearray(size)
        version = oldest
        for sector in range(count):
            if way == "sectors" or (way == "pages" and sector % 8 == 0):
                version = chance.choice(versions)
            elif way != "pages":
                arrives = (
                    way == "everything"
                    or (way == "only one" and sector == odd)
                    or (way == "all but one" and sector != odd)
                )
                version = newest if arrives else oldest
            at = sector * SECTOR
            part = version[at : at + SECTOR]
            found[at : at + len(part)] = part
        return bytes(found)
