"""Points: automatic steps, the order of a part, and what the document says of each channel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headrace_proto import names
from headrace_proto.errors import InvalidName
from headrace_proto.limits import REGISTERS_MAX, TEXT_CHARACTERS_SHOWN
from headrace_proto.store.apply import latest, numeric
from headrace_proto.store.apply.draft import Columns, Draft, RowColumns, SeriesRow
from headrace_proto.store.apply.sources import count_gap
from headrace_proto.store.columns import Event
from headrace_proto.store.commits import PART_KINDS, PartKind
from headrace_proto.store.documents import Last
from headrace_proto.store.parts import SCHEMAS
from headrace_proto.store.plain import plain_float
from headrace_proto.store.points import Points, Rows
from headrace_proto.store.sorting import channel_runs
from headrace_proto.store.steps import NO_STEP
from headrace_proto.store.stretches import Stretch
from headrace_proto.store.tables import UNDEFINED, placeholder
from headrace_proto.store.times import at_us

NOT_FINITE: Final = "a step is not finite"
Stored = Callable[[PartKind, list[str]], pa.Table]
"""Reads all stored points of some channels, sorted: `reset_log` needs them to find what is last now."""


def add_points(draft: Draft, source: str, points: Points | Rows, automatic_rows: list[NDArray[np.int32]]) -> None:
    """Take up a batch's numeric points."""
    finite = np.isfinite(points.step)
    if not finite.all():
        width = len(points.channel) if isinstance(points, Rows) else 1
        count_gap(draft, source, int(len(finite) - finite.sum()) * width, NOT_FINITE)
        points = points.of(finite)
    if not len(points.step):
        return
    meaning = _meaning(draft, source, points.channel)
    code = meaning[points.channel]
    draft.points.append(RowColumns(source, code, points) if isinstance(points, Rows) else Columns(source, code, points))
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
        draft.refuse(source, event, error)
        return
    if channel not in draft.resets and len(draft.resets) >= REGISTERS_MAX:
        draft.refuse(source, event, f"an experiment hides at most {REGISTERS_MAX} channels")
        return
    if time_ns // 1000 > draft.resets.get(channel, -1):
        draft.resets[channel] = time_ns // 1000
        draft.reset_now.add(channel)


# -- The end of an apply ------------------------------------------------------------------------------------------------


class Tables(NamedTuple):
    """What a commit adds, sorted as a part is; None where it adds nothing."""

    numeric: list[Stretch] | None
    text: pa.Table | None
    image: pa.Table | None

    def of(self, kind: PartKind, channel: str) -> list[pa.Table]:
        """The rows of one channel."""
        if kind == "numeric":
            return [stretch.table() for stretch in self.numeric or () if stretch.channel == channel]
        table = self.text if kind == "text" else self.image
        return [] if table is None else [table.filter(pc.field("channel") == channel)]


def fold_series(draft: Draft, stored: Stored) -> Tables:
    """Give steps, sort, and bring the document's channels up to date."""
    tables = Tables(numeric.fold(draft), _fold_rows(draft, "text"), _fold_rows(draft, "image"))
    for channel in draft.reset_now:
        for kind in PART_KINDS:
            if draft.base and channel in getattr(draft.base.document.channels, kind):
                _count_again(draft, kind, channel, stored(kind, [channel]), tables.of(kind, channel))
    return tables


def _fold_rows(draft: Draft, kind: PartKind) -> pa.Table | None:
    rows = sorted(_with_steps(draft, kind), key=lambda row: (row.channel, row.step, row.time_us))
    if not rows:
        return None
    times_us = np.array([row.time_us for row in rows], np.int64)

    def point(begin: int, nth: int) -> latest.Point:
        row = rows[begin + nth]
        shown = row.file if row.value is None else row.value[:TEXT_CHARACTERS_SHOWN]
        return latest.Point(row.step or 0.0, row.time_us, row.source, row.position, shown, row.name)

    for channel, begin, end in channel_runs([row.channel for row in rows]):
        latest.update(draft, kind, channel, times_us[begin:end], rows[end - 1].step or 0.0, partial(point, begin))
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


def _count_again(draft: Draft, kind: PartKind, name: str, stored: pa.Table, added: Sequence[pa.Table]) -> None:
    """After a reset: what is visible now, from all points, stored ones and those of this commit."""
    hidden_us = draft.resets[name]
    points = pa.concat_tables([table.drop_columns("channel") for table in (stored, *added)])
    times_us = points["time"].cast(pa.int64()).to_numpy()
    visible = np.flatnonzero(times_us > hidden_us)
    steps = points["step"].to_numpy()[visible]
    last = None
    draft.ties[kind].pop(name, None)
    if len(visible):
        row = points.slice(int(visible[np.lexsort((times_us[visible], steps))[-1]]), 1).to_pylist()[0]
        shown = plain_float(row["value"]) if kind == "numeric" else row.get("value") or row["file"]
        shown = shown[:TEXT_CHARACTERS_SHOWN] if isinstance(shown, str) else shown
        last = Last(step=row["step"], time=row["time"], value=shown, name=row.get("name"))
    changes = {"count": len(visible), "last": last, "reset_at": at_us(hidden_us)}
    draft.channels[kind][name] = draft.channels[kind][name].model_copy(update=changes)
