"""Parts and compaction: open Parquet files, small, quick to read, and the same rows however they are merged."""

from __future__ import annotations

import io
from threading import get_ident
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from headrace_proto.errors import Corrupt, FormatUnknown
from headrace_proto.limits import MIB, PARTS_MAX, ROW_GROUP_POINTS
from headrace_proto.store import compaction, parts
from headrace_proto.store.backend import open_store
from headrace_proto.store.commits import PartRecord
from tests.proto.store_base.faults import Meddler
from tests.proto.store_core.script import EXPERIMENT, NOW_NS, PROJECT, Source, chain_of, frame_of, points_of, spooled
from tests.stores import head_of

if TYPE_CHECKING:
    from pathlib import Path

    from headrace_proto.store.backend import Store
    from headrace_proto.store.chain import Chain

FOLDER = f"{PROJECT}/experiments/{EXPERIMENT}"


def _table(rows: list[tuple[str, float, int]], tag: float = 0.0) -> pa.Table:
    """Rows as a part has them; `value` numbers them in the order given, from `tag`."""
    order = sorted(range(len(rows)), key=lambda i: rows[i])
    names = sorted({name for name, _, _ in rows})
    codes = [names.index(rows[i][0]) for i in order]
    columns = ([float(rows[i][1]) for i in order], [rows[i][2] for i in order], [tag + i for i in order])
    return _columns(np.array(codes, np.int32), names, *(np.array(column) for column in columns))


def _columns(
    codes: NDArray[np.int32], names: list[str], step: NDArray[Any], time_us: NDArray[Any], value: NDArray[Any]
) -> pa.Table:
    channel = pa.DictionaryArray.from_arrays(codes, pa.array(names, pa.string()))
    time = pa.array(time_us.astype(np.int64), pa.int64()).cast(pa.timestamp("us", "UTC"))
    floats = (pa.array(column.astype(np.float64), pa.float64()) for column in (step, value))
    return pa.table([channel, next(floats), time, next(floats)], schema=parts.NUMERIC)


def _written(store: Store, tables: list[pa.Table]) -> list[str]:
    paths = [f"parts/{n}.parquet" for n in range(len(tables))]
    for path, table in zip(paths, tables, strict=True):
        store.put(path, parts.encoded("numeric", table))
    return paths


def _merged(store: Store, paths: list[str]) -> pa.Table:
    store.put_stream("merged.parquet", compaction.merged(store, "numeric", paths))
    return parts.read(store, "numeric", ["merged.parquet"])


# -- Files --------------------------------------------------------------------------------------------------------------


def test_a_long_channel_has_row_groups_of_its_own(files: Store) -> None:
    """Reading one channel reads its row groups only; short channels share some."""
    long = [("b", float(i), i) for i in range(ROW_GROUP_POINTS)]
    table = _table([*long, ("a", 0.0, 0), ("c", 0.0, 0), ("d", 0.0, 0)])
    (path,) = _written(files, [table])
    with parts.opened(files, path) as part:
        assert part.channels == [("a", 1), ("b", ROW_GROUP_POINTS), ("c", 1), ("d", 1)]
        assert part.group_rows == [1, ROW_GROUP_POINTS, 2]
    statistics = pq.read_metadata(files.url_of(path)).row_group(1).column(0).statistics
    assert statistics is not None
    assert (statistics.min, statistics.max) == ("b", "b")
    assert parts.read(files, "numeric", [path], {"b"}).num_rows == ROW_GROUP_POINTS
    assert parts.read(files, "numeric", [path], {"a", "d", "none"})["channel"].to_pylist() == ["a", "d"]


def test_a_point_takes_less_than_ten_bytes(files: Store) -> None:
    """Noisy float64 values of 8 channels at 20 Hz with a jitter of 2 ms: under 10 bytes a point, times in microseconds."""
    random = np.random.default_rng(7)
    n = 8 * 20_000
    codes, step = np.repeat(np.arange(8, dtype=np.int32), n // 8), np.tile(np.arange(n // 8), 8)
    time_us = NOW_NS // 1000 + step * 50_000 + random.integers(0, 2000, n)
    values = np.exp(-step / 1e4) + random.normal(0, 0.1, n)
    data = parts.encoded("numeric", _columns(codes, [f"m{c}" for c in range(8)], step, time_us, values))
    assert len(data) / n < 10
    column = pq.read_metadata(pa.BufferReader(data)).row_group(0).column
    encodings = {column(i).path_in_schema: column(i).encodings for i in range(4)}
    assert "BYTE_STREAM_SPLIT" in encodings["value"]
    assert "DELTA_BINARY_PACKED" in encodings["time"]
    assert column(3).compression == "ZSTD"


def test_a_part_of_another_format_is_refused(files: Store) -> None:
    """A newer release's part is not read as if it were ours; what is no Parquet at all is Corrupt."""
    pq.write_table(pa.table({"channel": ["a"]}), files.url_of("new.parquet"))
    with pytest.raises(FormatUnknown):
        parts.read(files, "numeric", ["new.parquet"])
    files.put("no.parquet", b"PAR1 and then nothing")
    with pytest.raises(Corrupt):
        parts.read(files, "numeric", ["no.parquet"])


def test_a_part_is_read_by_the_callers_thread_alone(tmp_path: Path) -> None:
    """Another of Arrow's might call the file while the interpreter ends, which aborts the process."""
    rows = [(name, float(i), i) for name in ("a", "b") for i in range(ROW_GROUP_POINTS)]
    path = tmp_path / "part.parquet"
    path.write_bytes(parts.encoded("numeric", _table(rows)))
    readers: set[int] = set()

    class Watched(io.FileIO):
        def read(self, size: int | None = -1) -> bytes:
            readers.add(get_ident())
            return super().read(size)

    with Watched(path) as file:
        part = parts.OpenPart("part.parquet", cast("BinaryIO", file))
        assert part.read(parts.NUMERIC).num_rows == len(rows)
        assert [part.read_group(group, parts.NUMERIC).num_rows for group in range(2)] == [ROW_GROUP_POINTS] * 2
        part.close()
    assert readers == {get_ident()}


@pytest.mark.parametrize(
    ("rows", "groups"),
    [
        ([], []),
        ([5], [5]),
        ([60_000, 60_000, 60_000], [120_000, 60_000]),
        ([10, ROW_GROUP_POINTS, 10], [10, ROW_GROUP_POINTS, 10]),
        ([2 * parts.ROW_GROUP_ROWS_MAX + 3], [parts.ROW_GROUP_ROWS_MAX, parts.ROW_GROUP_ROWS_MAX, 3]),
    ],
)
def test_row_groups_are_bounded(rows: list[int], groups: list[int]) -> None:
    """A row group is neither a crowd of short channels nor all of a very long one."""
    assert parts.row_group_sizes([(f"c{i:03d}", n) for i, n in enumerate(rows)]) == groups


# -- Merging ------------------------------------------------------------------------------------------------------------

_rows = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 6).map(float), st.integers(0, 2)), max_size=30)


@given(st.lists(_rows, min_size=1, max_size=5), st.integers(1, 7))
def test_a_merge_keeps_every_row_in_order(
    shared_files: Store, told: list[list[tuple[str, float, int]]], block: int
) -> None:
    """However small the blocks, a merged part is the sorted rows of all parts; rows that tie keep the order of the parts."""
    tables = [_table(rows, tag=1000.0 * n) for n, rows in enumerate(told)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compaction, "BLOCK_ROWS", block)
        found = _merged(shared_files, _written(shared_files, tables)).to_pylist()
    rows = [row for table in tables for row in table.to_pylist()]
    assert found == sorted(rows, key=lambda row: (row["channel"], row["step"], row["time"]))


@pytest.fixture(scope="module")
def shared_files(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One store for all examples, which write over one another's files."""
    return open_store(str(tmp_path_factory.mktemp("files")))


def _peak_of_a_merge(store: Store, rows: int) -> int:
    """Most memory that Arrow holds while 4 parts of so many rows, which interleave, are merged."""
    paths = [f"{i}.parquet" for i in range(4)]
    for i, path in enumerate(paths):
        step = np.arange(rows) * 4.0 + i
        store.put(path, parts.encoded("numeric", _columns(np.zeros(rows, np.int32), ["x"], step, step, step)))
    before, peak = pa.total_allocated_bytes(), 0
    for _ in compaction.merged(store, "numeric", paths):
        peak = max(peak, pa.total_allocated_bytes() - before)
    return peak


def test_a_merge_holds_blocks_not_parts(files: Store) -> None:
    """Merging three times as many rows takes no more memory."""
    assert 0 < _peak_of_a_merge(files, 600_000) < 1.2 * _peak_of_a_merge(files, 200_000)


# -- Plans --------------------------------------------------------------------------------------------------------------


def _run(commits: int) -> tuple[int, float, int]:
    """Most live parts, times that a row was rewritten, and most rewrites of a row, over so many commits of one row."""
    live: list[PartRecord] = []
    rewritten = most = 0
    for n in range(commits):
        live.append(PartRecord(path=f"{n}", rows=1, bytes=1))
        run = compaction.plan(live)
        if run:
            rows = sum(part.rows for part in run)
            merged = PartRecord(path=f"m{n}", rows=rows, bytes=rows, level=compaction.level(run))
            rewritten += rows
            live = list(compaction.replaced(live, run, merged) or ())
        most = max(most, len(live))
    return most, rewritten / commits, max(part.level for part in live)


@pytest.mark.parametrize(("commits", "level"), [(2_145, 2), (20_000, 3)])
def test_parts_are_few_and_rows_are_rewritten_seldom(commits: int, level: int) -> None:
    """At most PARTS_MAX live parts at any time; a row is rewritten at most as often as the binomial bound says."""
    most, amplification, highest = _run(commits)
    assert most <= PARTS_MAX
    assert amplification <= level
    assert highest <= level


def test_a_plan_needs_a_reason() -> None:
    """Few parts are left alone; a finished experiment's are merged whatever their number, but one alone is not."""
    one = PartRecord(path="1", rows=1, bytes=1)
    assert compaction.plan([one] * (PARTS_MAX - 1)) is None
    assert compaction.plan([one], final=True) is None
    assert compaction.plan([one, one], final=True) == (one, one)
    assert compaction.plan([], final=True) is None


def _settled(live: list[PartRecord]) -> tuple[list[PartRecord], int]:
    """`live` as it rests when the experiment has ended, and the bytes that this wrote."""
    wrote = 0
    while run := compaction.plan(live, final=True):
        one = PartRecord(
            path=f"{run[0].path}+", rows=1, bytes=sum(part.bytes for part in run), level=compaction.level(run)
        )
        wrote += one.bytes
        live = list(compaction.replaced(live, run, one) or ())
    return live, wrote


def test_of_a_large_ended_experiment_only_the_small_parts_are_merged() -> None:
    """What was merged before and is large stays where it is: it is not written once more to be one file."""
    large = [PartRecord(path=f"large {n}", rows=1, bytes=64 * MIB, level=2) for n in range(15)]
    small = [PartRecord(path=f"small {n}", rows=1, bytes=MIB, level=n < 5) for n in range(40)]
    live, wrote = _settled([*large, *small])
    assert live[:15] == large
    assert len(live) == 16
    assert wrote == 40 * MIB
    live, wrote = _settled([PartRecord(path=f"{n}", rows=1, bytes=MIB) for n in range(7)])
    assert len(live) == 1, "7 MiB are nobody's burden, and one file is what people like best"


def test_an_experiment_that_ends_again_and_again_is_not_written_anew_each_time() -> None:
    """A job that is resumed a hundred times: few parts after each end, and no row is rewritten a hundred times."""
    live: list[PartRecord] = []
    written = 0
    for n in range(100):
        live, wrote = _settled([*live, *(PartRecord(path=f"{n} {m}", rows=1, bytes=5 * MIB) for m in range(5))])
        assert len(live) <= 16
        written += wrote
    assert sum(part.bytes for part in live) == 2_500 * MIB
    assert written < 8 * 2_500 * MIB


# -- In a chain ---------------------------------------------------------------------------------------------------------


def _filled(store: Store, commits: int = 5) -> tuple[Chain, Source]:
    chain, a = chain_of(store), Source()
    for n in range(commits):
        a.point("x", None, float(n)).point("y", -n, float("nan")).text("t", None, f"line {n}").image(
            "i", None, b"%d" % n
        )
        chain.commit([a.batch()], now_ns=NOW_NS)
    return chain, a


def test_a_small_finished_experiment_has_one_part_of_each_kind(files: Store) -> None:
    """Same rows, few files; what was merged is listed as dropped and stays for those who still read it."""
    chain, a = _filled(files)
    before = repr(points_of(chain)), frame_of(chain, "text").to_dict(), frame_of(chain, "image").to_dict()
    old = chain.head
    assert old is not None
    assert chain.compact(now_ns=NOW_NS, final=True)
    again = chain_of(files)
    assert [len(head_of(again).parts.of(kind)) for kind in ("numeric", "text", "image")] == [1, 1, 1]
    assert (repr(points_of(again)), frame_of(again, "text").to_dict(), frame_of(again, "image").to_dict()) == before
    assert len(head_of(again).dropped) == 15
    assert all(files.size(f"{FOLDER}/{path}") for path in head_of(again).dropped)
    assert again.document == chain.document == old.document
    assert not again.compact(now_ns=NOW_NS, final=True)
    assert again.commit([a.point("x", None, 9.0).batch()], now_ns=NOW_NS).document.channels.numeric["x"].count == 6
    assert head_of(again).dropped == ()


def test_parts_stay_below_their_limit(files: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that offers compaction after every commit never has more than PARTS_MAX parts, and loses no point."""
    monkeypatch.setattr(compaction, "PARTS_MAX", 5)
    chain, a = chain_of(files), Source()
    for n in range(40):
        chain.commit([a.point("x", None, float(n)).batch()], now_ns=NOW_NS)
        chain.compact(now_ns=NOW_NS)
        assert len(head_of(chain).parts.numeric) < 5
    assert [value for *_, value in points_of(chain_of(files))] == list(range(40))


def test_a_commit_during_a_merge_is_kept(files: Store) -> None:
    """Another writer's commit in between costs the merge a second try, and no point."""
    _, a = _filled(files)
    store = Meddler(files)
    chain = chain_of(store)
    store.meddle = lambda: chain_of(files).commit([a.point("x", None, 5.0).batch()], now_ns=NOW_NS)
    assert chain.compact(now_ns=NOW_NS, final=True)
    found = chain_of(files)
    assert [part.rows for part in head_of(found).parts.numeric] == [10, 1]
    assert [step for name, step, _, _ in points_of(found) if name == "x"] == list(range(6))


def test_of_two_merges_one_counts(files: Store) -> None:
    """Whoever finds its parts merged by another gives up and leaves nothing behind."""
    _filled(files)
    store = Meddler(files)
    chain = chain_of(store)
    store.meddle = lambda: chain_of(files).compact(now_ns=NOW_NS, final=True)
    assert not chain.compact(now_ns=NOW_NS, final=True)
    assert len(points_of(chain_of(files))) == 10
    assert len(files.names(f"{FOLDER}/channels")) == 6


def _sweep(store: Store) -> None:
    """Make the commit that a sweeper makes before it removes leftovers."""
    head = head_of(chain_of(store))
    swept = head.model_copy(update={"number": head.number + 1, "nonce": "0" * 32, "sweep": head.sweep + 1})
    store.create(f"{FOLDER}/commits/{swept.number:020d}.json", swept.encode())


def test_what_was_written_before_a_sweep_is_written_again(files: Store) -> None:
    """A part that no commit named when a sweep began may be removed by it: it is never committed under a later sweep."""
    _, a = _filled(files)
    store = Meddler(files)
    chain = chain_of(store)
    store.meddle = lambda: _sweep(files)
    assert not chain.compact(now_ns=NOW_NS, final=True)
    store.meddle = lambda: _sweep(files)
    chain.commit([a.point("x", None, 5.0).batch()], now_ns=NOW_NS)
    head = head_of(chain_of(files))
    assert (head.number, head.sweep) == (8, 2)
    assert head.parts.numeric[-1].path.startswith(f"channels/part-{8:020d}-")


def test_files_that_wait_survive_a_merge(files: Store) -> None:
    """Compaction changes parts and nothing else: pending files and watermarks are as before."""
    chain, a = _filled(files)
    chain.commit([a.artifact("m", spooled(0)).batch()], now_ns=NOW_NS)
    chain.compact(now_ns=NOW_NS, final=True)
    again = chain_of(files)
    assert again.pending(a.id, spooled(0)["file"]) is not None
    assert again.watermark(a.id) == a.position
