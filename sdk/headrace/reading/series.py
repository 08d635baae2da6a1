"""Channels as DataFrames: the points of one channel over all parts, in order, without what was reset and what was repeated.

Order (of all that a channel holds): by step, then by time, then in the order in which points were committed. `last` of several
points of one step is the last in this order, and so is a channel's last value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace_proto.errors import InvalidValue
from headrace_proto.store import parts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    import pandas as pd
    from numpy.typing import NDArray

    from headrace.reading.snapshot import Snapshot
    from headrace_proto.store.commits import Commit, PartKind
    from headrace_proto.store.documents import ChannelRecord

Order = Literal["step", "time"]
Duplicates = Literal["last", "first", "all"]

COLUMNS: Final[dict[PartKind, tuple[str, ...]]] = {
    "numeric": ("step", "time", "value"),
    "text": ("step", "time", "value"),
    "image": ("step", "time", "value", "name", "description", "size"),
}


def checked(order: str, duplicates: str) -> None:
    """Raise `InvalidValue` unless both are words that `points` knows."""
    if order not in get_args(Order):
        raise InvalidValue(f"order={order!r} must be one of {', '.join(get_args(Order))}")
    if duplicates not in get_args(Duplicates):
        raise InvalidValue(f"duplicates={duplicates!r} must be one of {', '.join(get_args(Duplicates))}")


def channels_of(commit: Commit, kind: PartKind) -> dict[str, ChannelRecord]:
    """The channels of one kind."""
    channels: dict[str, ChannelRecord] = getattr(commit.document.channels, kind)
    return channels


def points(
    snapshot: Snapshot, commit: Commit, kind: PartKind, names: Sequence[str], duplicates: Duplicates = "last"
) -> dict[str, pa.Table]:
    """The visible points of several channels of one kind, each in order."""
    paths = [snapshot.path(part.path) for part in commit.parts.of(kind)]
    found = parts.series(snapshot.store, kind, paths, names)
    known = channels_of(commit, kind)
    return {name: _once(_visible(found[name], known[name].reset_at), duplicates) for name in names}


def _visible(table: pa.Table, reset_at: datetime | None) -> pa.Table:
    """Without the points that a reset hides: those up to its time."""
    return (
        table if reset_at is None else table.filter(pc.greater(table["time"], pa.scalar(reset_at, table["time"].type)))
    )


def _once(table: pa.Table, duplicates: Duplicates) -> pa.Table:
    """One point a step, the last or the first in order; or all."""
    if duplicates == "all" or not table.num_rows:
        return table
    steps = table["step"].to_numpy()
    changes = steps[1:] != steps[:-1]
    keep = np.append(changes, True) if duplicates == "last" else np.insert(changes, 0, True)
    return table if keep.all() else table.filter(pa.array(keep))


def frame(snapshot: Snapshot, kind: PartKind, table: pa.Table, order: Order) -> pd.DataFrame:
    """A channel's points as a DataFrame with COLUMNS[kind].

    `step` and numeric values are float64, `time` is datetime64[us, UTC]. A text's value is the whole text, NaN while the bytes
    of a long one are on their way; an image's is the address of its file.
    """
    import pandas as pd

    if order == "time":
        table = table.take(np.argsort(parts.times_us(table), kind="stable"))
    data: dict[str, Any] = {
        "step": _own(table["step"]),
        "time": pd.DatetimeIndex(_own(table["time"]), copy=False).tz_localize("UTC"),
        "value": _values(snapshot, kind, table),
    }
    for name in COLUMNS[kind][3:]:
        data[name] = table[name].to_pylist()
    return pd.DataFrame(
        data, copy=False
    )  # one column beside the other: to put them into one block costs a third of the read


def _own(column: pa.ChunkedArray[Any]) -> NDArray[Any]:
    """The values in memory that may be changed; Arrow's may not."""
    return np.require(column.to_numpy(), requirements="W")


def _values(snapshot: Snapshot, kind: PartKind, table: pa.Table) -> Any:
    if kind == "numeric":
        return _own(table["value"])
    files: list[Any] = table["file"].to_pylist()
    if kind == "image":
        return [snapshot.store.url_of(snapshot.path(file)) for file in files]
    values: list[Any] = table["value"].to_pylist()
    return [value if file is None else _long_text(snapshot, file) for value, file in zip(values, files, strict=True)]


def _long_text(snapshot: Snapshot, file: str) -> str | None:
    try:
        return snapshot.store.read(snapshot.path(file)).decode(errors="replace")
    except FileNotFoundError:  # still on its way, or refused when it arrived: its row is stored before its bytes
        return None


def merged(tables: Mapping[str, pa.Table]) -> pd.DataFrame:
    """Numeric channels side by side: `x`, then one column a channel in the order given, outer-merged on the step."""
    import pandas as pd

    columns = [
        pd.Series(table["value"].to_numpy(), table["step"].to_numpy(), name=name) for name, table in tables.items()
    ]
    if not columns:
        return pd.DataFrame({"x": np.empty(0)})
    together = pd.concat(columns, axis="columns", join="outer").sort_index()
    return together.rename_axis("x").reset_index()
