"""The quota of the disk: how much journals and spools may take together.

What the store holds is freed first, always, by `retention`. What it does not hold is never deleted. So when what remains reaches
the quota, the agent puts up a marker, and writers drop and count until it is gone again. The marker stays when the agent goes:
the disk is no emptier for that.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from headrace_proto.home import FILE_MODE, Home

PERIOD_S: Final = 1.0
IDLE_PERIOD_S: Final = 15.0
"""Without a quota only the metrics want to know."""
REOPEN_AT: Final = 0.9
"""Writers may go on below this share of the quota: not at once, or the marker would come and go with every segment."""
log = logging.getLogger(__name__)


def bytes_used(folder: str) -> int:
    """What the files below `folder` occupy on the disk, two levels deep: journals and spools are no deeper."""
    return sum(
        entry.stat(follow_symlinks=False).st_blocks * 512 for sub in _entries(folder) for entry in _entries(sub.path)
    )


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # trimmed meanwhile
                yield entry


class Quota:
    """Watches the use of the disk, and puts the marker up and down."""

    def __init__(self, home: Home, bytes_max: int | None) -> None:
        self._home = home
        self._bytes_max = bytes_max
        self.used = 0
        self.reached = os.path.exists(home.quota_marker)

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await self.work()
            await asyncio.sleep(PERIOD_S if self._bytes_max is not None else IDLE_PERIOD_S)

    async def work(self) -> None:
        """Look once."""
        self.used = await asyncio.to_thread(self._measure)
        limit = float("inf") if self._bytes_max is None else self._bytes_max * (REOPEN_AT if self.reached else 1.0)
        reached = self.used >= limit
        if reached != self.reached:
            self._set(reached=reached)

    def _measure(self) -> int:
        return bytes_used(self._home.journals) + bytes_used(self._home.spools)

    def _set(self, *, reached: bool) -> None:
        try:
            if reached:
                os.close(os.open(self._home.quota_marker, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, FILE_MODE))
            else:
                os.unlink(self._home.quota_marker)
        except FileNotFoundError:
            pass
        except OSError as error:
            log.warning("the quota's marker cannot be changed: %s", error)
            return
        self.reached = reached
        if reached:
            log.error("the quota is reached by what the store does not have yet: writers drop and count")
        else:
            log.info("there is room within the quota again")
