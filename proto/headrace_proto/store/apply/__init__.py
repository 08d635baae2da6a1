"""`apply`: (commit, batches) -> draft of the next commit. Pure: it reads no clock and writes nothing.

One function for all: collectors, the direct way and curation use it, so that an experiment comes out the same however its
events came in. Invariants
1. Across sources the order of batches does not matter (automatic steps excepted: those are given in commit order).
2. What an event cannot mean is set aside and counted, never raised: one hostile source must not stop an experiment.
3. A batch is applied as a whole, or, when it is poison, kept in quarantine and recorded as lost as a whole. It is cut in two
   only where a commit has as many events as it may have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from headrace_proto import names
from headrace_proto.errors import InvalidName
from headrace_proto.events import Kind
from headrace_proto.frame import FrameKind
from headrace_proto.limits import ASIDE_MAX, EVENT_BYTES_MAX, EXPERIMENT_WORDS_MAX
from headrace_proto.store.apply import facts, files, series, sources
from headrace_proto.store.apply.draft import BEYOND, Draft, Place
from headrace_proto.store.apply.files import FileDone
from headrace_proto.store.apply.series import Stored, Tables
from headrace_proto.store.columns import OVERSIZED, Crowded, Decoded, Event, Poison, decode
from headrace_proto.store.commits import Commit, Side
from headrace_proto.store.intake import Admitted, Batch, admit, between, without
from headrace_proto.store.shapes import KNOWN_KINDS
from headrace_proto.store.tables import UNDEFINED, SourceTable, placeholder, runs

__all__ = ["Draft", "FileDone", "Place", "Tables", "apply"]

POISON_REASON: Final = "does not decode"
"""The reason of lost ranges that arrived whole and are no events; what exactly is wrong stands in the quarantine."""

_HANDLERS: Final[dict[int, Callable[[Draft, str, Event], None]]] = {
    Kind.TEXT: files.text,
    Kind.IMAGE: files.image,
    Kind.OPEN: sources.open_,
    Kind.CREATE: facts.create,
    Kind.CLOSED: sources.closed,
    Kind.PARAMETERS: facts.parameters,
    Kind.PROPERTY: facts.property_,
    Kind.TAGS: facts.tags,
    Kind.FACTS: facts.facts,
    Kind.ARTIFACT: files.artifact,
    Kind.UNLINK: files.unlink,
    Kind.RESET: series.reset,
    Kind.GAP: sources.gap,
}
_TIMED: Final = frozenset(_HANDLERS) - {Kind.TEXT, Kind.IMAGE}
"""Kinds whose time is the first field; of TEXT and IMAGE it is the third."""


class Applied(NamedTuple):
    """The next commit."""

    draft: Draft
    tables: Tables
    left: list[Batch]
    """What it had no room for: for a further commit, as is then what became of files."""


def apply(
    base: Commit | None,
    side: Side,
    place: Place,
    batches: Sequence[Batch],
    done: Sequence[FileDone],
    stored: Stored,
    aside_max: int = ASIDE_MAX,
) -> Applied | None:
    """The commit after `base`, of as many of the batches as it has room for; None when nothing of all this is new.

    The batches of one source are in order and reach down to its watermark. Raises `ValueError` above a gap, `BadCut` when a
    batch must be cut inside an event.
    """
    draft = Draft(base, side, place, aside_max)
    changed = False
    left: list[Batch] = []
    # by source, so that within a commit points that tie are in the order of source and position
    for source, own in groupby(sorted(batches, key=lambda batch: batch.source), key=lambda batch: batch.source):
        for batch in own:
            if left:
                left.append(batch)
                continue
            for piece in admit(batch, draft.state(source).position, draft.record(source).lost):
                try:
                    changed |= _apply_piece(draft, piece)
                except Crowded as crowded:
                    changed |= crowded.end > 0 and _apply_piece(draft, _cut(piece, crowded.end))
                    left.append(batch)  # admitted once more, it is only what is left of it
                    break
            if batch.site and not draft.state(source).site:
                draft.change_state(source, site=batch.site)
    for report in () if left else done:
        changed |= files.done(draft, report)
    if not changed:
        return None
    tables = series.fold_series(draft, stored)
    draft.pack_tables()
    return Applied(draft, tables, left)


def _cut(piece: Admitted, length: int) -> Admitted:
    batch = piece.batch
    return piece._replace(batch=between(batch, batch.first, batch.first + length))


def _apply_piece(draft: Draft, piece: Admitted) -> bool:
    batch, fills = piece
    if batch.kind is FrameKind.DEAD:
        return sources.dead(draft, batch.source, batch.end, batch.reason)
    if batch.kind is FrameKind.LOST:
        draft.change_state(batch.source, position=batch.end)
        sources.lost(draft, batch.source, batch.first, batch.end, batch.reason)
        return True
    return _apply_events(draft, batch, fills=fills)


def _apply_events(draft: Draft, batch: Batch, *, fills: bool) -> bool:
    """Raises `Crowded`, and then has changed nothing."""
    table = draft.table(batch.source)
    try:
        decoded = decode(batch.raw, batch.first, table.schemas, draft.events_left)
        channels = _new_channels(draft, batch.source, table, decoded)
    except Poison as error:
        if fills:
            return False  # as lost as it was
        draft.change_state(batch.source, position=batch.end)
        draft.set_aside(batch.source, batch.first, batch.raw, f"{POISON_REASON}: {error}")
        sources.lost(draft, batch.source, batch.first, batch.end, POISON_REASON)
        return True
    if fills:
        draft.change(batch.source, lost=without(draft.record(batch.source).lost, batch.first, batch.end))
    else:
        draft.change_state(batch.source, position=batch.end)
        sources.revive(draft, batch.source)
    draft.events_left -= len(decoded.events)
    _learn(draft, batch.source, channels, decoded)
    series.add_points(draft, batch.source, decoded.points, decoded.automatic_rows)
    for event in decoded.events:
        _apply_event(draft, batch.source, event)
    _note_time(draft, batch.source, decoded)
    return True


def _learn(draft: Draft, source: str, channels: dict[int, str], decoded: Decoded) -> None:
    """Put what the batch defines into the source's table, as far as the experiment has room: each word is in every commit.

    Points whose words find no room are kept like those whose definition is lost: under placeholders.
    """
    table = draft.table(source)
    new = {number: draft.code(name) for number, name in sorted(channels.items()) if table.code(number) == UNDEFINED}
    beyond = 0
    if draft.room_for_words(len(runs(new)) + len(runs(new.values()))):
        for number, code in new.items():
            table.define(number, code)
    else:
        beyond += len(new)
    for schema, row in decoded.schemas.items():
        if schema in table.schemas or draft.room_for_words(len(runs(row.tolist()))):
            table.schemas[schema] = row
        else:
            beyond += 1
    if beyond:
        draft.refused[f"sources define more than {EXPERIMENT_WORDS_MAX} words"] += beyond


def _new_channels(draft: Draft, source: str, table: SourceTable, decoded: Decoded) -> dict[int, str]:
    """What the batch defines. A number that means two things would make its points mean anything: poison."""
    channels: dict[int, str] = {}
    refused: list[tuple[Event, InvalidName]] = []
    for event in decoded.events:
        if event.kind != Kind.CHANNEL:
            continue
        number, name, _ = event.fields
        try:
            names.channel_name(name)
        except InvalidName as error:
            refused.append((event, error))
            name = placeholder(source, number)
        code = table.code(number)
        known = channels.get(number) if code == UNDEFINED else draft.names[code]
        if known not in (None, name, BEYOND):
            raise Poison(f"channel {number} is defined a second time, as {name!r} after {known!r}")
        channels[number] = name
    for event, fault in refused:
        draft.refuse(source, event, fault)
    return channels


def _apply_event(draft: Draft, source: str, event: Event) -> None:
    handler = _HANDLERS.get(event.kind)
    if handler:
        handler(draft, source, event)
    elif event.kind == OVERSIZED:
        draft.refuse(source, event, f"an event has more than {EVENT_BYTES_MAX} bytes")
    elif event.kind not in KNOWN_KINDS:
        draft.unknown_kinds[str(event.kind)] += 1
        draft.set_aside(
            source, event.position, event.raw, f"an event of kind {event.kind}, which this release does not know"
        )


def _note_time(draft: Draft, source: str, decoded: Decoded) -> None:
    times_us = [
        int(event.fields[0 if event.kind in _TIMED else 2]) // 1000
        for event in decoded.events
        if event.kind in _HANDLERS
    ]
    if len(decoded.points.time_us):
        times_us.append(int(decoded.points.time_us.max()))
    if times_us:
        sources.seen(draft, source, max(times_us))
