"""The bell: rings when something comes into a folder of the home, or a process ends, so that nobody need look again and again.

Ten looks a second at folders in which nothing happens cost a quarter of a percent of a core, half of what an agent may take.
inotify tells of what this machine does to a local file system. Where it cannot (network file systems; no instance or watch is
left; the folder was replaced) the bell is deaf: it never rings for folders, and who waits has to look himself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Final, Self

from inotify_simple import INotify, flags

from headrace.service.pausing import comes_within

log = logging.getLogger(__name__)
_ARRIVALS: Final = flags.CREATE | flags.MOVED_TO | flags.ONLYDIR


class Bell:
    """A context in a running loop. `folders` are watched if `hears`; `descriptors` ring when they are readable."""

    def __init__(self, folders: Iterable[str], descriptors: Iterable[int], *, hears: bool) -> None:
        self.deaf = not hears
        self._folders: Final = list(folders)
        self._descriptors: Final = list(descriptors)
        self._rung: Final = asyncio.Event()
        self._inotify: INotify | None = None

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for descriptor in self._descriptors:
            loop.add_reader(descriptor, self.ring)
        if not self.deaf:
            try:
                self._inotify = INotify(nonblocking=True)
                for folder in self._folders:
                    self._inotify.add_watch(folder, _ARRIVALS)
            except OSError as error:
                log.info(
                    "the kernel will not tell what comes into the home (%s): it is looked at ten times a second", error
                )
                self._hear_no_more()
            else:
                loop.add_reader(self._inotify.fileno(), self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for descriptor in self._descriptors:
            loop.remove_reader(descriptor)
        self._hear_no_more()

    def _hear(self) -> None:
        if self._inotify is None:
            return
        self.ring()
        if any(event.mask & flags.IGNORED for event in self._inotify.read(timeout=0)):
            self._hear_no_more()  # a folder was taken away: what is made in its place is another one

    def _hear_no_more(self) -> None:
        self.deaf = True
        if self._inotify is not None:
            asyncio.get_running_loop().remove_reader(self._inotify.fileno())
            self._inotify.close()
            self._inotify = None

    def ring(self) -> None:
        """Have whoever waits look now."""
        self._rung.set()

    async def rung(self, within_s: float) -> bool:
        """Wait until it rings, or has rung since the last time, for `within_s` at most; whether it has."""
        heard = await comes_within(self._rung, within_s)
        self._rung.clear()
        return heard
