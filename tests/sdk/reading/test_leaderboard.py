"""The leaderboard is made in vectors: whatever rows a catalog holds, it is what one record after another would give."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import inf, nan
from typing import TYPE_CHECKING, Any

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.reading import StoredProject
from headrace.reading.leaderboard import PREFIXES, SYSTEM_COLUMNS, Leaderboard
from headrace_proto.store.catalog import CatalogRow, append_rows
from headrace_proto.store.catalog.table import decoded, encoded, rows_of, table_of
from headrace_proto.store.plain import plain, unplain
from tests.sdk.reading.stored import PROJECT

if TYPE_CHECKING:
    from headrace_proto.store.backend import Store

NOW = datetime(2026, 1, 2, tzinfo=UTC)

_NAMES = st.sampled_from(["loss", "acc", "a/b", "ä", "x.y"])
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
_TIMES = st.none() | st.timedeltas(timedelta(), timedelta(days=400)).map(lambda since: NOW - since)
_FLOATS = st.floats() | st.sampled_from([0.0, 1.5, nan, inf])
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.integers(0, 3) | _FLOATS | _TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_TEXTS, inner, max_size=2),
    max_leaves=3,
)


def _rows() -> st.SearchStrategy[list[CatalogRow]]:
    row = st.builds(
        CatalogRow,
        experiment=st.uuids().map(lambda made: made.hex),
        commit=st.integers(1, 9),
        id=st.integers(1, 99).map("DIG-{}".format),
        name=_TEXTS,
        state=st.sampled_from(["running", "failed"]),
        created_at=_TIMES,
        finished_at=_TIMES,
        seen_at=_TIMES,
        owner=_TEXTS,
        description=_TEXTS,
        size=st.integers(0, 2**40),
        tags=st.lists(_TEXTS, max_size=2),
        params=st.dictionaries(_NAMES, _VALUES.map(plain), max_size=3),
        properties=st.dictionaries(_NAMES, _TEXTS, max_size=2),
        metrics=st.dictionaries(_NAMES, _FLOATS, max_size=2),
        texts=st.dictionaries(_NAMES, _TEXTS, max_size=2),
    )
    return st.lists(row, max_size=6, unique_by=lambda made: made.experiment)


def _one_by_one(rows: list[CatalogRow]) -> pd.DataFrame:
    """The model: a record a row, and pandas finds the types."""
    records: list[dict[str, Any]] = [
        {
            "id": row.id,
            "name": row.name,
            "created": row.created_at,
            "finished": row.finished_at,
            "owner": row.owner,
            "notes": row.description,
            "running_time": None
            if row.created_at is None
            else ((row.finished_at or NOW) - row.created_at).total_seconds(),
            "size": row.size,
            "tags": list(row.tags),
            **{f"channel_{name}": value for name, value in row.texts.items()},
            **{f"channel_{name}": value for name, value in row.metrics.items()},
            **{f"parameter_{name}": unplain(value) for name, value in row.params.items()},
            **{f"property_{name}": value for name, value in row.properties.items()},
        }
        for row in rows
    ]
    named = sorted({column for record in records for column in record} - set(SYSTEM_COLUMNS))
    columns = [*SYSTEM_COLUMNS, *(column for prefix in PREFIXES for column in named if column.startswith(prefix))]
    return pd.DataFrame.from_records(records, columns=columns)


@settings(max_examples=100)
@given(_rows())
def test_made_in_vectors_it_is_what_records_would_give(rows: list[CatalogRow]) -> None:
    """Columns, their order, their types and every value: NaN where an experiment has none, lists and maps as they were given."""
    table = decoded(encoded(table_of(rows)))
    pd.testing.assert_frame_equal(Leaderboard(table).frame(NOW), _one_by_one(rows), check_freq=False)
    for begin in range(len(rows)):  # a slice of a table begins somewhere in its columns
        part = Leaderboard(table.slice(begin, 2)).frame(NOW)
        pd.testing.assert_frame_equal(part, _one_by_one(rows[begin : begin + 2]))


@given(_rows())
def test_rows_come_back_from_columns(rows: list[CatalogRow]) -> None:
    """What goes into a file of the catalog comes out of it, value by value."""
    assert repr(rows_of(decoded(encoded(table_of(rows))))) == repr(rows)


def test_a_leaderboard_can_be_changed_without_harm(files: Store) -> None:
    """A DataFrame that was given, or a list in it, may be changed: no other changes with it."""
    row = CatalogRow(
        experiment="0" * 32, commit=1, id="DIG-1", name="a", state="running", tags=["t"], metrics={"m": 1.0}
    )
    append_rows(files, PROJECT, [row])
    project = StoredProject(files, PROJECT)
    first = project.get_leaderboard()
    first.loc[0, "channel_m"], first.loc[0, "name"] = 7.0, "b"
    first.loc[0, "tags"].append("mine")  # type: ignore[union-attr]
    second = project.get_leaderboard()
    assert second[["channel_m", "name", "tags"]].to_numpy().tolist() == [[1.0, "a", ["t"]]]
