"""The reader of a journal: the agent's, and direct mode's. It takes segments for hostile input.

It reads with `pread`, never through a map (a file cut short under a map is a SIGBUS), bounds every length, believes no offset
beyond the file, and hands out only bytes that a check event covers, or the open tail of a writer of this very boot. A committed
offset counts 1 ms after it was first seen: on machines that reorder stores the bytes below it are there by then.
"""

from __future__ import annotations

import os
from bisect import bisect_right

from headrace_proto.errors import Corrupt, FormatUnknown
from headrace_proto.events import CHECK_WIDTH
from headrace_proto.journal import lock, machine
from headrace_proto.journal.file import BLOCK_MAX, SEGMENT_MAX, SegmentFile
from headrace_proto.journal.layout import (
    BASE_AT,
    DEATH_NAME,
    LIVE,
    LOCK_NAME,
    UNLOCKED_NAME,
    Header,
    NeverArrived,
    segment_numbers,
)
from headrace_proto.journal.segment import sync_names
from headrace_proto.journal.verify import (
    Damage,
    believable,
    is_check,
    survivors,
    torn_block,
    verified,
    whole_events,
)
from headrace_proto.limits import BATCH_RAW_MAX, EVENT_BYTES_MAX, SEGMENT_RESERVE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

SETTLE_NS: Final = 1_000_000
"""A committed offset counts this long after it was first seen."""
PATIENCE_NS: Final = 2_000_000_000
"""Damage counts, and a resting writer may be dead, only after this long."""
PULSE_AT: Final = BASE_AT
PULSE_BYTES: Final = LIVE.size
_ROLL_ROOM: Final = EVENT_BYTES_MAX + SEGMENT_RESERVE
"""A segment with more room than this is followed by no other, unless its index is full; that is so behind a quarter of it."""


class JournalReader:
    """A journal, open for reading. Not for two threads at once.

    Raises `Corrupt`, `FormatUnknown` or `OSError` when it cannot be opened; then nothing is changed on the disk.
    """

    def __init__(self, folder: str) -> None:
        self.folder: Final = folder
        numbers = segment_numbers(folder)
        if not numbers:
            raise Corrupt(f"the journal {folder} has no segment")
        self._files: list[SegmentFile] = [SegmentFile(folder, numbers[0])]
        self.header: Final[Header] = self._files[0].head.facts
        if numbers[0]:
            self._files[0].find_base(self.header.nonce)
        self._ahead: SegmentFile | None = None
        self.obstacle = ""  # why the journal cannot be read further than `end`
        self._reading = self._files[0]
        self._seen: list[tuple[int, int]] = []  # (position, when first seen), of the last few committed positions
        self._settled = self._files[0].base
        self._changed_ns: int | None = None
        self._now_ns = 0
        self._suspect: Damage | None = None
        self._suspected_ns = 0
        self._closed_at: int | None = None  # the end at which it was seen to be closed indeed
        self._linked = -1  # the newest segment whose name is known to be on the disk
        self._advance()

    # -- How far it goes -------------------------------------------------------------------------------------------------

    @property
    def oldest(self) -> int:
        """The first position that is still on the disk."""
        return self._files[0].base

    @property
    def end(self) -> int:
        """The newest committed position that was seen."""
        return self._files[-1].end

    @property
    def closed(self) -> bool:
        """Whether the writer has closed the journal: nothing follows `end`."""
        newest = self._files[-1]
        if newest.closed and self._closed_at != newest.end:
            self._closed_at = newest.end if newest.ends_as_closed() else None
        return newest.closed and self._closed_at == newest.end

    def poll(self, now_ns: int) -> int:
        """Look again; the position up to which bytes may be read now. `now_ns` is a clock that never goes back."""
        self._now_ns = now_ns
        before = self.end
        self._advance()
        if self.end != before or self._changed_ns is None:
            self._changed_ns = now_ns
            self._seen.append((self.end, now_ns))
        return self.settle(now_ns)

    def settle(self, now_ns: int) -> int:
        """As `poll`, of what was seen already: nothing on the disk is looked at."""
        while self._seen and self._seen[0][1] + SETTLE_NS <= now_ns:
            self._settled = max(self._settled, self._seen.pop(0)[0])
        return self._settled

    def pulse(self) -> tuple[tuple[int, bytes], ...]:
        """For who watches many journals that rest: descriptors, and what PULSE_BYTES at PULSE_AT of each are while nothing happens.

        They hold until the next `poll`, `trim` or `close`. A journal whose pulse has changed has to be polled; one whose writer
        could make no new segment for a while may go on in one that is not among these, and has to be polled now and then.
        """
        watched = (self._files[-1], self._ahead) if self._ahead else (self._files[-1],)
        return tuple(file.pulse for file in watched)

    def _advance(self) -> None:
        """Refresh the newest segment, and follow the writer into the next ones."""
        while True:
            newest = self._files[-1]
            newest.refresh()
            following = self._following(newest)
            if following is None:
                return
            newest.refresh()  # what it committed before it rolled
            newest.close()
            if following.base != newest.end:
                newest.end = self._joined(newest, following)
            if not newest.end <= following.base <= newest.base + SEGMENT_MAX:
                self.obstacle = (
                    f"segment {following.head.number} begins before the one before it ends, or long after it"
                )
                return
            self._files.append(following)
            self._ahead = None

    def _joined(self, newest: SegmentFile, following: SegmentFile) -> int:
        """Where `newest` ends, when its committed word and the base behind it differ: one of the two was damaged.

        The first check of the one says which. Before there is any, a finished segment ends with one where its word says; but not
        after a crash of the machine, which may leave an older word.
        """
        if following.find_base(self.header.nonce):
            return min(newest.end, max(following.base, newest.base))
        last = newest.said - CHECK_WIDTH
        ends_with_check = newest.base <= last and is_check(newest.read(last, newest.said), last, self.header.nonce)
        if self._is_of_this_boot() and ends_with_check:
            following.move_base(newest.said)
            return newest.said
        return newest.end

    def _following(self, newest: SegmentFile) -> SegmentFile | None:
        """The segment after `newest`, once it is in use. Until then it is kept open: the writer makes it ahead of its need.

        One that cannot be read is an `obstacle`: what lies before it is handed out, and the journal is never over.
        """
        if self._ahead is None:
            if newest.closed or newest.offset(newest.end) < min(newest.size // 4, newest.size - _ROLL_ROOM):
                return None
            try:
                self._ahead = SegmentFile(self.folder, newest.head.number + 1)
            except FileNotFoundError:
                return None
            except (Corrupt, FormatUnknown) as error:
                crashed = isinstance(error, NeverArrived) and not self._is_of_this_boot()
                if not crashed:  # else nothing that was synced lies there
                    self.obstacle = f"segment {newest.head.number + 1}: {error}"
                return None
            if self._ahead.head.facts.nonce != self.header.nonce:
                self.obstacle = f"segment {newest.head.number + 1} was written by another source"
                self._ahead.close()
                self._ahead = None
                return None
        self._ahead.refresh()
        return self._ahead if self._ahead.in_use else None

    def writer_gone(self, host: str, boot_id: str, *, exited: bool = False) -> bool:
        """Whether the writer is proven to be gone, on this `host` in this boot: then nothing follows `end`.

        Proven: its lock is free in its own boot (another container of the machine has another host name, but the same boot; where
        there are no locks, its process is gone), or its machine has booted since; and the journal has rested for PATIENCE_NS, or
        its process is known to have `exited`. A journal of another host proves nothing, because its writer may be alive there,
        until a person declares it dead. Nor does one with an `obstacle`: something follows `end`.
        """
        header = self.header
        if self.obstacle or self._changed_ns is None:
            return False
        if not exited and self._now_ns - self._changed_ns < PATIENCE_NS:
            return False
        if header.boot_id == boot_id:
            return not self._is_own() and self.has_let_go()
        return header.host == host or self._is_declared_dead()

    def has_let_go(self) -> bool:
        """Whether the writer holds its lock no more or, without locks, its process is gone. The writer itself must not ask."""
        header = self.header
        try:
            if lock.holder(os.path.join(self.folder, LOCK_NAME)) is not None:
                return False
        except OSError as error:
            if error.errno not in lock.UNSUPPORTED:
                raise
        else:
            if not os.path.exists(os.path.join(self.folder, UNLOCKED_NAME)):
                return not self._is_mapped()
        return machine.process_gone(header.pid, header.pid_start, header.pid_namespace)

    def _is_mapped(self) -> bool:
        """Whether the writer's process has the journal mapped: its lock went with a descriptor that was closed for it."""
        header = self.header
        gone = machine.process_gone(header.pid, header.pid_start, header.pid_namespace)
        return not gone and machine.maps(header.pid, header.pid_start, f"/{header.source}/")

    def _is_of_this_machine(self) -> bool:
        return self._is_of_this_boot() or self.header.host == machine.host_name()

    def _is_declared_dead(self) -> bool:
        return os.path.exists(os.path.join(self.folder, DEATH_NAME))

    def _is_own(self) -> bool:
        """Whether this very process writes the journal: asking after its lock would free it."""
        header = self.header
        return (
            header.pid == os.getpid()
            and header.pid_start == machine.process_start(header.pid)
            and header.pid_namespace == machine.pid_namespace()
        )

    # -- Reading ---------------------------------------------------------------------------------------------------------

    def read(self, position: int, bytes_max: int = BATCH_RAW_MAX) -> bytes | Damage | None:
        """Whole events from `position` (an event boundary) on, at most `bytes_max` of them but at least one block.

        None when there is nothing to read yet. `Damage` when what stands there is damaged, and was so PATIENCE_NS ago. In a journal
        of another host that is 'not yet' for ever (it may be half copied, or shared with a writer that lives), until a person
        declares its writer dead: what is called lost is not read again.
        """
        found = self._read(position, max(bytes_max, BLOCK_MAX))
        if not isinstance(found, Damage):
            self._suspect = None
            return found
        if self._suspect != found:
            self._suspect, self._suspected_ns = found, self._now_ns
        settled = self._now_ns - self._suspected_ns >= PATIENCE_NS
        return found if settled and (self._is_of_this_machine() or self._is_declared_dead()) else None

    def raw(self, first: int, end: int) -> bytes:
        """The bytes of [first, end) as they lie there, good or bad, as far as they exist: to be set aside."""
        parts = []
        for file, following in zip(self._files, [*self._files[1:], None], strict=True):
            stop = min(end, following.base if following else file.size + file.base)
            if file.base <= first < stop:
                parts.append(file.read(first, stop))
                first = stop
        return b"".join(parts)

    def _read(self, position: int, bytes_max: int) -> bytes | Damage | None:
        if position >= self._settled:
            return None
        if position < self.oldest:
            return Damage(position, self.oldest, "its segments are gone")
        nth = bisect_right(self._files, position, key=lambda file: file.base) - 1
        file = self._files[nth]
        if file is not self._reading and self._reading is not self._files[-1]:  # the newest may be watched
            self._reading.close()
        self._reading = file
        finished = nth + 1 < len(self._files)
        end = self._files[nth + 1].base if finished else min(file.end, self._settled)
        checks = file.checks(end)
        covered = bisect_right(checks, position - CHECK_WIDTH)  # checks that end at or before `position`
        start = checks[covered - 1] + CHECK_WIDTH if covered else file.base
        if position - start < BLOCK_MAX:  # else the index does not tell where its block begins
            data = self._believed(file, start, position, end, checks[covered:], bytes_max)
            if data:
                return data
        return self._survived(file, position, end, checks, bytes_max)

    def _believed(
        self, file: SegmentFile, start: int, position: int, end: int, checks: Sequence[int], bytes_max: int
    ) -> bytes:
        """The bytes from `position` on that the checks of the index, or their writer's boot, vouch for. `start` begins a block."""
        wanted = [check for check in checks if check + CHECK_WIDTH - position <= bytes_max] or list(checks[:1])
        stop = wanted[-1] + CHECK_WIDTH if wanted else start
        if len(wanted) == len(checks) and end - stop < BLOCK_MAX and end - position <= bytes_max:
            stop = end
        if stop - position > bytes_max:  # the index has a hole
            return b""
        data = file.read(start, stop)
        nonce = self.header.nonce
        good = verified(data, start, nonce, [check - start for check in wanted])
        last = (wanted[-1] if wanted else start - CHECK_WIDTH) + CHECK_WIDTH
        if stop == end and good == last - start and (wanted or file.begins_block(start, nonce)):
            at = max(position - last, 0)
            good += self._tail_believed(data[good:], file.offset(last), at)
        return data[position - start : good]

    def _survived(
        self, file: SegmentFile, position: int, end: int, checks: Sequence[int], bytes_max: int
    ) -> bytes | Damage:
        """What is left at `position`, where the index leads no further: whole blocks, found by their own checks."""
        lowest = max(file.base, position - BLOCK_MAX - CHECK_WIDTH)
        highest = min(end, position + bytes_max)
        data = file.read(lowest, highest)
        at = position - lowest
        offsets = [check - lowest for check in checks if lowest <= check < highest]
        left = survivors(data, lowest, self.header.nonce, offsets, from_start=lowest == file.base)
        following = len(data)  # where the next whole block begins, or one that may be
        for begin, stop in left.blocks:
            if begin <= at < stop:
                return data[at:stop]
            if begin > at:
                following = begin
                break
        edge = left.edges[bisect_right(left.edges, at) - 1] if left.edges and left.edges[0] <= at else None
        if edge is not None and following - edge <= BLOCK_MAX and not self._is_of_this_boot():
            torn = torn_block(data[edge:following], file.offset(lowest) + edge, at - edge)
            if edge + torn > at:
                return data[at : edge + torn]
        if following < len(data):
            return Damage(position, lowest + following, "a check does not fit its bytes")
        if left.edges and left.edges[-1] > at:
            return Damage(position, lowest + left.edges[-1], "a check does not fit its bytes")
        if highest < end:
            return Damage(position, highest, "no check covers it")
        if edge is None or not left.tail or len(data) - edge > BLOCK_MAX:
            return Damage(position, end, "no check covers it")
        good = edge + self._tail_believed(data[edge:], file.offset(lowest) + edge, at - edge)
        return data[at:good] if good > at else Damage(position, end, "torn by a crash")

    def _is_of_this_boot(self) -> bool:
        return self.header.boot_id == machine.boot_id()

    def _tail_believed(self, tail: bytes, file_offset: int, start: int) -> int:
        """How much of what no check covers counts: whole events, and after a crash of its machine those that surely arrived.

        Nothing does unless an event begins at `start`.
        """
        if self._is_of_this_boot():
            return whole_events(tail, start)
        return believable(tail, file_offset, start)

    # -- Care ------------------------------------------------------------------------------------------------------------

    def sync(self, above: set[str] | None = None) -> None:
        """Return when everything committed survives a power loss. May run in another thread than the rest.

        Who syncs many journals of a home hands the same set to each, made after all of them were opened: `above`, of `sync_names`.
        """
        files = list(self._files)
        for file in files:
            file.sync()
        newest = files[-1].head.number
        if newest != self._linked:  # a file whose name is not on the disk is lost with all its bytes
            sync_names(self.folder, above)
            self._linked = newest

    def frees(self, below: int) -> bool:
        """Whether there is a segment that lies wholly below the position."""
        return len(self._files) > 1 and self._files[1].base <= below

    def trim(self, below: int) -> int:
        """Delete the segments that lie wholly below the position; the bytes that this freed."""
        freed = 0
        while self.frees(below):
            self._files[0].unlink()  # one that cannot be deleted is still ours, and tried again
            freed += self._files.pop(0).size
        return freed

    def close(self) -> None:
        """Close the files; none is changed."""
        for file in [*self._files, *([self._ahead] if self._ahead else [])]:
            file.close()
