"""Changes of a stored experiment, as the events that say so: the same that a trainer writes, of a source that has no journal.

A change is an event `(Kind, *fields)` that does not depend on what is stored: where the event has a channel's number, the change
has its name, and where it names a spooled file, `Held` says what the bytes are. The numbers, and the files' names, are given
when the change meets the newest commit, and given anew when another writer was first.

Nor may it depend on clocks. Of two words about one thing the later stamp wins, and who curates has seen what is stored: a change
is made later than what it changes where the clock that it was made by is behind.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from headrace_proto import events, names
from headrace_proto.errors import InvalidValue
from headrace_proto.events import ChannelType, Kind
from headrace_proto.limits import BATCH_RAW_MAX, CHANNELS_MAX, COMMIT_EVENTS_MAX
from headrace_proto.store.apply.files import file_number
from headrace_proto.store.commits import CURATION_SOURCE, PART_KINDS, Commit, Side, SourceState
from headrace_proto.store.intake import Batch
from headrace_proto.store.registers import Stamp
from headrace_proto.store.shapes import checked_fields
from headrace_proto.store.tables import UNDEFINED, SourceTable
from headrace_proto.store.times import us_of

CHANGES_MAX: Final = COMMIT_EVENTS_MAX // 2
"""Changes of one commit: with the channels that they define, they must not become two."""

Change = tuple[Any, ...]
_CHANNEL_TYPES: Final = {
    Kind.POINT: ChannelType.NUMERIC,
    Kind.TEXT: ChannelType.TEXT,
    Kind.IMAGE: ChannelType.IMAGE,
}
"""Of the kinds whose first field is a channel. (Kind.POINT, name, step or None, time, value) is any numeric point."""
_KINDS: Final = frozenset(
    {
        *(Kind.CREATE, Kind.PARAMETERS, Kind.PROPERTY, Kind.TAGS, Kind.FACTS, Kind.ARTIFACT, Kind.UNLINK, Kind.RESET),
        *_CHANNEL_TYPES,
    }
)
_TIME_MAX: Final = (1 << 64) - 1


class Held(NamedTuple):
    """A payload too large for an event, which whoever made the change puts in place once it is awaited."""

    size: int
    sha256: str


def batches(changes: Sequence[Change], head: Commit | None, side: Side) -> list[Batch]:
    """`changes` of the experiment whose newest commit is `head`, as the next batches of the curation source.

    Raises `ValueError` for a change that is none.
    """
    if len(changes) > CHANGES_MAX:
        raise ValueError(f"{len(changes)} changes are more than one commit takes: give at most {CHANGES_MAX}")
    state = head.sources.get(CURATION_SOURCE, SourceState()) if head else SourceState()
    encoder = _Encoder(head, side, state)
    found: list[Batch] = []
    first, raw = state.position, b""
    for event in encoder.events(changes):
        if raw and len(raw) + len(event) > BATCH_RAW_MAX:
            found.append(Batch(CURATION_SOURCE, first, first + len(raw), raw))
            first, raw = first + len(raw), b""
        raw += event
    return [*found, Batch(CURATION_SOURCE, first, first + len(raw), raw)]


class _Encoder:
    """Gives numbers to what is new beside a commit."""

    def __init__(self, head: Commit | None, side: Side, state: SourceState) -> None:
        self._head: Final = head
        self._side: Final = side
        codes = SourceTable.of(state).codes.tolist()
        self._channels = {head.names[code]: number for number, code in enumerate(codes) if head and code != UNDEFINED}
        self._next_channel = len(codes)
        waiting = [file.file for file in head.pending.values() if file.source == CURATION_SOURCE] if head else []
        taken = [first + count for first, count in state.files] + [(file_number(file) or 0) + 1 for file in waiting]
        self._next_file = max(taken, default=1)

    def events(self, changes: Iterable[Change]) -> Iterator[bytes]:
        """Each change, after the channel that it needs."""
        for kind, *fields in changes:
            if kind not in _KINDS:
                raise ValueError(f"an event of kind {kind!r} cannot change a stored experiment")
            given = [self._placed(field) for field in fields]
            if kind in _CHANNEL_TYPES:
                channel = names.channel_name(given[0])
                if channel not in self._channels:
                    yield self._define(channel, _CHANNEL_TYPES[kind])
                given[0] = self._channels[channel]
            if kind == Kind.POINT:
                number, step, time_ns, value = given
                yield events.pack_point(number, None if step is None else float(step), time_ns, float(value))
                continue
            checked_fields(kind, given)
            if kind not in _CHANNEL_TYPES:
                given[0] = self._later(Kind(kind), given)
            yield events.pack(kind, *given)

    def _placed(self, field: Any) -> Any:
        if not isinstance(field, Held):
            return field
        name = f"{self._next_file:06d}-{os.urandom(4).hex()}"
        self._next_file += 1
        return {"file": name, "size": field.size, "sha256": field.sha256}

    def _define(self, channel: str, type: ChannelType) -> bytes:
        if self._next_channel >= CHANNELS_MAX:
            raise InvalidValue(f"channel {channel!r} would be the {CHANNELS_MAX + 1}st that was logged to this way")
        self._channels[channel] = self._next_channel
        self._next_channel += 1
        return events.pack(Kind.CHANNEL, self._channels[channel], channel, int(type))

    # -- Later than what is there ------------------------------------------------------------------------------------------

    def _later(self, kind: Kind, fields: list[Any]) -> int:
        """The change's time, or the one just after all that it changes."""
        made_ns: int = fields[0]
        stamps = [] if kind == Kind.RESET else [stamp.time_ns + 1 for stamp in self._stamps(kind, fields)]
        points = [self._last_point_ns(fields[1])] if kind == Kind.RESET else []
        return min(max(made_ns, *stamps, *points, 0), _TIME_MAX)

    def _stamps(self, kind: Kind, fields: list[Any]) -> Iterator[Stamp]:
        """The stamps of what a change is about."""
        if self._head is None:
            return
        group, keys = _concerns(kind, fields)
        stamps: dict[str, Stamp] = getattr(self._head.stamps, group) if group else {}
        aside = getattr(self._side, group) if group in ("artifacts", "source_files") else {}
        for key in keys:
            if key in stamps:
                yield stamps[key]
            elif key in aside:
                yield aside[key].stamp

    def _last_point_ns(self, channel: str) -> int:
        """The time of the channel's last point, 0 if it has none."""
        if self._head is None:
            return 0
        records = [getattr(self._head.document.channels, kind).get(channel) for kind in PART_KINDS]
        return max((us_of(record.last.time) * 1000 for record in records if record and record.last), default=0)


def _concerns(kind: Kind, fields: list[Any]) -> tuple[str, Iterable[str]]:
    """Which registers a change sets: their group and their names."""
    match kind:
        case Kind.PROPERTY:
            return "properties", [fields[1]]
        case Kind.TAGS:
            return "tags", [*fields[1], *fields[2]]
        case Kind.PARAMETERS:
            return "params", fields[1]
        case Kind.FACTS:
            return "facts", fields[1]
        case Kind.ARTIFACT:
            return "source_files" if fields[3].get("kind") == "source" else "artifacts", [fields[1]]
        case Kind.UNLINK:
            return "artifacts", fields[1]
        case _:
            return "", ()
