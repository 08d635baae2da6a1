"""How an export is read: names, steps and times, and journals that are the same whoever makes them."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.moving import journal
from headrace.moving.arrival import project_of, source_id
from headrace.moving.attachments import Attachments
from headrace.moving.contents import contents_of
from headrace.moving.export import Export
from headrace.moving.journal import RunJournal
from headrace.moving.meaning import artifact_name, clean, meaning_of, short_names
from headrace_proto.ids import is_id
from headrace_proto.limits import CHANNELS_MAX
from headrace_proto.names import artifact_path, channel_name, project_name
from headrace_proto.store.backend import open_store
from tests.exports import Exporter, metrics, point, single


@given(st.lists(st.decimals(min_value=-(10**12) + 1, max_value=10**12 - 1, places=6), min_size=1, max_size=50))
def test_a_step_is_the_nearest_float_to_its_decimal(steps: list[Decimal]) -> None:
    """As Python reads it: 0.3 is 0.3. Only above 9 billion, where six digits are more than a float has, the last one may differ."""
    column: Any = pa.chunked_array([pa.array(steps, pa.decimal128(18, 6))])
    found = journal._floats(column)
    for step, value in zip(steps, found.tolist(), strict=True):
        exact = float(step)
        assert value == exact or (abs(exact) > 9e9 and abs(value - exact) <= np.spacing(abs(exact)))


@pytest.mark.parametrize(
    "column",
    [
        pa.array([0.5, 2.0]),
        pa.array([Decimal("0.5"), Decimal(2)], pa.decimal128(10, 1)),
        pa.array([Decimal("0.5"), Decimal(2)], pa.decimal128(38, 6)),
    ],
)
def test_steps_of_other_types_are_read(column: Any) -> None:
    """Other releases may have them."""
    assert journal._floats(pa.chunked_array([column])).tolist() == [0.5, 2.0]


def test_a_namespace_is_left_away_where_that_is_no_other_name() -> None:
    """`parameters/lr` is `lr`, unless there is an `lr`."""
    given = ["parameters/lr", "parameters/depth", "depth", "parameters/", "other/lr"]
    assert short_names(given, "parameters/") == {
        "parameters/lr": "lr",
        "parameters/depth": "parameters/depth",
        "depth": "depth",
        "parameters/": "parameters/",
        "other/lr": "other/lr",
    }


@given(st.text(max_size=400))
def test_every_path_has_a_name_here(path: str) -> None:
    """Whatever stands in an export; and one that may be had is kept."""
    name = path.encode("utf-8", "replace").decode()
    channel_name(clean(name))
    artifact_path(artifact_name(name))
    assert artifact_name("a/b c/ü.txt") == "a/b c/ü.txt"


@given(st.text(max_size=200))
def test_every_project_has_a_name_here(project: str) -> None:
    """The same for ever."""
    assert project_name(project_of(project)) == project_of(project)
    assert project_of("acme/sandbox") == "acme/sandbox"


def journal_of(folder: Path) -> tuple[RunJournal, list[bytes]]:
    """The journal of the only run of an export, and its bytes by source."""
    export = Export(str(folder))
    [run] = export.runs
    contents = contents_of(run)
    made = RunJournal(run, contents, meaning_of(run, contents), Attachments(export.files, {}), {"note": 1})
    return made, [b"".join(piece.raw for piece in made.pieces(source)) for source in range(made.sources)]


def test_a_journal_is_the_same_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows are taken at a time."""
    exporter = Exporter(tmp_path)
    exporter.run(
        "a/b",
        "R-1",
        [single("lr", "float", 0.1), point("unnumbered", "float_series", None, 1.0)],
        metrics("a/b", "R-1", ["x", "y"], 100),
        [point("notes", "string_series", str(n), f"text {n}") for n in range(50)],
        [point("unnumbered", "float_series", None, 2.0)],
    )
    _, first = journal_of(tmp_path)
    monkeypatch.setattr(journal, "PIECE_EVENTS", 7)
    monkeypatch.setattr(journal, "PIECE_BYTES", 100)
    assert journal_of(tmp_path)[1] == first


def test_a_run_with_more_channels_than_a_source_may_have_has_several(tmp_path: Path) -> None:
    """None of its channels is lost."""
    from headrace.moving.arrival import import_run
    from headrace.reading import StoredExperiment

    names = [f"m/{number:05}" for number in range(CHANNELS_MAX + 5)]
    Exporter(tmp_path).run("a/b", "R-1", metrics("a/b", "R-1", names, 2))
    export, store = Export(str(tmp_path)), open_store(str(tmp_path / "store"))
    [run] = export.runs
    arrived = import_run(store, export, run)
    assert arrived.left_out == {}
    assert arrived.row is not None
    found = StoredExperiment(store, "a/b", arrived.row.experiment)
    assert sorted(channel.name for channel in found.channels) == names
    assert len(found.record.sources) == 2
    assert found.state == "succeeded"
    assert list(found.get_numeric_channels_values(names[-1])["x"]) == [0.0, 0.1]


def test_sources_have_ids_of_their_own() -> None:
    """Which follow from the experiment's."""
    ids = {source_id("a" * 32, number) for number in range(3)} | {source_id("b" * 32, 0)}
    assert len(ids) == 4
    assert all(map(is_id, ids))
