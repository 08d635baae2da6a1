"""Points: automatic steps, the order of a part, and what the document says of each channel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headrace_proto import names
from headrace_proto.errors import InvalidName
from headrace_proto.limits import REGISTERS_MAX
from headrace_proto.store.apply.draft import Columns, Draft, SeriesRow
from headrace_proto.store.apply.sources import count_gap
from headrace_proto.store.columns import Event, Points
from headrace_proto.store.commits import PART_KINDS, PartKind
from headrace_proto.store.documents import ChannelRecord, Last, at_us, us_of
from headrace_proto.store.parts import NUMERIC, SCHEMAS
from headrace_proto.store.plain import plain_float
from headrace_proto.store.sorting import channel_runs, series_order
from headrace_proto.store.steps import NO_STEP, fill_automatic
from headrace_proto.store.tables import UNDEFINED, placeholder

TEXT_SHOWN: Final = 255
"""Characters of a text channel's last value that the document shows, as Neptune's leaderboard."""
NOT_FINITE: Final = "a step is not finite"
UNTIED: Final = ("", -1)
"""Source and position of a last point that was read back from parts, which do not hold them."""

Stored = Callable[[PartKind, list[str]], pa.Table]
"""Reads all stored points of some channels, sorted: `reset_log` needs them to find what is last now."""


class _Point(NamedTuple):
    """What decides which point is last, and what it shows."""

    step: float
    time_us: int
    source: str
    position: int
    value: Any
    name: str | None = None


def add_points(draft: Draft, source: str, points: Points, automatic_rows: list[NDArray[np.int32]]) -> None:
    """Take up a batch's numeric points."""
    finite = np.isfinite(points.step)
    if not finite.all():
        count_gap(draft, source, int(len(finite) - finite.sum()), NOT_FINITE)
        points = Points._make(column[finite] for column in points)
    if not len(points.step):
        return
    meaning = _meaning(draft, source, points.channel)
    draft.points.append(Columns(source, meaning[points.channel], points))
    draft.automatic_rows.extend(meaning[row] for row in automatic_rows)


def _meaning(draft: Draft, source: str, numbers: NDArray[np.int32]) -> NDArray[np.int32]:
    """By channel number, the index of the channel's name; placeholders for numbers that nothing defines."""
    table = draft.table(source)
    highest = int(numbers.max())
    meaning = table.codes
    if highest >= len(meaning):
        meaning = np.concatenate([meaning, np.full(highest + 1 - len(meaning), UNDEFINED, np.int32)])
    unknown = meaning[numbers] == UNDEFINED
    if unknown.any():
        meaning = meaning.copy()
        for number in np.unique(numbers[unknown]).tolist():
            meaning[number] = draft.code(placeholder(source, number))
    return meaning


def reset(draft: Draft, source: str, event: Event) -> None:
    """[19, time, channel name]: hides the points of the channel up to this time."""
    time_ns, channel = event.fields
    try:
        names.channel_name(channel)
    except InvalidName as error:
        draft.refuse(source, event.position, event.raw, error)
        return
    if channel not in draft.resets and len(draft.resets) >= REGISTERS_MAX:
        draft.refuse(source, event.position, event.raw, f"an experiment hides at most {REGISTERS_MAX} channels")
        return
    if time_ns // 1000 > draft.resets.get(channel, -1):
        draft.resets[channel] = time_ns // 1000
        draft.reset_now.add(channel)


# -- The end of an apply ------------------------------------------------------------------------------------------------


class Tables(NamedTuple):
    """What a commit adds, sorted as a part is; None where it adds nothing."""

    numeric: pa.Table | None
    text: pa.Table | None
    image: pa.Table | None


def fold_series(draft: Draft, stored: Stored) -> Tables:
    """Give steps, sort, and bring the document's channels up to date."""
    tables = Tables(_fold_numeric(draft), _fold_rows(draft, "text"), _fold_rows(draft, "image"))
    for channel in draft.reset_now:
        for kind, table in zip(PART_KINDS, tables, strict=True):
            if draft.base and channel in getattr(draft.base.document.channels, kind):
                _count_again(draft, kind, channel, stored(kind, [channel]), table)
    return tables


def _fold_numeric(draft: Draft) -> pa.Table | None:
    if not draft.points:
        return None
    code = np.concatenate([columns.code for columns in draft.points])
    position, _, step, automatic, time_us, value = (
        np.concatenate(columns) for columns in zip(*(columns.points for columns in draft.points), strict=True)
    )
    _fill_steps(draft, code, position, step, automatic)
    used = np.flatnonzero(np.bincount(code, minlength=len(draft.names)))
    named = sorted((draft.names[c], c) for c in used.tolist())
    rank = np.zeros(len(draft.names), np.int32)
    rank[[c for _, c in named]] = np.arange(len(named))
    local = rank[code]
    order = series_order(local, step, time_us)
    source_ends = np.cumsum([len(columns.code) for columns in draft.points])
    if order is not None:
        local, position, step, time_us, value = local[order], position[order], step[order], time_us[order], value[order]
    bounds = np.searchsorted(local, np.arange(len(named) + 1))

    def point(i: int) -> _Point:
        original = i if order is None else int(order[i])
        source = draft.points[int(np.searchsorted(source_ends, original, side="right"))].source
        return _Point(step[i].item(), int(time_us[i]), source, int(position[i]), plain_float(value[i].item()))

    for (name, _), begin, end in zip(named, bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        _update(draft, "numeric", name, begin, time_us[begin:end], step[end - 1].item(), point)
    channel = pa.DictionaryArray.from_arrays(pa.array(local), pa.array([name for name, _ in named], pa.string()))
    time = pa.array(time_us).cast(NUMERIC.field("time").type)
    return pa.table([channel, pa.array(step), time, pa.array(value)], schema=NUMERIC)


def _fill_steps(
    draft: Draft,
    code: NDArray[np.int32],
    position: NDArray[np.int64],
    step: NDArray[np.float64],
    automatic: NDArray[np.bool_],
) -> None:
    if not automatic.any():
        return
    begins = np.ones(len(code), np.bool_)
    np.not_equal(position[1:], position[:-1], out=begins[1:])
    begins[np.cumsum([len(columns.code) for columns in draft.points])[:-1]] = True  # equal positions of two sources
    highest = np.full(len(draft.names), NO_STEP)
    rows = list({row.tobytes(): row for row in draft.automatic_rows}.values())
    concerned = np.unique(np.concatenate([code[automatic], *rows]))
    for c in concerned.tolist():
        record = draft.channels["numeric"].get(draft.names[c])
        if record is not None and record.max_step is not None:
            highest[c] = max(NO_STEP, record.max_step)
    fill_automatic(code, step, automatic, begins, rows, highest)


def _fold_rows(draft: Draft, kind: PartKind) -> pa.Table | None:
    rows = sorted(_with_steps(draft, kind), key=lambda row: (row.channel, row.step, row.time_us))
    if not rows:
        return None
    times_us = np.array([row.time_us for row in rows], np.int64)

    def point(i: int) -> _Point:
        row = rows[i]
        shown = row.file if row.value is None else row.value[:TEXT_SHOWN]
        return _Point(row.step or 0.0, row.time_us, row.source, row.position, shown, row.name)

    for channel, begin, end in channel_runs([row.channel for row in rows]):
        _update(draft, kind, channel, begin, times_us[begin:end], rows[end - 1].step or 0.0, point)
    schema = SCHEMAS[kind]
    columns = {field.name: [getattr(row, field.name, None) for row in rows] for field in schema if field.name != "time"}
    times = pa.array([row.time_us for row in rows], pa.int64()).cast(schema.field("time").type)
    arrays = [times if field.name == "time" else pa.array(columns[field.name], _plain(field.type)) for field in schema]
    return pa.table(
        [
            array.dictionary_encode() if field.name == "channel" else array
            for array, field in zip(arrays, schema, strict=True)
        ],
        schema=schema,
    )


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _with_steps(draft: Draft, kind: PartKind) -> list[SeriesRow]:
    """Rows in commit order with a step each; a row whose step is not finite is counted as a gap."""
    highest: dict[str, float] = {}
    kept = []
    for row in draft.rows[kind]:
        if row.channel not in highest:
            record = draft.channels[kind].get(row.channel)
            highest[row.channel] = max(NO_STEP, record.max_step) if record and record.max_step is not None else NO_STEP
        step = highest[row.channel] + 1 if row.step is None else row.step
        if not np.isfinite(step):
            count_gap(draft, row.source, 1, NOT_FINITE)
            continue
        highest[row.channel] = max(highest[row.channel], step)
        kept.append(row._replace(step=step))
    return kept


# -- What the document says ---------------------------------------------------------------------------------------------


def _update(
    draft: Draft,
    kind: PartKind,
    name: str,
    begin: int,
    times_us: NDArray[np.int64],
    highest: float,
    point: Callable[[int], _Point],
) -> None:
    """Add a commit's points of one channel, which begin at `begin`, sorted, to its record."""
    record = draft.channels[kind].get(name) or ChannelRecord()
    hidden_us = draft.resets.get(name, -1)
    visible = None if hidden_us < 0 else np.flatnonzero(times_us > hidden_us)
    count, last = len(times_us) if visible is None else len(visible), record.last
    if count:
        newest = point(begin + (count - 1 if visible is None else int(visible[-1])))
        tie = draft.ties[kind].get(name, UNTIED)
        if last is None or newest[:4] > (last.step, us_of(last.time), *tie):
            last = Last(step=newest.step, time=at_us(newest.time_us), value=newest.value, name=newest.name)
            draft.ties[kind][name] = (newest.source, newest.position)
    draft.channels[kind][name] = ChannelRecord(
        count=record.count + count,
        last=last,
        max_step=highest if record.max_step is None else max(record.max_step, highest),
        reset_at=at_us(hidden_us) if hidden_us >= 0 else None,
    )


def _count_again(draft: Draft, kind: PartKind, name: str, stored: pa.Table, added: pa.Table | None) -> None:
    """After a reset: what is visible now, from all points, stored ones and those of this commit."""
    tables = [stored]
    if added is not None:
        tables.append(added.filter(pc.field("channel") == name))
    hidden_us = draft.resets[name]
    points = pa.concat_tables([table.drop_columns("channel") for table in tables])
    times_us = points["time"].cast(pa.int64()).to_numpy()
    visible = np.flatnonzero(times_us > hidden_us)
    steps = points["step"].to_numpy()[visible]
    last = None
    draft.ties[kind].pop(name, None)
    if len(visible):
        row = points.slice(int(visible[np.lexsort((times_us[visible], steps))[-1]]), 1).to_pylist()[0]
        shown = plain_float(row["value"]) if kind == "numeric" else row.get("value") or row["file"]
        shown = shown[:TEXT_SHOWN] if isinstance(shown, str) else shown
        last = Last(step=row["step"], time=row["time"], value=shown, name=row.get("name"))
    changes = {"count": len(visible), "last": last, "reset_at": at_us(hidden_us)}
    draft.channels[kind][name] = draft.channels[kind][name].model_copy(update=changes)
