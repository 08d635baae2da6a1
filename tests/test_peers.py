"""The bench beside the peers measures what it says, shown with the two that need nothing installed: Headrace and json lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.peers.bench import COLUMNS, KILLS, Bench, Sizes, takes_part
from tests.benchmarks.peers.peer import Series
from tests.benchmarks.peers.process import Failed
from tests.benchmarks.peers.registry import PEERS, peer_class
from tests.benchmarks.peers.report import reached, report
from tests.benchmarks.peers.results import Results
from tests.benchmarks.peers.workload import value

SIZES = Sizes(scalars=300, rows=20, points=500, trials=16, slow_s=1.0)
INSTALLED = [name for name in PEERS if peer_class(name).of_product]
LEFT_OUT = {("headrace-stored", "rows"), ("headrace", "kill-100"), ("headrace", "kill-1"), ("json-lines", "kill-1")}
"""The same code again, and seconds of the suite."""
CASES = [
    pytest.param(name, column, id=f"{name}, {column}")
    for name in INSTALLED
    for column in COLUMNS
    if takes_part(name, column) and (name, column) not in LEFT_OUT
]


def cases(*, kills: bool) -> pytest.MarkDecorator:
    wanted = [case for case in CASES if (case.values[1] in KILLS) == kills]
    return pytest.mark.parametrize(("name", "column"), wanted)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "bench", SIZES)


def prepared(bench: Bench, name: str, column: str) -> None:
    if column == "read":
        bench.fill(name)
    if column == "find":
        bench.populate(name)


@cases(kills=False)
def test_each_column_is_measured(bench: Bench, name: str, column: str) -> None:
    """Every figure of a column is there, in a process of its own, and the work was really done."""
    prepared(bench, name, column)
    figures = bench.measure(name, column)
    assert all(value >= 0 for key, value in figures.items() if key != "first_s"), figures
    if column in ("scalars", "rows"):
        assert figures["calls"] == getattr(SIZES, column)
        assert 0 < figures["p50_us"] <= figures["p99_us"] <= figures["p999_us"] <= figures["max_us"]
        assert figures["cpu_s"] > 0
        assert figures["rss_mib"] > 1
        assert figures["disk_bytes"] > 0


@cases(kills=True)
def test_nothing_is_lost_by_those_who_lose_nothing(bench: Bench, name: str, column: str) -> None:
    """Both write before a call returns, so SIGKILL in the middle of logging costs neither a single event, and the bench sees it."""
    figures = bench.measure(name, column)
    assert figures["returned"] >= 1
    assert (figures["lost"], figures["wrong"]) == (0, 0)


def test_what_is_lost_is_noticed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that is not there afterwards is counted as lost, and one that has another value as wrong."""
    right = value(1)
    monkeypatch.setattr("tests.benchmarks.peers.bench._series", lambda path: Series([0.0, 1.0], [-1.0, right]))
    figures = bench.measure("json-lines", "kill-full")
    assert (figures["lost"], figures["wrong"]) == (figures["returned"] - 2, 1)


def test_a_reader_that_gives_less_is_refused(bench: Bench) -> None:
    """Reading is timed only where all of the series comes back."""
    Bench(bench.folder, SIZES._replace(points=499)).fill("json-lines")
    with pytest.raises(Failed, match="499 of 500"):
        bench.read("json-lines")


def test_a_program_that_fails_is_told_with_what_it_printed(bench: Bench) -> None:
    """A failure names the peer and shows the end of its output."""
    with pytest.raises(Failed, match=r"json-lines: read[\s\S]*FileNotFoundError"):
        bench.read("json-lines")


def test_the_report_has_every_bar_and_every_peer(tmp_path: Path) -> None:
    """The page shows each peer that was measured, the ratios of the bars, and where a peer is better."""
    results = Results()
    results.begin(["headrace", "json-lines"], COLUMNS, tmp_path, "2026-11-21", SIZES)
    for name, p50_us, p99_us in (("headrace", 0.5, 3.0), ("json-lines", 3.0, 2.0)):
        calls = dict.fromkeys(
            ("calls", "events", "durable_s", "cpu_s", "rss_mib", "disk_bytes", "p999_us", "max_us"), 7.0
        )
        results.add(name, "scalars", {**calls, "p50_us": p50_us, "p99_us": p99_us})
        results.add(name, "kill-1", {"returned": 12, "lost": 0 if name == "headrace" else 1, "wrong": 0})
    kept = tmp_path / "kept.json"
    results.save(kept)
    again = Results.load(kept)
    page = report(again)
    assert [(row.measured, row.met) for row in reached(again)] == [("6", True), ("0 of 12", True)]
    assert "| scalars: p99, µs | **headrace** 3 | json-lines 2 |" in page
    assert "| json-lines | - | - | - | - | 1 of 12 | 8.33 % |" in page
