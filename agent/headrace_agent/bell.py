"""The bell: rings when something comes into a folder of the home, or a process ends, so that nobody need look again and again.

Ten looks a second at folders in which nothing happens cost a quarter of a percent of a core, half of what an agent may take.
inotify tells of what this machine does to a local file system. Where it cannot (network file systems; no instance or watch is
left; a folder was taken away) the bell is deaf: it never rings for folders, and who waits has to look himself. Of a folder that was
moved it tells what comes into that, not into what is now in its place. So who waits has it `listen` again now and then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from typing import Final, Self

from inotify_simple import INotify, flags

from headrace.service.pausing import comes_within

log = logging.getLogger(__name__)
_ARRIVALS: Final = flags.CREATE | flags.MOVED_TO | flags.ONLYDIR


class Bell:
    """A context in a running loop. `folders` are watched if `hears`; `descriptors` ring when they are readable."""

    def __init__(self, folders: Iterable[str], descriptors: Iterable[int], *, hears: bool) -> None:
        self.deaf = True
        self._folders: Final = list(folders) if hears else []
        self._descriptors: Final = list(descriptors)
        self._rung: Final = asyncio.Event()
        self._inotify: INotify | None = None
        self._watched: set[int] = set()
        self._said = False

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for descriptor in self._descriptors:
            loop.add_reader(descriptor, self.ring)
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for descriptor in self._descriptors:
            loop.remove_reader(descriptor)
        self._hear_no_more()

    def listen(self) -> None:
        """Hear what comes into the folders that have these names now."""
        if not self._folders:
            return
        try:
            if self._inotify is None:
                self._inotify = INotify(nonblocking=True)
                asyncio.get_running_loop().add_reader(self._inotify.fileno(), self._hear)
            # a folder that is watched already has the number that it had
            watched = {self._inotify.add_watch(folder, _ARRIVALS) for folder in self._folders}
        except OSError as error:
            if not self._said:
                log.info(
                    "the kernel will not tell what comes into the home (%s): it is looked at ten times a second", error
                )
            self._said = True
            self._hear_no_more()
            return
        for replaced in self._watched - watched:
            with suppress(OSError):
                self._inotify.rm_watch(replaced)
        self._watched, self.deaf, self._said = watched, False, False

    def _hear(self) -> None:
        if self._inotify is None:
            return
        self.ring()
        events = self._inotify.read(timeout=0)
        if any(event.mask & flags.Q_OVERFLOW for event in events):
            self.listen()  # what was dropped may be that a folder was taken away
        if any(event.mask & flags.IGNORED and event.wd in self._watched for event in events):
            self._hear_no_more()  # a folder was taken away: what is made in its place is another one

    def _hear_no_more(self) -> None:
        self.deaf = True
        self._watched = set()
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
