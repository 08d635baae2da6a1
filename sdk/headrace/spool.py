"""Payloads too large for an event: their bytes are ours before the call that logs them returns.

A file is cloned where the file system can (FICLONE: no bytes move), else copied, and above HEADRACE_COPY_MAX hard-linked where
that works: a link costs nothing, but whoever rewrites the file in place rewrites what we hold, so its digest tells later. The
file gets its name only when it is whole, after its companion (`headrace_proto.spool`) and before the event that names it.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from itertools import count

from headrace_proto.home import FILE_MODE, FOLDER_MODE, HIDDEN, Home
from headrace_proto.limits import COPY_BYTES_MAX, INLINE_BYTES_MAX, MIB
from headrace_proto.record import Record
from headrace_proto.spool import COMPANION_SUFFIX, SpoolFacts, write_facts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, BinaryIO, Final

COPY_VARIABLE: Final = "HEADRACE_COPY_MAX"
_FICLONE: Final = 0x40049409  # linux/fs.h; the fcntl module does not name it
_BLOCK: Final = MIB
NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE}
"""What the machine does to us, not the program: dropped and counted, never raised."""


class SpoolFull(Exception):
    """The disk, its owner's quota, or the process's descriptors have no room for a payload."""


class Kept(Record):
    """A payload as its event holds it, and whether nobody else can change it."""

    payload: Any
    copied: bool = True


class Spool:
    """The payloads of this process's sources."""

    def __init__(self, home: Home) -> None:
        self._home: Final = home
        self._numbers: Final = count(1)

    def keep_bytes(self, source: str, data: bytes | str) -> Kept:
        """Hold `data`: in the event itself when it is small."""
        if len(data) <= INLINE_BYTES_MAX // 4:  # a str of that many characters fits, whatever they are
            return Kept(data)
        raw = data.encode() if isinstance(data, str) else data
        return Kept(data) if len(raw) <= INLINE_BYTES_MAX else self._keep(source, [raw])

    def keep_stream(self, source: str, blocks: Iterable[bytes]) -> Kept:
        """Hold what `blocks` give, of any length and in bounded memory."""
        iterator = iter(blocks)
        head = b""
        for block in iterator:
            head += block
            if len(head) > INLINE_BYTES_MAX:
                return self._keep(source, _chain(head, iterator))
        return Kept(head)

    def keep_file(self, source: str, file: BinaryIO, path: str) -> Kept:
        """Hold the content of the open `file`, which lies at `path`."""
        size = os.fstat(file.fileno()).st_size
        if size <= INLINE_BYTES_MAX:
            return self.keep_stream(source, _blocks(file))  # it may have grown since
        linked = size > _copy_bytes_max()
        return self._keep(source, _blocks(file), file, path if linked else None)

    def _keep(
        self, source: str, blocks: Iterable[bytes], origin: BinaryIO | None = None, link_to: str | None = None
    ) -> Kept:
        if os.path.exists(self._home.quota_marker):
            raise SpoolFull("quota")
        name = f"{next(self._numbers):06d}-{os.urandom(4).hex()}"
        folder = self._home.spool(source)
        hidden, path = os.path.join(folder, HIDDEN + name), os.path.join(folder, name)
        try:
            os.makedirs(folder, FOLDER_MODE, exist_ok=True)
            facts = _link(hidden, link_to) if link_to else None
            facts = facts or _write(hidden, blocks, origin)
            write_facts(path, facts)
            os.rename(hidden, path)
        except OSError as error:
            _remove(hidden, path + COMPANION_SUFFIX)
            if error.errno in NO_ROOM:
                raise SpoolFull(error.strerror) from error
            raise
        except BaseException:
            _remove(hidden, path + COMPANION_SUFFIX)
            raise
        return Kept({"file": name, "size": facts.size, "sha256": facts.sha256}, facts.copied)


def _copy_bytes_max() -> int:
    given = os.environ.get(COPY_VARIABLE, "")
    return int(given) if given.isdigit() else COPY_BYTES_MAX


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(_BLOCK):
        yield block


def _chain(head: bytes, rest: Iterable[bytes]) -> Iterator[bytes]:
    yield head
    yield from rest


def _write(path: str, blocks: Iterable[bytes], origin: BinaryIO | None) -> SpoolFacts:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    with open(descriptor, "w+b", buffering=0) as file:
        if origin is not None and _clone(descriptor, origin.fileno()):
            return _digest(_blocks(file))

        def write(block: bytes) -> None:
            view = memoryview(block)
            while view:
                view = view[file.write(view) :]

        return _digest(blocks, write)


def _clone(to: int, origin: int) -> bool:
    try:
        fcntl.ioctl(to, _FICLONE, origin)
    except OSError:  # another file system, or one that cannot
        return False
    return True


def _link(hidden: str, path: str) -> SpoolFacts | None:
    """Hold the file at `path` by a second name; None where that cannot be done."""
    try:
        os.link(os.path.realpath(path), hidden)
    except OSError:
        return None
    with open(hidden, "rb", buffering=0) as file:
        return _digest(_blocks(file))._replace(copied=False)


def _digest(blocks: Iterable[bytes], write: Callable[[bytes], None] | None = None) -> SpoolFacts:
    from hashlib import sha256  # not above: it loads OpenSSL, 2 ms of every trainer's import

    digest, size = sha256(), 0
    for block in blocks:
        digest.update(block)
        if write is not None:
            write(block)
        size += len(block)
    return SpoolFacts(size, digest.hexdigest())


def _remove(*paths: str) -> None:
    for path in paths:
        with suppress(OSError):
            os.unlink(path)
