"""`headrace import neptune`: what neptune-exporter saved is there, all of it and once, whatever happened on the way."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from headrace.command.main import invoke
from headrace.reading import StoredExperiment, StoredProject
from headrace_proto.home import Home
from headrace_proto.ids import derived_id
from headrace_proto.store.backend import open_store
from tests.command.conftest import everything
from tests.exports import BEGAN, BEGAN_MS, Exporter, point, rows, single

PROJECT = "acme/sandbox"
Import = Callable[..., int]
Stored = Callable[..., StoredExperiment]


# -- What becomes of each type -------------------------------------------------------------------------------------------


def test_single_values_become_parameters_properties_and_facts(exporter: Exporter, load: Import, stored: Stored) -> None:
    """Each of its own type; what the old API called `lr` is called so again."""
    exporter.run(
        PROJECT,
        "SAN-7",
        [
            single("sys/id", "string", "SAN-7"),
            single("sys/name", "string", "baseline"),
            single("sys/description", "string", "the first"),
            single("sys/owner", "string", "ada"),
            single("sys/hostname", "string", "node-3"),
            single("sys/tags", "string_set", ["good", "two words"]),
            single("sys/creation_time", "datetime", BEGAN),
            single("sys/running_time", "float", 90.5),
            single("sys/state", "string", "Inactive"),
            single("sys/size", "float", 12.0),
            single("source_code/entrypoint", "string", "train.py"),
            single("parameters/lr", "float", 0.1),
            single("parameters/optimizer/beta", "float", math.inf),
            single("layers", "int", 3),
            single("amp", "bool", True),
            single("data/made", "datetime", BEGAN),
            single("data/classes", "string_set", ["b", "a"]),
            single("properties/author", "string", "Ada"),
            single("parameters/depth", "int", 1),
            single("depth", "int", 2),
        ],
    )
    assert load() == 0
    found = stored("SAN-7")
    assert found.id == "SAN-7"
    assert found.internal_id == derived_id(PROJECT, "SAN-7")
    assert (found.name, found.state, sorted(found.tags)) == ("baseline", "succeeded", ["good", "two words"])
    assert found.get_parameters() == {
        "lr": 0.1,
        "optimizer/beta": math.inf,
        "layers": 3,
        "amp": True,
        "data/made": BEGAN.isoformat(),
        "data/classes": ["a", "b"],
        "parameters/depth": 1,
        "depth": 2,
    }
    assert found.get_properties() == {"author": "Ada"}
    document = found.record
    assert (document.description, document.owner, document.hostname) == ("the first", "ada", "node-3")
    assert (document.key, document.entrypoint) == ("SAN-7", "train.py")
    assert document.created_at == BEGAN
    assert document.running_time is not None
    assert document.running_time.total_seconds() == 90.5
    assert document.facts["neptune"]["sys/size"] == 12.0
    assert document.facts["import"]["project_id"] == PROJECT


def test_float_series_keep_fractions_of_steps_and_times(exporter: Exporter, load: Import, stored: Stored) -> None:
    """To the last of six digits, in any order; NaN and infinities are values, no value is none."""
    given = [
        ("0.1", 1.5, 10),
        ("0.3", math.nan, 20),
        ("123456789.123457", -math.inf, 30),
        ("999999999999", 2.0, 40),
        ("-2.5", 3.0, None),
        ("7", None, 60),
    ]
    exporter.run(PROJECT, "SAN-1", [point("logs/loss", "float_series", *one) for one in given])
    assert load() == 1  # a point without a value was left out
    found = stored("SAN-1")
    table = found.get_numeric_channels_values("loss")
    expected = sorted((float(step), value) for step, value, _ in given if value is not None)
    assert [(x, str(y)) for x, y in table.itertuples(index=False)] == [(x, str(y)) for x, y in expected]
    points = found.get_channel("loss")
    times = dict(zip(points["step"], points["time"], strict=True))
    assert times[0.1] == pd.Timestamp(BEGAN_MS + 10, unit="ms", tz="UTC")


def test_texts_and_histograms_become_text_channels(exporter: Exporter, load: Import, stored: Stored) -> None:
    """A text of any length, whole; a histogram as JSON."""
    long = "x" * 200_000
    histogram = {"type": "COUNTING", "edges": [0.0, 0.5, 1.0], "values": [3.0, 4.0]}
    exporter.run(
        PROJECT,
        "SAN-1",
        [
            point("notes", "string_series", "0.5", "half"),
            point("notes", "string_series", "1", long),
            point("weights", "histogram_series", "1", histogram),
        ],
    )
    assert load() == 0
    found = stored("SAN-1")
    notes = found.get_channel("notes")
    assert list(zip(notes["step"], notes["value"], strict=True)) == [(0.5, "half"), (1.0, long)]
    [weights] = found.get_channel("weights")["value"]
    assert json.loads(weights) == histogram


def test_files_become_artifacts_sources_and_images(
    exporter: Exporter, load: Import, stored: Stored, tmp_path: Path
) -> None:
    """Small and large ones, folders, and series of images and of others; byte for byte."""
    large = os.urandom(300_000)
    names = {
        "model": ("file", exporter.file(PROJECT, "SAN-1", "model", large)),
        "artifacts/plot.html": ("file", exporter.file(PROJECT, "SAN-1", "artifacts/plot.html", b"<html>")),
        "source_code/files": ("file", exporter.file(PROJECT, "SAN-1", "source_code/files", b"PK zip")),
        "dataset": ("artifact", exporter.file(PROJECT, "SAN-1", "dataset/files_list.json", b"[]")),
        "what?#:": ("file", exporter.file(PROJECT, "SAN-1", "odd", b"odd")),
    }
    exporter.file(PROJECT, "SAN-1", "folder/a.txt", b"a")
    exporter.file(PROJECT, "SAN-1", "folder/sub/b.txt", b"b")
    names["folder"] = ("file_set", f"{PROJECT}/SAN-1/folder")
    images = [exporter.file(PROJECT, "SAN-1", f"seen/{n}.png", bytes([n]) * (n * 100_000 + 1)) for n in range(2)]
    other = exporter.file(PROJECT, "SAN-1", "dumps/1.5.bin", b"dump")
    exporter.run(
        PROJECT,
        "SAN-1",
        [single(path, kind, value) for path, (kind, value) in names.items()],
        [point("seen", "file_series", str(n), image, None) for n, image in enumerate(images)],
        [point("dumps", "file_series", "1.5", other, None)],
    )
    assert load() == 0
    found = stored("SAN-1")
    document = found.record
    artifacts = {name: record.state for name, record in document.artifacts.items()}
    assert artifacts == dict.fromkeys(
        [
            "model",
            "plot.html",
            "dataset",
            "what__:".replace(":", "_"),
            "folder/a.txt",
            "folder/sub/b.txt",
            "dumps/1.5.bin",
        ],
        "stored",
    )
    assert list(document.source_files) == ["files"]
    found.download_artifact("model", str(tmp_path))
    assert (tmp_path / "model").read_bytes() == large
    seen = [found.read_image("seen", float(n)) for n in range(2)]
    assert seen == [bytes([n]) * (n * 100_000 + 1) for n in range(2)]


def test_a_text_that_is_too_large_for_a_parameter_is_an_artifact(
    exporter: Exporter, load: Import, stored: Stored, tmp_path: Path
) -> None:
    """Nothing of it is lost."""
    text = "línea\n" * 5_000
    exporter.run(PROJECT, "SAN-1", [single("config/yaml", "string", text), single("lr", "float", 1.0)])
    assert load() == 0
    found = stored("SAN-1")
    assert found.get_parameters() == {"lr": 1.0}
    found.download_artifact("config/yaml.txt", str(tmp_path))
    assert (tmp_path / "yaml.txt").read_text() == text


@pytest.mark.parametrize(
    ("values", "state"),
    [
        ([("sys/failed", "bool", True), ("sys/state", "string", "Inactive")], "failed"),
        ([("sys/state", "string", "failed")], "failed"),
        ([("sys/state", "string", "Active")], "aborted"),
        ([("sys/failed", "bool", False)], "succeeded"),
        ([], "succeeded"),
    ],
)
def test_the_state_is_what_neptune_said(
    exporter: Exporter, load: Import, stored: Stored, values: list[tuple[str, str, Any]], state: str
) -> None:
    """Nothing of an export runs any more."""
    exporter.run(PROJECT, "SAN-1", [*(single(*one) for one in values), single("lr", "float", 1.0)])
    assert load() == 0
    assert stored("SAN-1").state == state


def test_secrets_of_an_export_are_masked(
    exporter: Exporter, load: Import, stored: Stored, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """By the same list as those of a program; how many were is said."""
    exporter.run(
        PROJECT,
        "SAN-1",
        [single("parameters/api_key", "string", "hunter-1"), single("properties/db", "string", "x://me:hunter-2@h/x")],
        [point("monitoring/0/stdout", "string_series", "1", "password=hunter-3")],
    )
    assert load() == 0
    assert stored("SAN-1").get_parameters() == {"api_key": "***"}
    assert "2 values that look like secrets" in capfd.readouterr().out
    assert not any(b"hunter" in data for data in everything(tmp_path / "store").values())


# -- What is not known, or not there -------------------------------------------------------------------------------------


def test_unknown_types_are_counted_told_and_left_out(
    exporter: Exporter, load: Import, stored: Stored, capfd: pytest.CaptureFixture[str]
) -> None:
    """And all the rest is imported; the experiment itself says what it lacks, also when the import is run again."""
    exporter.run(PROJECT, "SAN-1", [single("lr", "float", 1.0), *([single("x", "tensor_series", None)] * 3)])
    for _ in range(2):
        assert load() == 1
        assert "left out 3 rows of the type 'tensor_series'" in capfd.readouterr().out
    found = stored("SAN-1")
    assert found.get_parameters() == {"lr": 1.0}
    document = found.record
    assert document.facts["import"]["left_out"] == {"rows of the type 'tensor_series'": 3}


def test_files_that_are_not_there_or_outside_are_told(
    exporter: Exporter, load: Import, stored: Stored, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """No path and no link of an export leads out of its folder."""
    (tmp_path / "secret").write_text("secret")
    (exporter.files / "link").symlink_to(tmp_path / "secret")
    paths = [
        "gone",
        "../../secret",
        "../secret",
        str(tmp_path / "secret"),
        "link",
        exporter.file(PROJECT, "S", "a", b"a"),
    ]
    exporter.run(PROJECT, "SAN-1", [single(f"f{at}", "file", path) for at, path in enumerate(paths)])
    assert load() == 1
    told = capfd.readouterr().out
    assert "left out 1 files that are not in the export" in told
    assert "left out 4 files outside the export's folder" in told
    assert list(stored("SAN-1").record.artifacts) == ["f5"]


def test_an_export_with_files_and_no_folder_of_them_is_refused(
    exporter: Exporter, load: Import, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Before anything of the run is stored: where they are is one option away."""
    exporter.run(PROJECT, "SAN-1", [single("model", "file", exporter.file(PROJECT, "SAN-1", "model", b"m"))])
    elsewhere = tmp_path / "elsewhere"
    exporter.files.rename(elsewhere)
    assert load() == 2
    assert "--files" in capfd.readouterr().err
    assert load("--files", str(elsewhere)) == 0


def test_runs_that_were_not_exported_to_their_end_are_left_out(
    exporter: Exporter, load: Import, stored: Stored, capfd: pytest.CaptureFixture[str]
) -> None:
    """Part 0 is put in place last; and a part that is damaged costs its run only."""
    exporter.run(PROJECT, "SAN-1", [single("lr", "float", 1.0)])
    half = exporter.run(PROJECT, "SAN-2", [single("lr", "float", 1.0)], [single("x", "int", 1)], parts=2)
    half[0].unlink()
    [broken] = exporter.run(PROJECT, "SAN-3", [single("lr", "float", 1.0)])
    broken.write_bytes(broken.read_bytes()[:-20])
    assert load() == 1
    told = capfd.readouterr()
    assert "part 0 is missing" in told.err
    assert str(broken) in told.err
    assert "1 imported" in told.out
    assert stored("SAN-1").get_parameters() == {"lr": 1.0}


@pytest.mark.parametrize("path", ["nowhere", "empty"])
def test_a_folder_that_is_no_export_is_refused(
    load: Import, tmp_path: Path, path: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """With what was looked for."""
    (tmp_path / "empty").mkdir()
    assert invoke(["import", "neptune", str(tmp_path / path), "--store", str(tmp_path / "store")]) == 2
    assert "neptune-exporter" in capfd.readouterr().err
    assert not (tmp_path / "store" / PROJECT).exists()


# -- Ids and projects ----------------------------------------------------------------------------------------------------


def test_original_ids_are_kept_where_they_are_free(
    exporter: Exporter, load: Import, stored: Stored, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of Neptune 2, where the run id is one, and of Neptune 3, where `sys/id` is; another one is told."""
    exporter.run(PROJECT, "SAN-12", [single("sys/id", "string", "SAN-12")])
    exporter.run(PROJECT, "my own run", [single("sys/id", "string", "SAN-30")])
    exporter.run(PROJECT, "twin", [single("sys/id", "string", "SAN-12")])
    exporter.run(PROJECT, "nameless", [single("lr", "float", 1.0)])
    assert load() == 0
    ids = {row.experiment: row.id for row in StoredProject(open_store(str(tmp_path / "store")), PROJECT).rows()}
    assert ids[derived_id(PROJECT, "my own run")] == "SAN-30"
    twins = sorted([ids[derived_id(PROJECT, "SAN-12")], ids[derived_id(PROJECT, "twin")]])
    assert "SAN-12" in twins
    assert len(set(ids.values())) == 4
    assert f"SAN-12 is called {next(one for one in twins if one != 'SAN-12')} here" in capfd.readouterr().err


def test_an_experiment_goes_on_by_its_run_id(
    exporter: Exporter, load: Import, home: Home, tmp_path: Path, stored: Stored
) -> None:
    """The run id is its key."""
    import headrace as hr

    exporter.run(PROJECT, "my-run", [single("lr", "float", 1.0)], [point("loss", "float_series", "1", 0.5)])
    assert load() == 0
    project = hr.init(PROJECT, home=home.root, store=str(tmp_path / "store"), direct=True)
    with project.create_experiment(key="my-run", resume="must", upload_source_files=[], git_info=False) as experiment:
        experiment.log_metric("loss", 2, 0.25)
        same = experiment.internal_id
    assert list(stored(same).get_numeric_channels_values("loss")["loss"]) == [0.5, 0.25]
    before = everything(tmp_path / "store")
    assert load() == 0
    assert everything(tmp_path / "store") == before


def test_a_key_that_a_program_has_used_is_not_mixed_with_an_import(
    exporter: Exporter, load: Import, home: Home, tmp_path: Path, stored: Stored, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is left as it is, and that is said."""
    import headrace as hr

    project = hr.init(PROJECT, home=home.root, store=str(tmp_path / "store"), direct=True)
    with project.create_experiment(key="my-run", params={"mine": 1}, upload_source_files=[], git_info=False) as live:
        pass
    exporter.run(PROJECT, "my-run", [single("lr", "float", 1.0)])
    assert load() == 1
    assert "is no import" in capfd.readouterr().err
    assert stored(live.internal_id).get_parameters() == {"mine": 1}


def test_projects_and_runs_can_be_chosen_and_renamed(
    exporter: Exporter, load: Import, stored: Stored, capfd: pytest.CaptureFixture[str]
) -> None:
    """A name that no project may have becomes the nearest one; two runs never become one experiment."""
    for project in (PROJECT, "acme/my project!"):
        for run in ("a1", "b1"):
            exporter.run(project, run, [single("in", "string", f"{project} {run}")])
    assert load("--project", "*sand*", "--run", "a*", "--into", "new/home") == 0
    assert stored("HOM-1", "new/home").get_parameters() == {"in": f"{PROJECT} a1"}
    assert load("--into", "new/home") == 2
    assert "--into" in capfd.readouterr().err
    assert load() == 0
    renamed = stored(derived_id("acme/my-project", "b1"), "acme/my-project")
    assert renamed.get_parameters() == {"in": "acme/my project! b1"}


def test_older_exports_with_several_runs_in_a_part_are_read(exporter: Exporter, load: Import, stored: Stored) -> None:
    """Each row goes to its own run."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = [
        rows(PROJECT, f"SAN-{n}", [single("n", "int", n), point("loss", "float_series", "1", float(n))]) for n in (1, 2)
    ]
    exporter.data.mkdir()
    pq.write_table(pa.concat_tables(tables), exporter.data / "part_0.parquet")
    assert load() == 0
    for n in (1, 2):
        assert stored(f"SAN-{n}").get_parameters() == {"n": n}
        assert list(stored(f"SAN-{n}").get_numeric_channels_values("loss")["loss"]) == [float(n)]


def test_what_it_says_can_be_read_by_machines(
    exporter: Exporter, load: Import, capfd: pytest.CaptureFixture[str]
) -> None:
    """Counts of runs, of what was left out, and the problems one by one."""
    exporter.run(PROJECT, "SAN-1", [single("lr", "float", 0.1), single("odd", "odd", None)])
    assert load("--json") == 1
    told = json.loads(capfd.readouterr().out)
    assert told["runs"] == {"imported": 1}
    assert told["left_out"] == {"rows of the type 'odd'": 1}
    assert told["problems"] == []
