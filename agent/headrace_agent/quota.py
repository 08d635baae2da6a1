"""The quota of the disk: how much journals and spools may hold that the store does not have.

What the store holds is freed first, always, by `retention`. What it does not hold is never deleted. So when that reaches the
quota, the agent puts up a marker, and writers drop and count until it is gone again. The marker stays when the agent goes:
the disk is no emptier for that.

Bytes that the store has but that lie in a segment still being written are not counted: they go as soon as the writer gets its
next segment, which the marker would forbid. So the disk holds at most the quota and two segments (8 MiB) for each live source.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Final, NamedTuple

from headrace_agent.ticks import tick
from headrace_agent.trouble import Trouble
from headrace_proto.home import FILE_MODE, Home

PERIOD_S: Final = 1.0
IDLE_PERIOD_S: Final = 60.0
"""Without a quota only the metrics want to know."""
REOPEN_AT: Final = 0.9
"""Writers may go on below this share of the quota: not at once, or the marker would come and go with every segment."""
log = logging.getLogger(__name__)


class Use(NamedTuple):
    """Bytes on the disk."""

    total: int
    owed: int  # of them, what the store does not have


def measure(home: Home, unstored: Mapping[str, int]) -> Use:
    """What journals and spools occupy. `unstored` says of each source how many bytes the store lacks; a journal that is not in it
    counts whole."""
    journals = {entry.name: _bytes_in(entry.path) for entry in _entries(home.journals)}
    spools = sum(_bytes_in(entry.path) for entry in _entries(home.spools))
    owed = sum(min(size, unstored.get(name, size)) for name, size in journals.items())
    return Use(sum(journals.values()) + spools, owed + spools)


def _bytes_in(folder: str) -> int:
    return sum(entry.stat(follow_symlinks=False).st_blocks * 512 for entry in _entries(folder))


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        yield from entries


class Quota:
    """Watches the use of the disk, and puts the marker up and down."""

    def __init__(self, home: Home, bytes_max: int | None, unstored: Callable[[], Mapping[str, int]]) -> None:
        self._home = home
        self._bytes_max = bytes_max
        self._unstored = unstored
        self.use = Use(0, 0)
        self._trouble = Trouble(log)
        self.reached = os.path.exists(home.quota_marker)

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await self.work()
            await tick(PERIOD_S if self._bytes_max is not None else IDLE_PERIOD_S)

    async def work(self) -> None:
        """Look once."""
        try:
            self.use = await asyncio.to_thread(measure, self._home, self._unstored())
        except FileNotFoundError:  # a segment was trimmed between its listing and its stat: look again next time
            return
        except OSError as error:
            self._trouble.tell("what the disk holds cannot be measured: %s", error)
            return
        limit = float("inf") if self._bytes_max is None else self._bytes_max * (REOPEN_AT if self.reached else 1.0)
        reached = self.use.owed >= limit
        if reached != self.reached:
            self._set(reached=reached)

    def _set(self, *, reached: bool) -> None:
        try:
            if reached:
                os.close(os.open(self._home.quota_marker, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, FILE_MODE))
            else:
                os.unlink(self._home.quota_marker)
        except FileNotFoundError:
            pass
        except OSError as error:
            self._trouble.tell("the quota's marker cannot be changed: %s", error)
            return
        self.reached = reached
        if reached:
            log.error("the quota is reached by what the store does not have yet: writers drop and count")
        else:
            log.info("there is room within the quota again")
