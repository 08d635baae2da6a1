"""Finding journals: what in `Home.journals` is one, and what is better left alone."""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

from headrace_agent.trouble import Trouble
from headrace_proto.errors import Corrupt, FormatUnknown, HeadraceError
from headrace_proto.home import HIDDEN, Home
from headrace_proto.ids import is_id
from headrace_proto.journal import JournalReader

FULL_SCAN_NS: Final = 5_000_000_000
"""The folder is listed when its time of change says so, and this often in any case: a clock may have been set back."""
SAME_STAMP_NS: Final = 1_000_000_000
"""A folder that changed as lately as this may change again within the same time stamp: its time of change says nothing yet."""
RETRY_NS: Final = 30_000_000_000
log = logging.getLogger(__name__)


class Refused(NamedTuple):
    """A journal that could not be opened."""

    reason: str
    retry_ns: int


class Discovery:
    """Looks for journals that are not being shipped yet."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._changed_ns = -1
        self._scanned_ns = 0
        self.refused: dict[str, Refused] = {}
        self._trouble: Final = Trouble(log)

    def look(self, known: AbstractSet[str], now_ns: int) -> Iterator[JournalReader]:
        """The journals that have appeared, or that can be opened by now."""
        if not self._worth_a_scan(now_ns):
            return
        present = set()
        for entry in self._entries():
            present.add(entry.name)
            refused = self.refused.get(entry.name)
            if entry.name in known or (refused is not None and now_ns < refused.retry_ns):
                continue
            try:
                reader = _open(entry)
            except (OSError, HeadraceError) as error:
                if os.path.lexists(
                    entry.path
                ):  # else it was stored by its own process, and deleted, since it was listed
                    self.refuse(entry.name, error, now_ns)
            else:
                self.refused.pop(entry.name, None)
                yield reader
        for name in self.refused.keys() - present:
            del self.refused[name]

    def refuse(self, name: str, error: Exception, now_ns: int) -> None:
        """Leave a journal alone for a while. Said once: it is tried again for as long as it lies there."""
        if name not in self.refused:
            log.error("the journal %s is left alone, and tried again later: %s", name, error)
        self.refused[name] = Refused(str(error), now_ns + RETRY_NS)

    def _worth_a_scan(self, now_ns: int) -> bool:
        try:
            changed_ns = os.stat(self._home.journals).st_mtime_ns
        except OSError as error:
            self._tell(error)
            return False
        due = now_ns - self._scanned_ns >= FULL_SCAN_NS or any(r.retry_ns <= now_ns for r in self.refused.values())
        if changed_ns == self._changed_ns and not due and self._scanned_ns:
            return False
        self._changed_ns = changed_ns if abs(time.time_ns() - changed_ns) > SAME_STAMP_NS else -1
        self._scanned_ns = now_ns
        return True

    def _entries(self) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self._home.journals) as entries:
                return [entry for entry in entries if not entry.name.startswith(HIDDEN)]
        except OSError as error:
            self._tell(error)
            return []

    def _tell(self, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # else somebody clears the home away under us
            self._trouble.tell("no journal that is new can be found: %s", error)


def _open(entry: os.DirEntry[str]) -> JournalReader:
    if not is_id(entry.name) or entry.is_symlink() or not entry.is_dir(follow_symlinks=False):
        raise Corrupt(f"{entry.path} is no journal's folder")
    facts = entry.stat(follow_symlinks=False)
    if facts.st_uid != os.geteuid():
        raise Corrupt(f"{entry.path} belongs to user {facts.st_uid}: an agent ships its own user's journals")
    if facts.st_mode & stat.S_IWOTH:
        raise Corrupt(f"everybody may write to {entry.path}: look what is in it, then chmod go-rwx it")
    reader = JournalReader(entry.path)
    if reader.header.source != entry.name:
        reader.close()
        raise FormatUnknown(f"{entry.path} holds the journal of the source {reader.header.source}")
    return reader
