"""Where everything lies under $HEADRACE_HOME, the folder that a node's trainers and its agent share.

    journal/<source>/lock          held by the writer for life; nothing else in its process opens it
    journal/<source>/000000.seg    segments (`headrace_proto.journal.layout`)
    journal/<source>/declared-dead a person's: the writer, on another host, is gone (`journal.layout.DEATH_NAME`)
    journal/<source>/abort-...     by which agent and process speak of an end that somebody asked for (`headrace_proto.abort`)
    journal/<source>/mark          the agent's: the highest Mark heard, synced before anything is trimmed
    spool/<source>/<file>          payloads too large for an event, until the store has them (`headrace_proto.spool`)
    status/<experiment>.json       the agent's: what a trainer may want to know (`headrace_proto.status`)
    flush/<experiment>             touched by a trainer that waits: ship now, commit soon; the agent removes it when seen
    quota_reached                  the agent's: writers drop and count while it exists
    bound_store                    the agent's: the id of the one store whose marks it believes
    damaged/<source>-<first>-<end> the agent's: bytes of a journal that it could not believe, kept for people to look at
    agent.lock                     held by the one agent of this home
    run/<part>.pid, log/, nats/    `headrace up`
    store/                         the default store
    headrace.toml                  settings, if any

Folders are 0700, files 0600: metrics and parameters are their owner's business.

A home on a network file system is named the same on every host, but each host has all this below `hosts/<host>/` of it, with an
agent of its own: what one host's kernel has in memory another's does not see, one lock would let one agent run for all, and every
agent writes the status of its own sources. Only the settings and the default store are everybody's.
"""

from __future__ import annotations

import errno
import os
import stat

from headrace_proto import filesystem
from headrace_proto.errors import HomeUnusable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600
GONE: Final = ".gone-"
"""A journal that the store has is renamed to a name that begins so, and then deleted."""
HOME_VARIABLE: Final = "HEADRACE_HOME"
STORE_VARIABLE: Final = "HEADRACE_STORE"
HOSTS: Final = "hosts"
"""Holds each host's part of a home on a network file system. Whoever names such a part means it, on any host."""
HIDDEN: Final = "."
"""A journal folder is made under a name that begins so, locked, and only then renamed: a free lock never means 'not yet'."""


class Home:
    """The paths of one home. Makes nothing until `make` is called. Strings, because the trainer's import pays for pathlib."""

    __slots__ = ("kind", "named", "root")

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        chosen = os.fspath(root) if root is not None else os.environ.get(HOME_VARIABLE) or "~/.headrace"
        self.named: Final = os.path.abspath(os.path.expanduser(chosen))
        """What other processes are told, on this host or another."""
        self.kind: Final = filesystem.kind_of(self.named)
        """The type of the file system that it lies on."""
        self.root: Final = _of_this_host(self.named) if self.is_shared else self.named
        """This host's part of it: all of it, on a local disk."""

    @property
    def is_shared(self) -> bool:
        """Whether other hosts may see it."""
        return filesystem.is_network(self.kind)

    def __repr__(self) -> str:
        return f"Home({self.root!r})"

    @property
    def journals(self) -> str:
        """The folder of all sources' journals."""
        return os.path.join(self.root, "journal")

    def journal(self, source: str) -> str:
        """A source's journal."""
        return os.path.join(self.root, "journal", source)

    @property
    def spools(self) -> str:
        """The folder of all sources' spools."""
        return os.path.join(self.root, "spool")

    def spool(self, source: str) -> str:
        """A source's spool."""
        return os.path.join(self.root, "spool", source)

    def status(self, experiment: str) -> str:
        """The agent's word on an experiment."""
        return os.path.join(self.root, "status", f"{experiment}.json")

    @property
    def flush_requests(self) -> str:
        """The folder of flush requests: nearly always empty, so that one listing asks for all experiments."""
        return os.path.join(self.root, "flush")

    def flush_request(self, experiment: str) -> str:
        """The file that a trainer touches to have the agent ship an experiment now and the collector commit it soon."""
        return os.path.join(self.root, "flush", experiment)

    @property
    def quota_marker(self) -> str:
        """Exists while journals and spools, all of it not yet stored, fill the quota: writers drop and count."""
        return os.path.join(self.root, "quota_reached")

    @property
    def bound_store(self) -> str:
        """Holds the id of the store that the first mark named: only its marks free this home's journals."""
        return os.path.join(self.root, "bound_store")

    def damaged(self, source: str, first: int, end: int) -> str:
        """Where the bytes [first, end) of a journal are put that nobody can believe."""
        return os.path.join(self.root, "damaged", f"{source}-{first}-{end}")

    @property
    def agent_lock(self) -> str:
        """Locked while an agent serves this home."""
        return os.path.join(self.root, "agent.lock")

    def pid_file(self, part: str) -> str:
        """Where `headrace up` writes the process id of its child `part`."""
        return os.path.join(self.root, "run", f"{part}.pid")

    @property
    def settings_file(self) -> str:
        """The settings file that is read when no other is named."""
        return os.path.join(self.named, "headrace.toml")

    @property
    def default_store(self) -> str:
        """The store that is meant when none is named: a folder in this home."""
        return os.path.join(self.named, "store")

    def make(self) -> None:
        """Make the folders that a writer needs. Raises `HomeUnusable` when that cannot be done safely."""
        try:
            for folder in (
                self.root,
                self.journals,
                self.spools,
                self.flush_requests,
                os.path.join(self.root, "status"),
            ):
                os.makedirs(folder, mode=FOLDER_MODE, exist_ok=True)
            facts = [os.stat(folder) for folder in (self.root, self.journals, self.spools)]
        except OSError as error:
            raise HomeUnusable(
                f"the home {self.root!r} cannot be used: {error.strerror}. Name a writable folder with home= or "
                f"{HOME_VARIABLE}"
            ) from error
        for fact in facts:
            if fact.st_uid != os.geteuid():
                raise HomeUnusable(
                    f"the home {self.root!r} belongs to user {fact.st_uid}: name one of your own with {HOME_VARIABLE}"
                )
            others = fact.st_mode & stat.S_IWOTH and not fact.st_mode & stat.S_ISVTX
            if others or (fact.st_mode & stat.S_IWGRP and fact.st_gid != os.getegid()):
                raise HomeUnusable(
                    f"others may write to the home {self.root!r}, and read or change what is logged: chmod -R go-rwx it, or name "
                    f"another with {HOME_VARIABLE}"
                )
        if not os.access(self.journals, os.R_OK | os.W_OK | os.X_OK):
            raise HomeUnusable(
                f"the home {self.root!r} is not writable: chmod u+rwx it, or name another with {HOME_VARIABLE}"
            )


def _of_this_host(named: str) -> str:
    if os.path.basename(os.path.dirname(named)) == HOSTS:
        return named
    node = "".join(one if one.isalnum() or one in "-_." else "_" for one in os.uname().nodename).strip(".")
    return os.path.join(named, HOSTS, node or "localhost")


def open_plain(path: str, flags: int) -> int:
    """An opener for what lies in a home, which may have been tampered with: no link is followed, and no pipe waited for.

    Raises `OSError` for whatever is no plain file.
    """
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no plain file", path)
    return descriptor


def store_url(given: str | None, home: Home) -> str:
    """The store to use: the one given, else $HEADRACE_STORE, else the folder in the home."""
    return absolute_store(given or os.environ.get(STORE_VARIABLE) or home.default_store)


def absolute_store(url: str) -> str:
    """A store's URL; a plain path made absolute, because it is opened later, and in children: the working folder may be another."""
    return url if "://" in url or not url.strip() else os.path.abspath(os.path.expanduser(url))
