"""One agent a home."""

from __future__ import annotations

import os
from contextlib import suppress
from types import TracebackType
from typing import Self

from headrace_proto.errors import AlreadyRunning, HomeUnusable
from headrace_proto.home import HOME_VARIABLE, Home
from headrace_proto.journal import lock as record_lock


class HomeLock:
    """The lock on `Home.agent_lock`, held from `__enter__` until `__exit__` or death. The file names the holder's pid."""

    def __init__(self, home: Home) -> None:
        self._path = home.agent_lock
        self._root = home.root
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        try:
            self._descriptor = record_lock.take(self._path)
        except OSError as error:
            if error.errno not in record_lock.UNSUPPORTED:
                raise
            raise HomeUnusable(
                f"nothing can be locked in {self._root!r} ({error.strerror}), so two agents could serve it: mount it with locks "
                f"(Lustre: -o flock), or set {HOME_VARIABLE} to a folder on a local disk, for the programs too"
            ) from error
        if self._descriptor is None:
            pid = record_lock.holder(self._path)
            raise AlreadyRunning(
                f"an agent serves {self._root!r} already (process {pid or 'of another container'}): stop that one, or "
                "give this one another home with --home"
            )
        with suppress(OSError):  # for people only, and a full disk needs an agent more than they do
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
