"""What killed processes left behind: owed to nobody, and removed once it is certain that nobody is still at it.

| left                                          | by                                                                        |
|-----------------------------------------------|---------------------------------------------------------------------------|
| `journal/.<source>`                           | a writer killed before its journal had a name: no call of it has returned |
| `journal/.gone-<source>`                      | an agent (or direct mode) killed while it deleted what is stored          |
| `journal/<source>` without a segment          | whoever was killed deleting it; nothing in it holds an event              |
| `spool/<source>/.<file>`, a companion alone   | a writer killed while it kept a payload; they go with the journal         |
| `spool/<source>` with nothing else, no journal| an agent killed between the two                                           |

A writer holds its lock before its folder has a name, so one that is hidden and not locked has no writer; that is looked at twice,
REST_NS apart, because a writer makes the folder just before it takes the lock.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Set as AbstractSet
from contextlib import closing, suppress
from typing import Final

from headrace_agent.marks import MARK_NAME
from headrace_agent.metrics import Metrics
from headrace_proto.errors import HeadraceError
from headrace_proto.home import GONE, HIDDEN, Home
from headrace_proto.ids import is_id
from headrace_proto.journal import JournalReader, lock, machine
from headrace_proto.journal.layout import LOCK_NAME, UNLOCKED_NAME
from headrace_proto.spool import COMPANION_SUFFIX, is_spool_file

REST_NS: Final = 60_000_000_000
_NOTHING: Final = re.compile(rf"{LOCK_NAME}|{UNLOCKED_NAME}|{MARK_NAME}(\.tmp)?|\.\d{{6}}\.seg")
"""What may lie in a journal that holds no event: anything else may be one that is still being copied here."""
log = logging.getLogger(__name__)


class Leftovers:
    """Looks for what was left behind, and removes it. Its calls are for one thread at a time."""

    def __init__(self, home: Home, metrics: Metrics) -> None:
        self._home: Final = home
        self._metrics: Final = metrics
        self._seen: dict[str, tuple[int, int]] = {}  # path -> (time of change, when it was first seen so)

    def sweep(self, shipped: AbstractSet[str], now_ns: int) -> None:
        """Look once. `shipped` are the sources whose journals are open here."""
        found: dict[str, tuple[int, int]] = {}
        for name in _names(self._home.journals):
            path = os.path.join(self._home.journals, name)
            if name.startswith(GONE):
                self._remove(path, "deleted")
            elif name.startswith(HIDDEN) and is_id(name[len(HIDDEN) :]):
                self._look(path, "opening", now_ns, found, _is_nobodys(path))
            elif is_id(name) and name not in shipped:
                self._look(path, "empty", now_ns, found, _is_empty(path))
        for name in _names(self._home.spools):
            path = os.path.join(self._home.spools, name)
            if is_id(name) and name not in shipped and not os.path.exists(self._home.journal(name)):
                self._look(path, "spool", now_ns, found, all(map(_is_no_file, _names(path))))
        self._seen = found

    def _look(self, path: str, what: str, now_ns: int, found: dict[str, tuple[int, int]], is_left: bool) -> None:
        try:
            status = os.stat(path, follow_symlinks=False)
        except OSError:
            return
        if not is_left or status.st_uid != os.geteuid():
            return
        changed_ns, since_ns = self._seen.get(path, (status.st_ctime_ns, now_ns))
        if changed_ns != status.st_ctime_ns:
            since_ns = now_ns
        if now_ns - since_ns >= REST_NS:
            self._remove(path, what)
        else:
            found[path] = (status.st_ctime_ns, since_ns)

    def _remove(self, path: str, what: str) -> None:
        try:
            shutil.rmtree(path)
        except OSError as error:
            log.warning("%s was left behind and cannot be removed: %s", path, error)
            return
        self._metrics.leftovers.labels(what).inc()
        log.info("removed %s, which a killed process had left behind", path)


def clear_spool(folder: str) -> None:
    """Remove from the spool of a source that is over what belongs to no file, and the folder when nothing else is in it."""
    names = _names(folder)
    for name in names:
        whole = is_spool_file(name.removesuffix(COMPANION_SUFFIX)) and name.removesuffix(COMPANION_SUFFIX) in names
        if name.startswith(HIDDEN) or (name.endswith(COMPANION_SUFFIX) and not whole):
            with suppress(OSError):
                os.unlink(os.path.join(folder, name))
    with suppress(OSError):  # it never was, or something lies in it that is not ours to delete
        os.rmdir(folder)


def _is_no_file(name: str) -> bool:
    return name.startswith(HIDDEN) or name.endswith(COMPANION_SUFFIX)


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _is_empty(folder: str) -> bool:
    """Whether a journal's folder holds no event, and nobody who might write one."""
    if not os.path.isdir(folder) or os.path.islink(folder):
        return False
    return all(map(_NOTHING.fullmatch, _names(folder))) and _is_nobodys(folder)


def _is_nobodys(folder: str) -> bool:
    """Whether the writer of a journal, which may not have come to its first segment, is gone. One of another host may live."""
    with suppress(OSError):  # in doubt it lives
        try:
            reader = JournalReader(folder)
        except HeadraceError:  # it has no segment, or nothing that can be read
            unlocked = os.path.exists(os.path.join(folder, UNLOCKED_NAME))
            return not unlocked and lock.holder(os.path.join(folder, LOCK_NAME)) is None
        with closing(reader):
            here = machine.boot_id() == reader.header.boot_id
            return reader.has_let_go() if here else machine.host_name() == reader.header.host
    return False
