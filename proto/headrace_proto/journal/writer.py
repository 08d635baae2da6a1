"""The writer of a journal: what a training loop calls, a few hundred nanoseconds at a time.

Invariants, beside those of `layout`
1. Every event is written in its thread's turn (`turn`), and committed before the turn ends: threads see one sequence.
2. A call never waits for its own frame. A signal handler (or a finaliser) that logs while its thread is inside a call here finds
   the turn taken, recognises the frame below it on the stack (`gate`), and logs to a second source of the same experiment instead.
3. A process never writes to a journal that another process opened. A forked child finds its soft limit zeroed and becomes a new
   source, with the role `worker`, at its first call.
4. A call never raises for what the machine does. Without room for a new segment, events are dropped and counted; the count is in
   the journal as a GAP as soon as there is room again, and in any case when the journal is closed: each segment keeps a reserve.

The slow path (`Tape._make_room`) runs once in CHECK_BYTES: it writes the check event, makes the next pages present, opens the next
segment when half of this one is used, and rolls over to it when this one is full.

Measured decisions of the hot path: a turn and not a lock (-75 ns); bound methods of the turn are loaded before they are called, or
3.11 looks them up as methods (-10 ns each); no `float()` and no `isinstance`, because `struct` coerces int, bool, NumPy scalars and
whatever has `__float__`, and refuses the rest (-20 ns); validation lives in the `except`. Slots instead of a dict gain nothing.
"""

from __future__ import annotations

import os
from math import isfinite
from struct import unpack_from

from headrace_proto import names
from headrace_proto.errors import HomeUnusable, InvalidValue
from headrace_proto.events import (
    AUTO_POINT,
    AUTO_POINT_WIDTH,
    POINT,
    POINT_WIDTH,
    TAG_BIN16,
    TAG_F64,
    TAG_U64,
    ChannelType,
    Kind,
    Role,
    pack,
)
from headrace_proto.journal import forks
from headrace_proto.journal.gate import Gate
from headrace_proto.journal.layout import SECTOR, SourceFacts, segment_name
from headrace_proto.journal.refusal import point_refusal, row_refusal
from headrace_proto.journal.segment import NoRoom, sync_file, sync_names
from headrace_proto.journal.vocabulary import RowLayout, Vocabulary
from headrace_proto.limits import EVENT_BYTES_MAX, TRACEBACK_BYTES_MAX
from headrace_proto.warning import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from headrace_proto.home import Home
    from headrace_proto.journal.tape import FirstEvents

_pack_point = POINT.pack_into
_pack_auto_point = AUTO_POINT.pack_into


class JournalWriter(Gate):
    """One source's journal, open for writing. Every method may be called from any thread, and from signal handlers.

    Raises `HomeUnusable` when the journal cannot be made. `first_events` is called at each incarnation (now, and in every forked
    child that logs), in their turn, and returns the events `(kind, *fields)` that stand behind the source's OPEN.
    """

    def __init__(
        self,
        home: Home,
        project: str,
        experiment: str,
        facts: SourceFacts = SourceFacts(),  # noqa: B008 - immutable
        first_events: FirstEvents | None = None,
    ) -> None:
        self._words = Vocabulary()
        self._points = self._words.points
        self._row_layout: RowLayout | None = None  # of the last row: names are compared with it, not hashed
        self._value_ends: dict[str, int] = {}
        self._earlier: dict[str, float] = {}
        self._new_turn()
        self._second: JournalWriter | None = None
        self._opening = False
        self._late: list[tuple[str, tuple[Any, ...]]] = []
        self._warned = False
        super().__init__(home, project, experiment, facts, first_events)
        forks.watch(self)

    # -- Logging ---------------------------------------------------------------------------------------------------------

    def point(self, name: str, step: float | None, value: float, time_ns: int) -> None:
        """Log `value` of the numeric channel `name`; `step` None lets the store count up.

        Raises `InvalidName`, `InvalidValue`, `ChannelTypeMismatch` or `ExperimentStopped`. A step that is NaN or infinite has no
        place in a series: it is dropped, counted and warned about once.
        """
        if step is None:
            self._auto_point(name, value, time_ns)
            return
        turn = self._turn
        take = turn.take
        try:
            take()
        except IndexError:
            waited = self._wait_for_turn()
            if waited is None:
                self._elsewhere("point", name, step, value, time_ns)
                return
            turn = waited
        try:
            at = self._at
            if at >= self._limit[0]:
                self._make_room(POINT_WIDTH)
                at = self._at
            try:
                prefix = self._points[name]
            except KeyError:
                prefix = self._new_channel(name)
                at = self._at
            if type(step) is int or isfinite(step):
                _pack_point(self._map, at, prefix, step, TAG_U64, time_ns, TAG_F64, value)
                self._at = at = at + POINT_WIDTH
                self._committed[0] = at
                self._value_ends[name] = at
            else:
                self._lose(1, "step not finite")
        except NoRoom:
            self._lose(1, self._drop_reason)
        except Exception as error:
            raise point_refusal(error, name, value, step, time_ns) from None
        finally:
            if turn.waiting:
                turn.hand_over()
            else:
                give = turn.give
                give(None)

    def _auto_point(self, name: str, value: float, time_ns: int) -> None:
        turn = self._turn
        take = turn.take
        try:
            take()
        except IndexError:
            waited = self._wait_for_turn()
            if waited is None:
                self._elsewhere("point", name, None, value, time_ns)
                return
            turn = waited
        try:
            if self._at >= self._limit[0]:
                self._make_room(POINT_WIDTH)
            try:
                prefix = self._words.auto_points[name]
            except KeyError:
                self._new_channel(name)
                prefix = self._words.auto_points[name]
            at = self._at
            _pack_auto_point(self._map, at, prefix, TAG_U64, time_ns, TAG_F64, value)
            self._at = at = at + AUTO_POINT_WIDTH
            self._committed[0] = at
            self._value_ends[name] = at
        except NoRoom:
            self._lose(1, self._drop_reason)
        except Exception as error:
            raise point_refusal(error, name, value, 0, time_ns) from None
        finally:
            if turn.waiting:
                turn.hand_over()
            else:
                give = turn.give
                give(None)

    def row(self, values: Mapping[str, float], step: float | None, time_ns: int) -> None:
        """Log several numeric channels at one step, as one event: all of them or, when one value is bad, none.

        Raises as `point` does, naming the bad one.
        """
        keys = [*values]
        turn = self._turn
        take = turn.take
        try:
            take()
        except IndexError:
            waited = self._wait_for_turn()
            if waited is None:
                self._elsewhere("row", values, step, time_ns)
                return
            turn = waited
        try:
            if self._at >= self._limit[0]:
                self._make_room(POINT_WIDTH)
            layout = self._row_layout
            if layout is None or layout.keys != keys:
                layout = self._row_layout = self._layout(tuple(keys))
                if layout is None:
                    self._row_as_points(values, step, time_ns)
                    return
            if self._at + layout.width > self._hard:
                self._make_room(layout.width)
            first = self._at
            if step is None:
                layout.pack_auto(
                    self._map, first, layout.auto_prefix, TAG_U64, time_ns, TAG_BIN16, layout.bytes, *values.values()
                )
                at = first + layout.auto_width
            elif isfinite(step):
                layout.pack(
                    self._map, first, layout.prefix, step, TAG_U64, time_ns, TAG_BIN16, layout.bytes, *values.values()
                )
                at = first + layout.width
            else:
                self._lose(len(keys), "step not finite")
                return
            self._at = at
            self._committed[0] = at
            layout.at = at
            if layout.width >= SECTOR:
                self._cover_zeros(first, at)
        except NoRoom:
            self._lose(len(keys), self._drop_reason)
        except Exception as error:
            raise row_refusal(error, values, step, time_ns) from None
        finally:
            turn.hand_over() if turn.waiting else turn.give(None)

    def event(self, kind: Kind, *fields: Any) -> int:
        """Log an event of a kind without a fixed layout; the position behind it. Raises `InvalidValue` when it is too large or
        has a value that msgpack does not know."""
        try:
            raw = pack(kind, *fields)
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidValue(f"a {kind.name.lower()} cannot be encoded: {error}") from error
        if len(raw) > EVENT_BYTES_MAX:
            raise InvalidValue(
                f"a {kind.name.lower()} of {len(raw)} bytes is over {EVENT_BYTES_MAX}: log it as an artifact"
            )
        turn = self._begin()
        if turn is None:
            self._elsewhere("event", kind, *fields)
            return self.position
        try:
            self._write(raw)
        except NoRoom:
            self._lose(1, self._drop_reason)
        finally:
            turn.release()
        return self.position

    def channel_event(self, kind: Kind, name: str, type: ChannelType, *fields: Any) -> int:
        """Log a TEXT or IMAGE: `event(kind, <the number of channel `name`>, *fields)`, the channel defined at its first use.

        One call, because after a fork, or in a signal handler, the number is another. Raises `ChannelTypeMismatch`.
        """
        turn = self._begin()
        if turn is None:
            self._elsewhere("channel_event", kind, name, type, *fields)
            return self.position
        try:
            if self._at >= self._limit[0]:
                self._make_room(POINT_WIDTH)
            raw = pack(kind, self._number(name, type), *fields)
            if len(raw) > EVENT_BYTES_MAX:
                raise InvalidValue(
                    f"{name!r}: an entry of {len(raw)} bytes is over {EVENT_BYTES_MAX}: log it as a file"
                )
            self._write(raw)
        except NoRoom:
            self._lose(1, self._drop_reason)
        finally:
            turn.release()
        return self.position

    def here(self) -> JournalWriter | None:
        """The writer to which an event of this very frame would go, for events that name a file of their source's spool.

        It is this one, begun anew in a forked child, or, in a handler that interrupted a call, the second source; None in a
        handler that interrupted the opening of that.
        """
        turn = self._begin()
        if turn is None:
            self._elsewhere("latest")
            return self._second
        try:
            if self._at >= self._limit[0]:
                self._make_room(POINT_WIDTH)
        except NoRoom:
            pass  # the event itself will be dropped, and counted
        finally:
            turn.release()
        return self

    def lose(self, count: int, reason: str) -> None:
        """Count events that were dropped before they came here, as those dropped here are counted."""
        turn = self._begin()
        if turn is None:
            self._elsewhere("lose", count, reason)
            return
        try:
            self._lose(count, reason)
        finally:
            turn.release()

    def positions(self) -> dict[str, int]:
        """The sources that this process writes through this handle, each with its position; none in a child that has not logged."""
        if self._pid != os.getpid():
            return {}
        return {self.source: self.position} | (self._second.positions() if self._second is not None else {})

    def latest(self) -> dict[str, float]:
        """The value that this process logged last of each numeric channel, in no order of steps.

        The hot path only notes where it wrote; the values are read back from the map here, and when a segment is left.
        """
        turn = self._begin()
        if turn is None:
            return dict(self._earlier)
        try:
            self._leave_segment()
            found = dict(self._earlier)
        finally:
            turn.release()
        return {**found, **self._second.latest()} if self._second is not None else found

    def knows(self, name: str) -> bool:
        """Whether this process has logged to a channel of this name."""
        return self._words.knows(name) or (self._second is not None and self._second.knows(name))

    def forget(self, name: str) -> None:
        """Have no last value of a channel until it is logged to again."""
        self.latest()
        self._earlier.pop(name, None)

    # -- Life ------------------------------------------------------------------------------------------------------------

    def sync(self) -> None:
        """Return when everything logged before survives a power loss. Raises `OSError` when that cannot be had."""
        turn = self._begin()
        if turn is None:
            return  # inside a call of this very thread: its caller may sync after it
        try:
            if self.closed or self._pid != os.getpid():
                return
            self._cover()
            number, older, self._unsynced = self._segment.number, self._unsynced, []
        finally:
            turn.release()
        try:
            for one in (*older, number):
                sync_file(os.path.join(self.folder, segment_name(one)))
            if number != self._named:
                sync_names(self.folder)
                self._named = number
        except OSError:
            self._unsynced = older + self._unsynced
            raise

    def close(self, outcome: str, detail: str | None = None) -> None:
        """End this source. `detail` is a traceback, of which the end is kept. Does nothing the second time, or in a child."""
        turn = self._begin()
        if turn is None:
            return
        whole = True
        try:
            if not self.closed and self._pid == os.getpid():
                whole = self._finish(outcome, detail[-TRACEBACK_BYTES_MAX:] if detail else None)
        finally:
            turn.release()
        if not whole:
            warn(f"experiment {self.experiment} could not be closed: {self._drop_reason}. It will be shown as failed.")
        if self._second is not None:
            self._second.close(outcome, detail)

    def abandon(self) -> None:
        """Let go without a closing record, as a kill would."""
        if not self.closed and self._pid == os.getpid():
            self._leave_segment()
            self.closed = True
            self._let_go()

    # -- Forks and signals -----------------------------------------------------------------------------------------------

    def forked(self) -> None:
        """In a forked child: nobody can have the turn here, and the next call begins a new source."""
        super().forked()
        self._second = None

    def _begin_anew(self, facts: SourceFacts) -> None:
        self._turn_of = os.getpid()
        self._leave_segment()
        self._words = Vocabulary()
        self._points = self._words.points
        self._row_layout = None
        self._second = None
        self._warned = False
        super()._begin_anew(facts)

    def _elsewhere(self, method: str, *arguments: Any) -> None:
        """Make the call on the second source, opened at the first need.

        A handler that interrupts that very opening leaves its call in a list, which the opening frame takes up: the one case in
        which a returned call is not yet in a journal. When there is no room to open it, what would go there is dropped and counted.
        """
        if self._second is None:
            self._late.append((method, arguments))
            if self._opening:
                return
            self._opening = True
            facts = self.facts._replace(role=Role.WORKER, parent=self.source)
            try:
                self._second = JournalWriter(self.home, self.project, self.experiment, facts)
            except HomeUnusable as error:
                late, self._late = self._late, []
                self._lose(len(late), str(error))
                return
            finally:
                self._opening = False
            while self._late:
                name, its_arguments = self._late.pop(0)
                getattr(self._second, name)(*its_arguments)
            return
        getattr(self._second, method)(*arguments)

    def _leave_segment(self) -> None:
        ends: list[tuple[int, tuple[str, ...]]] = [(end, (name,)) for name, end in self._value_ends.items()]
        for channels, layout in self._words.rows.items():
            if layout.at:
                ends.append((layout.at, channels))
                layout.at = 0
        self._value_ends.clear()
        for end, channels in sorted(ends):
            first = end - 8 * len(channels)
            self._earlier.update(zip(channels, unpack_from(f">{len(channels)}d", self._map, first), strict=True))

    # -- Words -----------------------------------------------------------------------------------------------------------

    def _number(self, name: str, type: ChannelType) -> int:
        number = self._words.number(name, type)
        if number is None:
            number = self._words.next_channel(names.channel_name(name))
            self._write(pack(Kind.CHANNEL, number, name, int(type)))
            self._words.add_channel(name, type)
        return number

    def _new_channel(self, name: str) -> bytes:
        """Define the numeric channel `name`, and keep room for its first point."""
        self._number(name, ChannelType.NUMERIC)
        if self._at >= self._limit[0]:
            self._make_room(POINT_WIDTH)
        return self._points[name]

    def _layout(self, keys: tuple[str, ...]) -> RowLayout | None:
        """How a row of these channels is written, defined if it is new; None when it has to be logged as points."""
        known = self._words.rows.get(keys)
        if known is not None:
            return known
        channels = [self._number(name, ChannelType.NUMERIC) for name in keys]
        number = self._words.next_schema(keys)
        if number is None:
            return None
        self._write(pack(Kind.SCHEMA, number, channels))
        return self._words.add_row(keys)

    def _row_as_points(self, values: Mapping[str, float], step: float | None, time_ns: int) -> None:
        """Each value as a point; all are encoded before the first is written, so that a bad one leaves nothing behind."""
        if step is not None and not isfinite(step):
            self._lose(len(values), "step not finite")
            return
        words, raws = self._words, []
        for name, value in values.items():
            if step is None:
                raws.append((name, AUTO_POINT.pack(words.auto_points[name], TAG_U64, time_ns, TAG_F64, value)))
            else:
                raws.append((name, POINT.pack(words.points[name], step, TAG_U64, time_ns, TAG_F64, value)))
        for name, raw in raws:
            try:
                self._write(raw)
                self._value_ends[name] = self._at
            except NoRoom:
                self._lose(1, self._drop_reason)

    def _lose(self, count: int, reason: str) -> None:
        self._drop(count, reason)
        if not self._warned:
            self._warned = True
            warn(f"{count} event(s) of experiment {self.experiment} were dropped: {reason}. The store will show a gap.")


JournalWriter._passing = frozenset(  # noqa: SLF001
    getattr(JournalWriter, method).__code__
    for method in ["point", "_auto_point", "row", "here", "lose", "latest", "event", "channel_event", "sync", "close"]
)
