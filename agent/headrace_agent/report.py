"""The agent's word to trainers: the status files.

A file is written only when something in it changed: at once when a trainer waits for it, every SELDOM_S else, and all of them
together never take more than a twentieth of the agent's time. What a trainer waits for is `stored`, which changes once a commit.

A spooled file is in its folder before the event that names it is in the journal. So `files` is counted when a status is written,
after `stored` is known: a status that says "stored up to here, no files" cannot have missed one.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from contextlib import suppress
from typing import Final

from headrace.service.pausing import comes_within
from headrace_agent.source import Source
from headrace_agent.ticks import STEADY_S, until_tick
from headrace_agent.trouble import Trouble
from headrace_proto.home import FOLDER_MODE, Home
from headrace_proto.spool import is_spool_file
from headrace_proto.status import SourceStatus, Status, read_status, write_status

SHARE: Final = 0.05
SELDOM_S: Final = 10.0
"""A file costs the agent a millisecond, as much as it takes to ship 5,000 points; for who only looks this is soon enough."""
KEPT_S: Final = 7 * 24 * 3600
"""An experiment's last status outlives its journals: a `wait` in another process may still look."""
log = logging.getLogger(__name__)


def spooled_files(home: Home, source: str) -> list[str]:
    """The files of a source's spool that are whole, oldest first. Raises `OSError` when that cannot be known."""
    try:
        return sorted(name for name in os.listdir(home.spool(source)) if is_spool_file(name))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _replace(path: str, status: Status) -> None:
    try:
        write_status(path, status)
    except FileNotFoundError:  # somebody cleared the folder away. The home itself is for a trainer to make
        with suppress(FileExistsError):
            os.mkdir(os.path.dirname(path), FOLDER_MODE)
        write_status(path, status)


class Reporter:
    """Writes status files."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._sources: dict[str, dict[str, SourceStatus]] = {}
        self._short_ids: dict[str, str] = {}
        self._live: dict[str, set[str]] = {}
        self._changed: dict[str, dict[str, Source]] = {}
        self._written_s: dict[str, float] = {}
        self._news = asyncio.Event()
        self._trouble = Trouble(log)

    def changed(self, source: Source) -> None:
        """Something that trainers may want to know of this source has changed."""
        experiment = source.header.experiment
        first = experiment not in self._changed  # then nobody knows yet until when it may wait
        self._changed.setdefault(experiment, {})[source.id] = source
        self._live.setdefault(experiment, set()).add(source.id)
        if first or self._is_due(experiment, time.monotonic()):
            self._news.set()

    def awaited(self) -> None:
        """A trainer has begun to wait: something that changed before may be due now."""
        self._news.set()

    def finished(self, source: Source) -> None:
        """The source's journal is gone; its last positions stay in the file."""
        experiment = source.header.experiment
        self.changed(source)
        self._write(experiment)
        self._live[experiment].discard(source.id)
        if not self._live[experiment]:
            for table in (self._sources, self._short_ids, self._live, self._written_s):
                table.pop(experiment, None)

    async def run(self) -> None:
        """Write until cancelled, then once more."""
        try:
            while True:
                self._news.clear()
                began_s = time.monotonic()
                for experiment in self._due(began_s):
                    self._write(experiment)
                again_s = began_s + (time.monotonic() - began_s) * (1 + 1 / SHARE)
                await self._until_due()
                await asyncio.sleep(max(again_s - time.monotonic(), 0.0))
        finally:
            self.write_changed()

    async def _until_due(self) -> None:
        """Return when something changed that is due, or at the tick at which a file has waited for long enough."""
        written_s = [self._written_s.get(experiment, -math.inf) for experiment in self._changed]
        pause_s = until_tick(STEADY_S, min(written_s) + SELDOM_S - time.monotonic()) if written_s else None
        await comes_within(self._news, pause_s)

    def write_changed(self) -> None:
        """Write every status that changed."""
        for experiment in list(self._changed):
            self._write(experiment)

    def _due(self, now_s: float) -> list[str]:
        """The experiments to write now: when one has waited for SELDOM_S, those as well that have for half of that."""
        waited_s = {experiment: now_s - self._written_s.get(experiment, -math.inf) for experiment in self._changed}
        long_s = SELDOM_S / 2 if max(waited_s.values(), default=0.0) >= SELDOM_S else SELDOM_S
        return [one for one in self._changed if waited_s[one] >= long_s or self._is_due(one, now_s)]

    def _is_due(self, experiment: str, now_s: float) -> bool:
        """Whether it was not written for a while, or somebody is waiting for what is new in it."""
        if now_s - self._written_s.get(experiment, -math.inf) >= SELDOM_S:
            return True
        known = self._short_ids.get(experiment, "")
        return any(
            source.awaited(int(now_s * 1e9)) or (source.mark is not None and source.mark.short_id not in ("", known))
            for source in self._changed[experiment].values()
        )

    def _write(self, experiment: str) -> None:
        changed = self._changed.pop(experiment, {})
        self._written_s[experiment] = time.monotonic()
        path = self._home.status(experiment)
        sources = self._sources.get(experiment)
        if sources is None:  # an earlier agent's sources, or ones whose journals are gone, stay in the file
            old = read_status(path)
            sources = self._sources[experiment] = dict(old.sources) if old else {}
            self._short_ids[experiment] = old.short_id if old else ""
        for source in changed.values():
            if source.mark is not None and source.mark.short_id:
                self._short_ids[experiment] = source.mark.short_id
        try:
            for source in changed.values():
                streamed, stored = max(source.window.acked, source.stored), source.stored
                sources[source.id] = SourceStatus(streamed, stored, len(spooled_files(self._home, source.id)))
            _replace(path, Status(self._short_ids[experiment], os.getpid(), time.time(), sources))
        except OSError as error:  # the disk may be full: tried again in a while, or when somebody waits
            self._trouble.tell("the status of experiment %s cannot be written: %s", experiment, error)
            self._changed[experiment] = changed

    def remove_old(self, now_s: float) -> None:
        """Remove the status files that nobody has touched for KEPT_S."""
        folder = os.path.dirname(self._home.status("any"))
        try:
            names = os.listdir(folder)
        except OSError:  # somebody clears the home away under us
            return
        for name in names:
            path = os.path.join(folder, name)
            with suppress(OSError):
                if name.partition(".")[0] not in self._live and now_s - os.stat(path).st_mtime > KEPT_S:
                    os.unlink(path)
