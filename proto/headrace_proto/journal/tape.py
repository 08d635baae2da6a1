"""The tape: a journal's segments as one strip that only grows. No lock and no names: `writer` adds both.

Its methods run under the writer's lock. What cannot be written for want of room raises `NoRoom`; nothing else here fails because
of the machine once the source is open.
"""

from __future__ import annotations

import os
import sys
import time
from binascii import crc32
from contextlib import suppress
from struct import unpack

from headrace_proto import events, filesystem
from headrace_proto.errors import ExperimentStopped, HomeUnusable
from headrace_proto.events import CHECK_WIDTH, POINT_WIDTH, Kind, Role, pack
from headrace_proto.home import FOLDER_MODE, HIDDEN, HOME_VARIABLE, Home
from headrace_proto.ids import random_id
from headrace_proto.journal import lock, machine
from headrace_proto.journal.descriptor import Descriptor
from headrace_proto.journal.guard import SoftLimit
from headrace_proto.journal.layout import LOCK_NAME, SECTOR, UNLOCKED_NAME, UNSET, Header, SourceFacts, segment_name
from headrace_proto.journal.segment import NoRoom, Segment
from headrace_proto.journal.written import WrittenSegment
from headrace_proto.limits import (
    CHECK_BYTES,
    CHECKS_MAX,
    HEADER_BYTES,
    SEGMENT_BYTES,
    SEGMENT_BYTES_FIRST,
    SEGMENT_RESERVE,
)
from headrace_proto.warning import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Final, TypeAlias

    FirstEvents: TypeAlias = Callable[[SourceFacts], Iterable[tuple[Any, ...]]]

RETRY_S: Final = 1.0
"""How long after a failed attempt to open a segment the next one may follow: a full disk stays full for a while."""

ZEROS: Final = bytes(SECTOR)
_DETAIL_IN_RESERVE: Final = 40
"""Characters of a traceback that surely fit SEGMENT_RESERVE, beside a gap report and a check."""


class Tape:
    """The segments of one source, and where the next event goes."""

    def __init__(
        self, home: Home, project: str, experiment: str, facts: SourceFacts, first_events: FirstEvents | None
    ) -> None:
        self.home: Final = home
        self.project: Final = project
        self.experiment: Final = experiment
        self.facts = facts
        self.dropped = 0
        self.closed = False
        self._life: Descriptor | None = None  # None where there are no locks
        self._is_open = False
        self._at = self._base = self._hard = 0  # of the next event, of the segment, of its reserve: where it begins
        self._checks = self._checked = 0  # check events in this segment, and the offset up to which they cover it
        self._first_events: Final = first_events
        self._guard: Final = SoftLimit()
        self._limit: memoryview = self._guard.view
        self._open_source()

    @property
    def position(self) -> int:
        """Bytes of events that are committed."""
        return self._base + self._at - HEADER_BYTES

    # -- A source's beginning and end ------------------------------------------------------------------------------------

    def _open_source(self) -> None:
        """Begin a new source: its folder gets its name only when it is locked and holds its first events."""
        self.home.make()
        self.source = random_id()
        self.folder = self.home.journal(self.source)
        self._pid = os.getpid()
        self._unreported = 0
        self._drop_reason = ""
        self._retry_at = 0.0
        self._failing = False  # the segment could not be written to when it was last tried
        self._next: Segment | None = None
        self._unsynced: list[int] = []
        self._named = -1  # the newest segment whose name is known to be on the disk
        self._header = self._make_header()
        hidden = os.path.join(self.home.journals, HIDDEN + self.source)
        segment: Segment | None = None
        try:
            os.mkdir(hidden, FOLDER_MODE)
            self._life = _lock(hidden)
            segment = self._make_segment(hidden, 0, SEGMENT_BYTES_FIRST, 0)
            self._use(segment, 0)
            self._write_first_events()
            os.rename(hidden, self.folder)
            segment.folder = self.folder
        except (OSError, NoRoom) as error:
            self._take_back(segment, hidden)
            reason = error.strerror if isinstance(error, OSError) else self._drop_reason
            raise HomeUnusable(
                f"no journal can be made in {self.home.root!r}: {reason}. Free some space, or name another folder with "
                "home= or HEADRACE_HOME"
            ) from error

        self._is_open = True
        _tell_of_network(self.home)

    def _take_back(self, segment: Segment | None, hidden: str) -> None:
        """Undo an opening that failed half way."""
        self._limit[0] = 0
        if segment is not None:
            segment.release()
        self._unlock()
        _remove_folder(hidden)

    def _make_segment(self, folder: str, number: int, size: int, base: int) -> Segment:
        if filesystem.can_be_mapped(self.home.kind):
            return Segment(folder, number, size, base, self._header)
        reserve = filesystem.is_network(self.home.kind)
        return WrittenSegment(folder, number, size, base, self._header, reserve=reserve, failed=self._write_failed)

    def _write_failed(self, reason: str, at: int | None) -> None:
        """A segment could not be written to. Nothing more is tried for RETRY_S: a server that is gone may keep each try waiting."""
        if at is not None:
            self._at = at
        self._drop_reason, self._retry_at = reason, time.monotonic() + RETRY_S
        self._failing = True
        self._limit[0] = 0

    def _make_header(self) -> Header:
        facts = self.facts
        return Header(
            source=self.source,
            experiment=self.experiment,
            project=self.project,
            host=machine.host_name(),
            boot_id=machine.boot_id(),
            pid=self._pid,
            pid_start=machine.process_start(self._pid),
            pid_namespace=machine.pid_namespace(),
            created_ns=time.time_ns(),
            nonce=unpack("<q", os.urandom(8))[0] / 2.0**63,
            role=facts.role,
            rank=facts.rank,
            label=facts.label,
            attempt=facts.attempt,
            parent=facts.parent,
            hardware=facts.hardware,
        )

    def _write_first_events(self) -> None:
        facts, header = self.facts, self._header
        opened = {
            "role": facts.role,
            "rank": facts.rank,
            "label": facts.label,
            "attempt": facts.attempt,
            "parent": facts.parent,
            "host": os.uname().nodename,
            "pid": header.pid,
            "user": machine.user_name(),
            "boot_id": header.boot_id,
            "python": sys.version.split()[0],
        }
        self._write(pack(Kind.OPEN, header.created_ns, opened))
        for kind, *fields in self._first_events(facts) if self._first_events else ():
            self._write(pack(kind, *fields))

    def _become_child(self) -> None:
        """In a forked child: leave the parent's journal alone and begin a source of our own."""
        if self._is_open:
            self.dropped = 0
            self._begin_anew(self.facts._replace(role=Role.WORKER, parent=self.source))
        else:
            self._begin_anew(self.facts)

    def _take_hold_again(self) -> None:
        """Somebody has closed our descriptors, and freed the lock with them. Take it again, if the journal is still there.

        If it is not, an agent has taken us for dead, stored what it saw and deleted it: go on as a new source in the same role.
        """
        path = os.path.join(self.folder, LOCK_NAME)
        with suppress(OSError):
            taken = lock.take(path, new=False)
            if taken is not None:
                self._life = Descriptor(taken)
                if os.path.samestat(os.fstat(taken), os.stat(path)):
                    return
                self._life.close()
        self._begin_anew(self.facts)

    def _begin_anew(self, facts: SourceFacts) -> None:
        """Leave the journal as it is and begin a new source."""
        if self._is_open:
            self._let_go()
        self.facts = facts
        if time.monotonic() < self._retry_at:
            raise NoRoom
        try:
            self._open_source()
        except HomeUnusable as error:  # a log call never raises for what the machine does
            self._pid, self._drop_reason, self._retry_at = -1, str(error), time.monotonic() + RETRY_S
            raise NoRoom from error

    def _let_go(self) -> None:
        """Unmap and close, here only: in a forked child that leaves the parent's mapping, files and lock as they are."""
        for segment in (self._segment, self._next):
            if segment is not None:
                segment.release()
        self._unlock()
        self._limit[0] = 0
        self._retry_at = 0.0
        self._is_open = False

    def _unlock(self) -> None:
        if self._life is not None:
            self._life.close()
            self._life = None

    def _finish(self, outcome: str, detail: str | None) -> bool:
        """Write the closing record, into the reserve if nowhere else, and let go.

        False when it cannot be written even there (copy-on-write reserves nothing): then the journal ends as after a kill.
        """
        whole = False
        with suppress(NoRoom):
            self._report_gap()
            try:
                self._write(pack(Kind.CLOSED, time.time_ns(), outcome, detail))
            except NoRoom:
                self._append(pack(Kind.CLOSED, time.time_ns(), outcome, detail and detail[-_DETAIL_IN_RESERVE:]))
            self._check()
            self._segment.mark_closed()
            whole = True
        self._leave_segment()
        self.closed = True
        self._let_go()
        if self._next is not None:
            with suppress(OSError):  # it holds nothing, and goes with the folder
                os.unlink(os.path.join(self.folder, segment_name(self._next.number)))
        return whole

    # -- Writing ---------------------------------------------------------------------------------------------------------

    def _write(self, raw: bytes) -> None:
        """Write one event of any size up to EVENT_BYTES_MAX, or raise `NoRoom`."""
        if self._at >= self._limit[0] or self._at + len(raw) > self._hard:
            self._make_room(len(raw))
        self._append(raw)
        if len(raw) >= SECTOR and ZEROS in raw:
            self._cover()

    def _append(self, raw: bytes) -> None:
        end = self._at + len(raw)
        self._map[self._at : end] = raw
        self._at = end
        self._committed[0] = end

    def _check(self) -> None:
        """Cover what is not covered yet with a check event."""
        at = self._at
        if at == self._checked:
            return
        with memoryview(self._map) as view:
            crc = crc32(view[self._checked : at])
        self._append(events.pack_check(crc, self._header.nonce, self.position))
        self._segment.index_check(self._checks, at)  # behind it: the index never names a place where there may be none
        self._checks += 1
        self._checked = self._at

    def _cover(self) -> None:
        """Cover everything now: bytes that no check covers can be told from a torn write in most cases only (`verify.believable`).

        Not when that was done so often that the index would be full before the segment is half used, nor without room.
        """
        if self._checks - (self._at - HEADER_BYTES) // CHECK_BYTES < CHECKS_MAX // 2:
            with suppress(NoRoom):  # the events themselves are in the journal
                self._check()
                self._limit[0] = min(self._checked + CHECK_BYTES, self._hard - POINT_WIDTH)

    def _cover_zeros(self, first: int, end: int) -> None:
        """Cover what was just written between these offsets if a sector of it is zeros."""
        if ZEROS in self._map[first:end]:
            self._cover()

    def _make_room(self, size: int) -> None:
        """The slow path: afterwards an event of `size` bytes may be written at `_at`. Raises `NoRoom`."""
        if self.closed:
            raise ExperimentStopped(
                f"experiment {self.experiment} was stopped: log before stop(), or attach to it again"
            )
        if self._pid != os.getpid():
            self._become_child()
        elif self._life is not None and not self._life.is_ours():
            self._take_hold_again()
        if self._failing:
            if time.monotonic() < self._retry_at:
                raise NoRoom
            self._failing = False
        if self._at - self._checked >= CHECK_BYTES:
            self._check()
        if self._at + size > self._hard or self._checks >= CHECKS_MAX - 2:
            self._roll()
        elif self._unreported:
            self._report_gap()
        self._segment.prefault(self._at)
        if self._next is None and self._at > self._segment.size // 2:
            self._open_next()
        self._limit[0] = min(self._checked + CHECK_BYTES, self._hard - POINT_WIDTH)

    def _roll(self) -> None:
        """Go on in the next segment, or raise `NoRoom`."""
        if self._next is None:
            self._open_next()
        if self._next is None:
            self._limit[0] = 0
            raise NoRoom
        self._check()
        position, old, new = self.position, self._segment, self._next
        self._leave_segment()
        self._unsynced.append(old.number)
        try:
            new.begin(position)
            self._use(new, position)
        except NoRoom:  # not begun
            self._unsynced.pop()
            raise
        except BaseException:  # of a signal handler: what is begun must be used, for readers look nowhere else any more
            new.begin(position)
            self._use(new, position)
            raise
        old.release()
        if self._unreported:
            self._report_gap()

    def _leave_segment(self) -> None:
        """Take out of the segment in use what is wanted after it is unmapped."""

    def _use(self, segment: Segment, base: int) -> None:
        """Write to this segment, of which nothing is written yet. Done twice, it is done."""
        self._segment = segment
        self._next = None
        self._map = segment.map
        self._committed = segment.committed
        self._base = base
        self._at = self._checked = HEADER_BYTES
        self._checks = 0
        self._hard = segment.size - SEGMENT_RESERVE
        self._limit[0] = HEADER_BYTES + CHECK_BYTES
        segment.prefault(HEADER_BYTES)

    def _open_next(self) -> None:
        """Open the next segment if the disk and the quota allow; try again no sooner than RETRY_S after a failure."""
        now = time.monotonic()
        if now < self._retry_at:
            return
        if os.path.exists(self.home.quota_marker):
            self._drop_reason, self._retry_at = "quota", now + RETRY_S
            return
        number = self._segment.number + 1
        small = self.home.kind == "tmpfs" or not filesystem.can_be_mapped(self.home.kind)
        try:
            self._next = self._make_segment(self.folder, number, SEGMENT_BYTES_FIRST if small else SEGMENT_BYTES, UNSET)
        except OSError as error:
            self._drop_reason, self._retry_at = error.strerror or "disk", now + RETRY_S

    # -- What was dropped ------------------------------------------------------------------------------------------------

    def _drop(self, count: int, reason: str) -> None:
        """Count events that could not be kept. The journal says so at once, or as soon as it can."""
        self.dropped += count
        self._unreported += count
        self._drop_reason = reason
        if self._at < self._limit[0] and self._at + SEGMENT_RESERVE <= self._hard:  # else the slow path says it
            self._report_gap()

    def _report_gap(self) -> None:
        """Write what was dropped since the last report; it fits the reserve."""
        if self._unreported and self._at <= self._hard + CHECK_WIDTH:
            self._append(pack(Kind.GAP, time.time_ns(), self._unreported, self._drop_reason[:64]))
            self._unreported = 0


def _lock(folder: str) -> Descriptor | None:
    """Lock a new journal's folder; None where there are no locks, which the file's name then says."""
    path = os.path.join(folder, LOCK_NAME)
    try:
        taken = lock.take(path)
        return Descriptor(taken) if taken is not None else None
    except OSError as error:
        if error.errno not in lock.UNSUPPORTED:
            raise
        os.rename(path, os.path.join(folder, UNLOCKED_NAME))
        return None


_told: Final[set[str]] = set()


def _tell_of_network(home: Home) -> None:
    """Say once that the home is on a network file system: it works, and there are better places."""
    if home.is_shared and home.root not in _told:
        _told.add(home.root)
        warn(
            f"the home {home.named!r} is on a network file system ({home.kind}): this host logs to {home.root!r}, with two system "
            f"calls an event, and needs an agent of its own. A folder on a local disk is better: set {HOME_VARIABLE}"
        )


def _remove_folder(folder: str) -> None:
    """Take back what a failed opening has left."""
    with suppress(OSError):
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)
