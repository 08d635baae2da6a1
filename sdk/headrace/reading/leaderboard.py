"""The leaderboard: Neptune's columns in Neptune's order, one row an experiment."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from headrace.reading.criteria import running_time
from headrace_proto.store.plain import unplain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd

    from headrace_proto.store.catalog import CatalogRow

SYSTEM_COLUMNS: Final = ("id", "name", "created", "finished", "owner", "notes", "running_time", "size", "tags")
"""Always there, in this order: Neptune weighs the first five, and sorts the rest."""
PREFIXES: Final = ("channel_", "parameter_", "property_")
"""Then these, each in alphabetical order."""


def leaderboard(rows: Sequence[CatalogRow], now: datetime | None = None) -> pd.DataFrame:
    """`rows` as a DataFrame. `running_time` is in seconds, `size` in bytes; a column that an experiment lacks is NaN."""
    import pandas as pd

    moment = now or datetime.now(UTC)
    records = [_record(row, moment) for row in rows]
    return pd.DataFrame.from_records(records, columns=_ordered({column for record in records for column in record}))


def _record(row: CatalogRow, now: datetime) -> dict[str, Any]:
    running = running_time(row.created_at, row.finished_at, now)
    return {
        "id": row.id,
        "name": row.name,
        "created": row.created_at,
        "finished": row.finished_at,
        "owner": row.owner,
        "notes": row.description,
        "running_time": None if running is None else running.total_seconds(),
        "size": row.size,
        "tags": list(row.tags),
        **{f"channel_{name}": value for name, value in row.texts.items()},
        **{f"channel_{name}": value for name, value in row.metrics.items()},
        **{f"parameter_{name}": unplain(value) for name, value in row.params.items()},
        **{f"property_{name}": value for name, value in row.properties.items()},
    }


def _ordered(columns: Iterable[str]) -> list[str]:
    # A system column is never taken for another kind's, nor the other way round: those have a prefix.
    named = sorted(set(columns) - set(SYSTEM_COLUMNS))
    return [*SYSTEM_COLUMNS, *(column for prefix in PREFIXES for column in named if column.startswith(prefix))]
