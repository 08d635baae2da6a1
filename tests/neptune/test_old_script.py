"""An old script, unchanged, in a process of its own against a real broker, agent and collector; all that it logged is read back."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headrace.reading import StoredExperiment, StoredProject
from headrace.reading.experiment import Channel
from tests.path.stack import Stack
from tests.waiting import wait_until

SCRIPT = Path(__file__).parent / "old_script.py"
PROJECT = "jack/sandbox"
EPOCHS, DONE_S = 12, 100.0


def with_the_import_changed(script: str) -> str:
    """The one line that differs, and the same for what is imported out of the package."""
    changed = re.sub(r"^import neptune$", "import headrace.neptune as neptune", script, flags=re.MULTILINE)
    return re.sub(r"^from neptune\b", "from headrace.neptune", changed, flags=re.MULTILINE)


@dataclass
class Ran:
    """The script, once it has ended."""

    folder: Path
    store: Path
    output: str
    errors: str
    report: dict[str, Any]

    def experiment(self, name: str) -> StoredExperiment:
        return StoredProject(str(self.store), PROJECT).get_experiment(
            next(row.id for row in StoredProject(str(self.store), PROJECT).rows() if row.name == name)
        )


def run(folder: Path, command: list[str], text: str) -> Ran:
    """Run the script to its end; somebody aborts its third experiment."""
    work = folder / "work"
    (work / "config").mkdir(parents=True)
    (work / "train.py").write_text(text)
    (work / "helpers.py").write_text("# part of the sources")
    (work / "config" / "model.json").write_text("{}")
    with Stack(folder) as stack:
        stack.start()
        output, errors = folder / "out", folder / "err"
        with output.open("wb") as out, errors.open("wb") as err:
            environment = {**stack.environment, "OLD_PROJECT": PROJECT, "HEADRACE_READ_S": "60"}
            process = subprocess.Popen([*command, "train.py"], cwd=work, env=environment, stdout=out, stderr=err)
        try:
            project = StoredProject(stack.store_url, PROJECT)

            def endless() -> str | None:
                assert process.poll() is None, errors.read_text()[-3000:]
                return next((row.id for row in project.rows() if row.name == "endless" and row.metrics), None)

            experiment = wait_until(endless, "the third experiment logs", DONE_S)
            abort = [sys.executable, "-m", "headrace.command", "abort", experiment, "--reason", "seen enough", "--nats"]
            said = subprocess.run(
                [*abort, stack.url], env=stack.environment, timeout=60, check=False, capture_output=True, text=True
            )
            assert said.returncode == 0, said.stdout + said.stderr
            assert process.wait(DONE_S) == 0, errors.read_text()[-3000:]
        finally:
            process.kill()
            process.wait()
        stack.wait_drained()
        return Ran(
            work, stack.store, output.read_text(), errors.read_text(), json.loads((work / "report.json").read_text())
        )


def test_only_its_imports_were_changed() -> None:
    """What the acceptance rests on: a script of a hundred lines and more, of which five differ, all of them imports."""
    old, new = SCRIPT.read_text().splitlines(), with_the_import_changed(SCRIPT.read_text()).splitlines()
    changed = [before for before, after in zip(old, new, strict=True) if before != after]
    assert len(old) >= 100
    assert len(changed) == 5
    assert all(re.match("(from|import) neptune", line) for line in changed)


def test_every_documented_name_is_used() -> None:
    """The script calls everything that the two references name."""
    text = SCRIPT.read_text()
    names = """get_members get_experiments get_leaderboard create_experiment create_notebook get_notebook full_id id name state
        internal_id limits get_system_properties get_tags append_tag append_tags remove_tag get_channels get_logs send_metric
        log_metric send_text log_text send_image log_image send_artifact log_artifact delete_artifacts download_artifact
        download_sources download_artifacts reset_log get_parameters get_properties set_property remove_property
        get_hardware_utilization get_numeric_channels_values stop get_projects init set_project get_experiment"""
    assert [name for name in names.split() if f".{name}" not in text] == []
    arguments = """name description params properties tags upload_source_files abort_callback logger upload_stdout upload_stderr
        send_hardware_metrics run_monitoring_thread handle_uncaught_exceptions git_info hostname notebook_id notebook_path"""
    assert [name for name in arguments.split() if f"{name}=" not in text] == []


def check_facts(ran: Ran) -> None:
    """Name, description, state, parameters, properties, tags: as the script left them, and as it changed them once stopped."""
    found = ran.experiment("softmax")
    assert (found.name, found.description, found.state, found.hostname) == (
        *("softmax", "softmax regression on 8x8 digits", "succeeded", "old-node"),
    )
    assert found.params == {
        "lr": 0.5,
        "epochs": 12,
        "batch_size": 128,
        "shuffle": True,
        "optimizer": "sgd",
        "layers": [64, 10],
    }
    accuracy = str(ran.report["accuracy"])
    assert found.properties == {"data": "digits", "version": "2", "accuracy": accuracy, "chosen": "True"}
    assert set(found.tags) == {"digits", "baseline", "finished", "b", "c", "d", "best"}
    assert found.record.git["message"] == "by hand"
    assert found.record.git["remote"] == "https://example.org/digits.git"
    assert found.record.facts["notebook_path"] == "digits.ipynb"
    assert (found.id, found.internal_id) == (ran.report["id"], ran.report["internal_id"])
    assert ran.report["ids"]["softmax"] == found.id
    assert len(ran.report["system"]) == 13


def check_every_point(ran: Ran) -> None:
    """Each metric that the training logged is there once, in order; what was not finite is not."""
    found = ran.experiment("softmax")
    channels: dict[str, Channel] = {channel.name: channel for channel in found.channels}
    losses = found.get_channel("batch/loss")
    assert losses["step"].tolist() == list(range(ran.report["steps"])) == list(range(EPOCHS * 11))
    assert losses["value"].iloc[0] == pytest.approx(np.log(10))
    assert losses["value"].iloc[-1] == ran.report["loss"]
    assert found.get_channel("epoch/loss")["step"].tolist() == list(range(EPOCHS))
    assert channels["epoch/accuracy"].y == channels["test/accuracy"].y == ran.report["accuracy"] > 0.8
    assert found.get_channel("scratch")[["step", "value"]].to_numpy().tolist() == [[5, 2.0]]
    assert "NaN and infinities are dropped" in ran.errors


def check_every_text(ran: Ran) -> None:
    """Texts of the program, of its logger, and what it printed."""
    found = ran.experiment("softmax")
    summary = found.get_channel("epoch/summary")["value"].tolist()
    assert len(summary) == EPOCHS + 1
    assert summary[0].startswith("epoch 0: accuracy 0.")
    assert summary[-1] == "no epoch at all"
    steps = ran.report["steps"]
    assert found.get_channel("notes")["value"].tolist() == [
        f"trained for {steps} steps",
        *("and tested", "that is all", "looked at again"),
    ]
    assert found.get_channel("logger")["value"].str.contains("epoch 11 done").any()
    printed = found.get_channel("stdout", duplicates="all")["value"].tolist()
    assert [line for line in printed if line.startswith("epoch")] == [
        line for line in ran.output.splitlines() if line.startswith("epoch")
    ]


def check_every_image(ran: Ran) -> None:
    """Figures, arrays of every shape, pictures and files, with names and descriptions."""
    found = ran.experiment("softmax")
    figures = found.get_channel("per class")
    assert figures["step"].tolist() == [0, 4, 8]
    assert figures["name"].tolist() == ["epoch 0", "epoch 4", "epoch 8"]
    assert set(figures["description"]) == {"accuracy of each digit"}
    assert len(found.get_channel("misread")) == 4
    samples = found.get_channel("samples")
    assert samples["step"].tolist() == [0, 1, 7, 8, 9]
    modes = [Image.open(BytesIO(found.read_image("samples", step))).mode for step in samples["step"]]
    assert modes == ["L", "L", "RGB", "RGBA", "L"]


def check_every_file(ran: Ran) -> None:
    """Artifacts and sources, without what was deleted; and what was downloaded is what was logged."""
    found = ran.experiment("softmax")
    assert set(found.artifacts) == {
        *("weights.npy", "models/softmax.npy", "models/best.npy", "plots/first.png", "tables/accuracy.csv"),
    }
    assert set(found.source_files) == {"train.py", "helpers.py", "config/model.json"}
    assert f"{found.id}-sources.zip" in ran.report["downloads"]
    with zipfile.ZipFile(ran.folder / "downloads" / "config.zip") as archive:
        assert archive.namelist() == ["config/model.json"]
    with zipfile.ZipFile(ran.folder / "downloads" / "models.zip") as archive:
        assert sorted(archive.namelist()) == ["models/best.npy", "models/large.bin", "models/softmax.npy"]
        assert archive.read("models/best.npy") == (ran.folder / "weights.npy").read_bytes()


def check_every_end(ran: Ran) -> None:
    """A success, a failure with its traceback, an experiment within another, and one that was aborted from outside."""
    failed = ran.experiment("diverges")
    assert failed.state == "failed"
    assert "OverflowError: loss is too large" in str(failed.record.traceback)
    inner, outer, endless = ran.experiment("inner"), ran.experiment("outer"), ran.experiment("endless")
    assert (inner.state, inner.record.traceback, inner.metrics) == ("failed", "given up", {"depth": 2.0})
    assert (outer.state, outer.metrics) == ("succeeded", {"depth": 1.0})
    assert endless.state == "aborted"
    assert "beat" in endless.metrics


RUNS: dict[str, tuple[list[str], Callable[[str], str]]] = {
    "with its imports changed": ([], with_the_import_changed),
    "unchanged, under python -m headrace.neptune": (["-m", "headrace.neptune"], str),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", RUNS)
def test_an_old_script_runs_and_all_that_it_logged_is_read_back(how: str, tmp_path: Path) -> None:
    """By its changed imports, and as it stands."""
    flags, changed = RUNS[how]
    ran = run(tmp_path, [sys.executable, *flags], changed(SCRIPT.read_text()))
    assert f"best: softmax {ran.report['id']}" in ran.output
    for check in (
        check_facts,
        check_every_point,
        check_every_text,
        check_every_image,
        check_every_file,
        check_every_end,
    ):
        check(ran)
