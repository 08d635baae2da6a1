"""The leaderboard: Neptune's columns in Neptune's order, one row an experiment. Made column by column, in vectors."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
from pydantic_core import from_json

from headrace.reading.criteria import times_us
from headrace_proto.store.catalog import by_name
from headrace_proto.store.plain import unplain
from headrace_proto.store.times import us_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd

SYSTEM_COLUMNS: Final = ("id", "name", "created", "finished", "owner", "notes", "running_time", "size", "tags")
"""Always there, in this order: Neptune weighs the first five, and sorts the rest."""
PREFIXES: Final = ("channel_", "parameter_", "property_")
"""Then these, each in alphabetical order."""


class Leaderboard:
    """A catalog's table as a DataFrame. What was made once is kept for the next time."""

    def __init__(self, table: pa.Table) -> None:
        self.table: Final = table
        self._kept: dict[str, Any] | None = None

    def frame(self, now: datetime | None = None) -> pd.DataFrame:
        """The DataFrame. `running_time` is in seconds, `size` in bytes; a column that an experiment lacks is NaN."""
        import pandas as pd

        if not self.table.num_rows:
            return pd.DataFrame.from_records([], columns=list(SYSTEM_COLUMNS))
        if self._kept is None:
            self._kept = {**_fixed(self.table), **_named_columns(self.table)}
        moving = {
            "running_time": _running_times(self.table, now or datetime.now(UTC)),
            "tags": self.table["tags"].to_pylist(),  # lists may be changed by whom they are given to
        }
        columns = dict.fromkeys(SYSTEM_COLUMNS) | self._kept | moving
        return pd.DataFrame(columns)


def _fixed(table: pa.Table) -> dict[str, Any]:
    return {
        "id": _texts(table["id"]),
        "name": _texts(table["name"]),
        "created": _times(table["created_at"]),
        "finished": _times(table["finished_at"]),
        "owner": _texts(table["owner"]),
        "notes": _texts(table["description"]),
        "size": table["size"].to_numpy(),
    }


def _named_columns(table: pa.Table) -> dict[str, Any]:
    """The columns that experiments name themselves."""
    texts, numbers = by_name(table, "texts"), by_name(table, "metrics")
    both = {name: _either(numbers[name], texts[name]) for name in numbers.keys() & texts.keys()}
    groups: tuple[dict[str, Any], ...] = (
        {**_each(_texts, texts), **_each(_numbers, numbers), **both},
        _each(_parameters, by_name(table, "params")),
        _each(_texts, by_name(table, "properties")),
    )
    return {
        f"{prefix}{name}": group[name] for prefix, group in zip(PREFIXES, groups, strict=True) for name in sorted(group)
    }


def _each(made: Callable[[Any], Any], columns: dict[str, Any]) -> dict[str, Any]:
    return {name: made(column) for name, column in columns.items()}


def _texts(column: Any) -> Any:
    shown = column.to_pandas()
    return shown.where(shown.notna(), np.nan) if shown.dtype == object else shown  # pandas 2 has None for null


def _numbers(column: Any) -> Any:
    return column.to_numpy(zero_copy_only=False)  # null becomes NaN


def _parameters(column: Any) -> Any:
    """Parameters as they were given."""
    values = from_json(f"[{','.join(column.drop_null().to_pylist())}]")
    return _narrowest((unplain(value) for value in values), column.is_valid())


def _either(numbers: Any, texts: Any) -> Any:
    """A channel of one experiment's numbers and another's texts; its numbers, where one experiment has both."""
    pairs = zip(numbers.to_pylist(), texts.to_pylist(), strict=True)
    values = [text if number is None else number for number, text in pairs]
    return _narrowest(
        (value for value in values if value is not None), pa.array([value is not None for value in values])
    )


def _narrowest(values: Iterator[Any], given: Any) -> Any:
    """The values, NaN where none is given, in a column of the narrowest type that pandas finds for them."""
    import pandas as pd

    column = np.full(len(given), np.nan, np.dtype(object))
    column[given.to_numpy(zero_copy_only=False)] = np.fromiter(values, np.dtype(object))
    return pd.Series(column, dtype=object).infer_objects()


def _times(column: pa.ChunkedArray[Any]) -> Any:
    import pandas as pd

    us, known = times_us(column)
    if not known.any():
        return np.full(len(us), None)
    moments = us.astype("datetime64[us]")
    moments[~known] = np.datetime64("NaT")
    return pd.DatetimeIndex(moments).tz_localize("UTC")


def _running_times(table: pa.Table, now: datetime) -> Any:
    created, known = times_us(table["created_at"])
    finished, ended = times_us(table["finished_at"])
    if not known.any():
        return np.full(len(created), None)
    return np.where(known, (np.where(ended, finished, us_of(now)) - created) / 1e6, np.nan)
