"""The record lock that says 'the writer lives'. POSIX locks, not flock: they are freed on SIGKILL even while a forked child
still has the descriptor, and they work between containers that share a volume."""

from __future__ import annotations

import errno
import fcntl
import os
from struct import Struct

from headrace_proto.home import FILE_MODE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_FLOCK: Final = Struct("hhqqi4x")  # struct flock of 64-bit Linux: type, whence, start, length, pid

UNSUPPORTED: Final = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY})
"""What a file system answers that has no locks, such as Lustre mounted without `flock`, or NFS without its lock daemon."""
_BUSY: Final = frozenset({errno.EACCES, errno.EAGAIN})


def take(path: str, *, new: bool = True) -> int | None:
    """Lock the file at `path` for the rest of this process's life; its descriptor, or None when another process has it.

    Makes it where it is not, unless it is not to be `new`. Raises `OSError`, one of `UNSUPPORTED` where nothing can be locked.
    """
    create = os.O_CREAT if new else 0
    descriptor = os.open(path, os.O_RDWR | create | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in _BUSY:
            return None
        raise
    return descriptor


def holder(path: str) -> int | None:
    """The pid that holds the lock (0 when it is in another pid namespace), or None when it is free or there is no such file.

    Asks and never takes it, so that asking cannot disturb a writer that is about to lock. Must not be called in the process
    that holds the lock: the close would free it. Raises `OSError` where nothing can be locked.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    finally:
        os.close(descriptor)
    kind, _, _, _, pid = _FLOCK.unpack(answer)
    return None if kind == fcntl.F_UNLCK else int(pid)
