"""How far each source of a home has come: journaled, streamed, stored. From the journals and the agent's status files alone."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final, NamedTuple

from headrace_proto.errors import Corrupt, FormatUnknown
from headrace_proto.events import Role
from headrace_proto.home import HIDDEN, Home
from headrace_proto.ids import is_id
from headrace_proto.journal import JournalReader
from headrace_proto.spool import is_spool_file
from headrace_proto.status import SourceStatus, read_status

NOTHING: Final = SourceStatus()


class Position(NamedTuple):
    """One source. Positions are bytes of its journal."""

    source: str
    experiment: str
    project: str
    short_id: str
    role: str
    host: str
    boot_id: str
    pid: int
    created_ns: int
    journaled: int
    streamed: int
    stored: int
    files: int
    closed: bool
    alive: bool

    @property
    def lag(self) -> int:
        """Bytes that the store does not hold yet."""
        return max(self.journaled - self.stored, 0)

    @property
    def of_program(self) -> bool:
        """False for the agent's own sources of hardware values."""
        return self.role != Role.SYSTEM

    @property
    def of_owner(self) -> bool:
        """Whether the experiment's life is this source's."""
        return self.role in (Role.OWNER, Role.RANK)


class Unreadable(NamedTuple):
    """A journal's folder that does not open."""

    source: str
    reason: str


def sources(home: Home) -> list[str]:
    """The sources that have a journal in the home."""
    try:
        entries = os.listdir(home.journals)
    except FileNotFoundError:
        return []
    return sorted(name for name in entries if is_id(name) and not name.startswith(HIDDEN))


def position(home: Home, source: str) -> Position | Unreadable | None:
    """How far a source has come; None when its journal is gone, which is how the agent says that all of it is stored."""
    try:
        reader = JournalReader(home.journal(source))
    except FileNotFoundError:
        return None
    except (OSError, Corrupt, FormatUnknown) as error:
        return Unreadable(source, str(error)) if os.path.isdir(home.journal(source)) else None
    try:
        header, end, closed = reader.header, reader.end, reader.closed
        gone = closed or reader.has_let_go()
    finally:
        reader.close()
    told = read_status(home.status(header.experiment))
    status = told.sources.get(source, NOTHING) if told else NOTHING
    return Position(
        source=source,
        experiment=header.experiment,
        project=header.project,
        short_id=told.short_id if told else "",
        role=header.role,
        host=header.host,
        boot_id=header.boot_id,
        pid=header.pid,
        created_ns=header.created_ns,
        journaled=end,
        streamed=status.streamed,
        stored=status.stored,
        files=_spooled(home, source),
        closed=closed,
        alive=not gone,
    )


def _spooled(home: Home, source: str) -> int:
    """Files that the store does not have yet: the agent deletes each when it does."""
    with suppress(FileNotFoundError):
        return sum(is_spool_file(name) for name in os.listdir(home.spool(source)))
    return 0


def positions(home: Home) -> tuple[list[Position], list[Unreadable]]:
    """All sources of the home, oldest first, and the journals that do not open."""
    found = [position(home, source) for source in sources(home)]
    readable = sorted((p for p in found if isinstance(p, Position)), key=lambda p: p.created_ns)
    return readable, [u for u in found if isinstance(u, Unreadable)]
