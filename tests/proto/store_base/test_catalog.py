"""The catalog shows each experiment's newest row, whoever appends, folds, sleeps or is killed in between."""

from __future__ import annotations

import io
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from importlib import resources
from math import isnan
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_proto.errors import Corrupt
from headrace_proto.store import layout
from headrace_proto.store.backend import open_store
from headrace_proto.store.catalog import (
    DELTAS_MAX,
    JSON_ROWS_MAX,
    Catalog,
    CatalogRow,
    append_rows,
    files_to_fold,
    fold,
    in_order,
    read_rows,
)
from headrace_proto.store.catalog.table import rows_of, table_of
from headrace_proto.store.claims import ProjectRecord
from tests.proto.store_base.faults import FaultyStore

if TYPE_CHECKING:
    from headrace_proto.store.backend import Store

FORMAT = resources.files("headrace_proto.store").joinpath("FORMAT.md").read_text(encoding="utf-8")
PROJECT = "vision/digits"
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(str(tmp_path_factory.mktemp("store")))


def _row(number: int, commit: int = 1, **fields: object) -> CatalogRow:
    given = {
        "id": f"DIG-{number}",
        "name": f"run {number}",
        "state": "running",
        "created_at": START + timedelta(seconds=number),
        "params": {"lr": 0.1 * number, "nested": {"a": [1, None]}},
        "metrics": {"loss": number / 7},
        **fields,
    }
    return CatalogRow(experiment=f"{number:032x}", commit=commit, **given)  # type: ignore[arg-type]


def _shown(store: Store) -> dict[str, int]:
    """Experiment -> commit, of which no experiment may be shown twice."""
    rows = read_rows(store, PROJECT)
    shown = {row.experiment: row.commit for row in rows}
    assert len(shown) == len(rows)
    return shown


def _files(store: Store, shard: int = 0) -> list[str]:
    return [name.partition("-")[0] for name in store.names(layout.catalog_folder(PROJECT, shard))]


def test_rows_come_back_as_they_went_in(store: Store) -> None:
    """Every field survives a delta and a base: times, nested parameters, NaN and infinite last values, any text."""
    rows = [
        _row(1, finished_at=START, seen_at=START, owner="josh", tags=["a", "b"], texts={"notes": 'ü "\n'}, size=5),
        _row(2, metrics={"up": float("inf"), "down": float("-inf"), "tiny": 5e-324}, properties={"ä": "1"}),
        _row(3, created_at=None, params={}, description="d", hostname="h"),
    ]
    append_rows(store, PROJECT, rows)
    assert sorted(read_rows(store, PROJECT), key=lambda row: row.id) == rows
    assert fold(store, PROJECT)
    assert _files(store) == ["base"]
    assert sorted(read_rows(store, PROJECT), key=lambda row: row.id) == rows
    append_rows(store, PROJECT, [_row(4, metrics={"nan": float("nan")})])
    (nan,) = [row for row in read_rows(store, PROJECT) if row.id == "DIG-4"]
    assert isnan(nan.metrics["nan"])


def test_an_empty_catalog(store: Store) -> None:
    """A project without a catalog has no rows and nothing to fold."""
    assert read_rows(store, PROJECT) == []
    assert not fold(store, PROJECT)
    append_rows(store, PROJECT, [])
    assert store.names(PROJECT) == []


def test_the_highest_commit_is_shown(store: Store) -> None:
    """A stale writer that appends an older commit later changes nothing, before and after folds."""
    append_rows(store, PROJECT, [_row(1, 5, state="succeeded")])
    append_rows(store, PROJECT, [_row(1, 4)])
    assert [(row.commit, row.state) for row in read_rows(store, PROJECT)] == [(5, "succeeded")]
    fold(store, PROJECT)
    append_rows(store, PROJECT, [_row(1, 3)])
    assert _shown(store) == {f"{1:032x}": 5}
    fold(store, PROJECT)
    assert [(row.commit, row.state) for row in read_rows(store, PROJECT)] == [(5, "succeeded")]


def test_folding_merges_and_repeats(store: Store) -> None:
    """Folding leaves one file of what was appended; folding again has nothing to do."""
    for number in range(6):
        append_rows(store, PROJECT, [_row(number)])
    before = _shown(store)
    assert fold(store, PROJECT)
    assert _files(store) == ["base"]
    assert not fold(store, PROJECT)
    assert _shown(store) == before


def test_a_fold_can_wait_for_enough(store: Store) -> None:
    """A collector folds when enough has gathered, not after every row."""
    catalog = Catalog(store, PROJECT)
    catalog.append([_row(1)])
    assert not catalog.fold(deltas_min=2)
    catalog.append([_row(2)])
    assert catalog.fold(deltas_min=2)


def _names(kinds: list[tuple[str, int]]) -> list[str]:
    return [f"{kind}-{rows:010d}-{index:032x}.x" for index, (kind, rows) in enumerate(kinds)]


def test_a_fold_leaves_much_larger_bases() -> None:
    """Ten new rows are merged with the bases of like size, not with the 100,000 that were folded long ago."""
    kinds = [("base", 100_000), ("delta", 4), ("base", 15), ("delta", 6), ("base", 60), ("base", 300)]
    suffixes = {"base": "parquet", "delta": "json"}
    names = [name.replace(".x", f".{suffixes[name.partition('-')[0]]}") for name in _names(kinds)]
    assert sorted(files_to_fold(names)) == sorted(names[index] for index in (1, 2, 3))
    assert files_to_fold([names[0], "notes.txt"]) == []


def test_a_long_delta_is_columns(store: Store) -> None:
    """Many rows at once are written and read as Parquet, and folded like others."""
    catalog = Catalog(store, PROJECT)
    catalog.append([_row(number) for number in range(JSON_ROWS_MAX)])
    catalog.append([_row(number, 2) for number in range(1, JSON_ROWS_MAX + 2)])
    names = store.names(layout.catalog_folder(PROJECT, 0))
    assert sorted(name.rpartition(".")[2] for name in names) == ["json", "parquet"]
    expected = {f"{n:032x}": 2 if n else 1 for n in range(JSON_ROWS_MAX + 2)}
    assert _shown(store) == expected
    assert catalog.fold()
    assert (_files(store), _shown(store)) == (["base"], expected)


def test_files_of_the_first_format_are_read(store: Store) -> None:
    """A base with a row in JSON, as earlier releases wrote it, shows its rows; the next fold writes it anew."""
    rows = [_row(1, tags=["a"], finished_at=START), _row(2, metrics={"up": float("inf")})]
    columns = {"experiment": [row.experiment for row in rows], "row": [row.model_dump_json() for row in rows]}
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns).replace_schema_metadata({"headrace.catalog": "1"}), buffer)
    store.create(f"{layout.catalog_folder(PROJECT, 0)}/base-{2:010d}-{'0' * 32}.parquet", buffer.getvalue())
    assert sorted(read_rows(store, PROJECT), key=lambda row: row.id) == rows
    append_rows(store, PROJECT, [_row(3)])
    assert fold(store, PROJECT)
    assert sorted(read_rows(store, PROJECT), key=lambda row: row.id) == [*rows, _row(3)]


@given(st.lists(st.tuples(st.sampled_from(["DIG", "DIGI", "A-B"]), st.integers(0, 30)), max_size=12))
def test_numbers_order_rows(given_ids: list[tuple[str, int]]) -> None:
    """DIG-9 comes before DIG-10; of one number the keys decide, then the experiments; what has no number comes first."""
    ids = [f"{key}-{number}" for key, number in given_ids] + ["", "import-x", "7"]
    rows = [_row(place, id=name) for place, name in enumerate(ids)]

    def order(row: CatalogRow) -> tuple[int, str, str]:
        key, _, number = row.id.rpartition("-")
        return (int(number) if number.isdecimal() else 0, key, row.experiment)

    assert rows_of(in_order(table_of(rows))) == sorted(rows, key=order)
    assert rows_of(in_order(table_of(rows[:-3]))) == sorted(rows[:-3], key=order)


def test_bases_stay_few(store: Store) -> None:
    """After 200 rows folded one by one there are at most 8 bases: log2 of them."""
    catalog = Catalog(store, PROJECT)
    for number in range(200):
        catalog.append([_row(number)])
        catalog.fold()
    assert len(_files(store)) <= 8
    assert len(catalog.rows()) == 200


def test_who_only_appends_leaves_few_files(store: Store) -> None:
    """Without any collector, a program's own appends are folded now and then."""
    for number in range(DELTAS_MAX + 3):
        append_rows(store, PROJECT, [_row(number)])
    assert _files(store) == ["base", "delta", "delta", "delta"]
    assert len(read_rows(store, PROJECT)) == DELTAS_MAX + 3


def test_a_fold_that_slept_loses_nothing(store: Store) -> None:
    """One folder lists and sleeps; another folds, rows go on; the sleeper wakes up, and the newest rows are all shown."""

    def meanwhile(folder: str) -> None:
        slow.on_names = None
        fold(store, PROJECT)
        append_rows(store, PROJECT, [_row(1, 9), _row(3)])
        fold(store, PROJECT)

    append_rows(store, PROJECT, [_row(1), _row(2)])
    slow = FaultyStore(store, on_names=lambda folder: meanwhile(folder) if folder.endswith("000") else None)
    fold(slow, PROJECT)
    assert _shown(store) == {f"{1:032x}": 9, f"{2:032x}": 1, f"{3:032x}": 1}


def test_a_fold_killed_before_or_after_its_base(store: Store) -> None:
    """A folder killed at any of its writes leaves every row shown, and the next fold cleans up."""
    for number in range(3):
        append_rows(store, PROJECT, [_row(number)])
    before = _shown(store)
    for write in (0, 1):
        for when in ("before", "after"):
            with pytest.raises(TimeoutError):
                fold(FaultyStore(store, {write: when}), PROJECT)
            assert _shown(store) == before
            append_rows(store, PROJECT, [_row(0)])
    fold(store, PROJECT)
    assert _shown(store) == before


def test_a_reader_whose_file_was_folded_lists_again(store: Store) -> None:
    """A reader that listed files which are folded before it opens them shows the same rows."""
    for number in range(3):
        append_rows(store, PROJECT, [_row(number)])
    before = _shown(store)

    def meanwhile(folder: str) -> None:
        if folder.endswith("000"):
            racing.on_names = None
            fold(store, PROJECT)

    racing = FaultyStore(store, on_names=meanwhile)
    assert _shown(racing) == before
    assert racing.on_names is None


@settings(max_examples=25)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("append"), st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), max_size=4)),
            st.tuples(
                st.just("fold"), st.sampled_from([None, (0, "before"), (0, "after"), (1, "before"), (1, "after")])
            ),
        ),
        max_size=14,
    )
)
def test_any_history_shows_the_newest(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[str, object]]
) -> None:
    """After any order of appends and folds, some of them cut off, each experiment's highest commit is shown."""
    store = open_store(str(tmp_path_factory.mktemp("store")))
    catalog = Catalog(store, PROJECT)
    expected: dict[str, int] = {}
    for action, what in history:
        if action == "append":
            for number, commit in what:  # type: ignore[attr-defined]
                append_rows(store, PROJECT, [_row(number, commit)])
                key = f"{number:032x}"
                expected[key] = max(commit, expected.get(key, 0))
        else:
            with suppress(TimeoutError):
                fold(FaultyStore(store, dict([what]) if what else {}), PROJECT)  # type: ignore[list-item]
        assert {row.experiment: row.commit for row in catalog.rows()} == expected == _shown(store)


def test_many_at_once(store: Store) -> None:
    """Writers, folders and readers together: no reader ever sees a row go back, and all rows are there at the end."""
    gate, done = threading.Barrier(6), threading.Event()

    def write(writer: int) -> None:
        gate.wait()
        for commit in range(1, 16):
            append_rows(store, PROJECT, [_row(writer, commit), _row(100 + writer, commit)])

    def folds() -> None:
        gate.wait()
        while not done.is_set():
            fold(store, PROJECT)

    def read() -> None:
        gate.wait()
        catalog, last = Catalog(store, PROJECT), dict[str, int]()
        while not done.is_set():
            shown = {row.experiment: row.commit for row in catalog.rows()}
            assert all(shown.get(experiment, 0) >= commit for experiment, commit in last.items())
            last = shown

    with ThreadPoolExecutor(6) as pool:
        writers = [pool.submit(write, n) for n in range(3)]
        others = [pool.submit(folds), pool.submit(folds), pool.submit(read)]
        for writer in writers:
            writer.result()
        done.set()
        for other in others:
            other.result()
    assert _shown(store) == {f"{n:032x}": 15 for n in (0, 1, 2, 100, 101, 102)}


def test_shards_may_be_many(store: Store) -> None:
    """A project of 4 shards spreads its rows; readers show them all, also those written when it had one."""
    append_rows(store, PROJECT, [_row(number) for number in range(10)])
    record = ProjectRecord(id="i", name=PROJECT, key="DIG", created_at=START, shards=4)
    store.put(layout.project_file(PROJECT), record.model_dump_json().encode())
    append_rows(store, PROJECT, [_row(number, 2) for number in range(5, 40)])
    assert len(store.names(f"{PROJECT}/catalog")) == 4
    expected = {f"{n:032x}": 2 if n >= 5 else 1 for n in range(40)}
    assert _shown(store) == expected
    fold(store, PROJECT)
    assert _shown(store) == expected


def test_reading_again_opens_only_new_files(store: Store) -> None:
    """A reader that asks every second opens what was appended since, and builds only new rows."""

    class Counting(FaultyStore):
        reads = 0

        def read(self, path: str) -> bytes:
            self.reads += 1
            return super().read(path)

    counting = Counting(store)
    append_rows(store, PROJECT, [_row(number) for number in range(50)])
    catalog = Catalog(counting, PROJECT)
    first = {row.experiment: row for row in catalog.rows()}
    assert counting.reads == 1
    append_rows(store, PROJECT, [_row(7, 2)])
    second = {row.experiment: row for row in catalog.rows()}
    assert counting.reads == 2
    assert [key for key in second if second[key] is not first[key]] == [f"{7:032x}"]


def test_a_damaged_file_is_named(store: Store) -> None:
    """A file that is no catalog file any more is named, with the advice that the catalog can do without."""
    append_rows(store, PROJECT, [_row(1)])
    fold(store, PROJECT)
    folder = layout.catalog_folder(PROJECT, 0)
    (name,) = store.names(folder)
    store.put(f"{folder}/{name}", b"PAR1 and nothing")
    with pytest.raises(Corrupt, match=name):
        read_rows(store, PROJECT)


def test_other_tools_read_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SQL of FORMAT.md answers over the Parquet files: each experiment once, names of one's own choice by their name."""
    sql = re.findall(r"```sql\n(.*?)```", FORMAT, re.DOTALL)[-1]
    catalog = Catalog(store, PROJECT)
    catalog.append([_row(number) for number in range(1, 70)])
    catalog.fold()
    catalog.append([_row(number, 2, metrics={"loss": float(-number)}) for number in range(2, 70)])
    monkeypatch.chdir(store.url_of(PROJECT))
    with duckdb.connect() as connection:
        found = connection.execute(sql).fetchall()
    assert (len(found), found[0], found[-1]) == (69, ("DIG-69", -69.0, 0.1 * 69), ("DIG-1", 1 / 7, 0.1))


def test_a_catalog_on_s3(s3_url: str) -> None:
    """The same over S3, with a reader that folds race."""
    store = open_store(s3_url)
    for number in range(4):
        append_rows(store, PROJECT, [_row(number)])
    reader = Catalog(open_store(s3_url, writable=False), PROJECT)
    assert len(reader.rows()) == 4
    fold(store, PROJECT)
    append_rows(store, PROJECT, [_row(0, 2), _row(9)])
    assert sorted(row.commit for row in reader.rows()) == [1, 1, 1, 1, 2]
