"""`headrace import neptune`, run again, killed, and run twice at once: what is stored is stored once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.command.main import invoke
from headrace.reading import StoredExperiment, StoredProject
from headrace_proto.home import Home
from headrace_proto.store.backend import open_store
from headrace_proto.store.verification import verify
from tests.command.conftest import COMMAND, everything
from tests.exports import BEGAN, Exporter, metrics, point, single
from tests.waiting import wait_until

PROJECT = "acme/sandbox"
Import = Callable[..., int]
Stored = Callable[..., StoredExperiment]
SLOW = (
    "import sys\nfrom headrace.moving import arrival\nfrom headrace.command import import_\n"
    "from headrace.command.main import main\narrival.COMMIT_BYTES, import_.TELL_S = 300_000, 0.0\nmain()\n"
)
"""The command, with many small commits and a line of progress at each."""


def some_runs(exporter: Exporter, count: int = 3, steps: int = 20_000) -> None:
    """Runs with all kinds of things, two parts each."""
    for number in range(1, count + 1):
        run = f"SAN-{number}"
        image = exporter.file(PROJECT, run, "seen/1.png", os.urandom(100_000))
        exporter.run(
            PROJECT,
            run,
            [single("sys/creation_time", "datetime", BEGAN), single("lr", "float", 0.1), single("odd", "odd", None)],
            metrics(PROJECT, run, ["a", "b"], steps, number),
            [point("notes", "string_series", str(n), f"{run} {n}" * 50) for n in range(300)],
            [point("seen", "file_series", "1", image, None)],
            metrics(PROJECT, run, ["c"], steps, number + 100),
            [single("model", "file", exporter.file(PROJECT, run, "model", os.urandom(150_000)))],
            parts=2,
        )


def test_an_import_that_is_run_again_changes_nothing(
    exporter: Exporter, load: Import, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not one byte of the store."""
    some_runs(exporter)
    load()
    before = everything(tmp_path / "store")
    load()
    assert "3 already there" in capfd.readouterr().out
    assert everything(tmp_path / "store") == before


def test_an_export_that_has_changed_is_not_mixed_with_what_is_there(
    exporter: Exporter, load: Import, stored: Stored, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is left out, and that is said."""
    exporter.run(PROJECT, "SAN-1", [single("lr", "float", 1.0)])
    assert load() == 0
    exporter.run(PROJECT, "SAN-1", [single("lr", "float", 2.0)])
    assert load() == 1
    assert "another state of this export" in capfd.readouterr().err
    assert stored("SAN-1").get_parameters() == {"lr": 1.0}


@pytest.mark.parametrize("commits", [2, 5])
def test_an_import_that_is_killed_goes_on_where_it_was(
    exporter: Exporter, home: Home, tmp_path: Path, commits: int
) -> None:
    """kill -9 after some commits, as often as it takes: in the end it is the store of an import that nothing disturbed."""
    some_runs(exporter, count=2)

    def start(store: Path) -> subprocess.Popen[bytes]:
        arguments = ["import", "neptune", str(exporter.folder), "--store", str(store)]
        return subprocess.Popen(
            [sys.executable, "-c", SLOW, *arguments],
            env={**os.environ, "HEADRACE_HOME": home.root},
            stdout=subprocess.DEVNULL,
        )

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    start(whole).wait()
    kills = 0
    while (process := _until_commits(start(killed), killed, commits)).poll() is None:
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    assert process.returncode == 1  # rows of a type that nobody knows
    assert kills >= 2
    assert digests(killed) == digests(whole)
    assert invoke(["fsck", str(killed), "--digests"]) == 0


def _until_commits(process: subprocess.Popen[bytes], store: Path, commits: int) -> subprocess.Popen[bytes]:
    """The process, once there are so many commits more in the store, or it has ended."""

    def committed() -> int:
        return sum(1 for _ in store.rglob("commits/*.json"))

    goal = committed() + commits
    wait_until(lambda: process.poll() is not None or committed() >= goal, "it has committed, or ended")
    return process


def digests(store: Path | str) -> dict[str, Any]:
    """The content of each experiment of a store, each of them complete."""
    opened = open_store(str(store))
    proofs = {row.id: verify(opened, PROJECT, row.experiment) for row in StoredProject(opened, PROJECT).rows()}
    assert {proof.verdict for proof in proofs.values()} == {"complete"}
    return {found: (proof.experiment, proof.digest, proof.points, proof.files) for found, proof in proofs.items()}


def test_two_imports_at_once_store_everything_once(exporter: Exporter, home: Home, tmp_path: Path) -> None:
    """Each goes on from what the other has committed."""
    some_runs(exporter, steps=5_000)
    command = [*COMMAND, "import", "neptune", str(exporter.folder), "--store"]
    environment = {**os.environ, "HEADRACE_HOME": home.root}
    for store, times in (("alone", 1), ("together", 2)):
        imports = [
            subprocess.Popen([*command, str(tmp_path / store)], env=environment, stdout=subprocess.DEVNULL)
            for _ in range(times)
        ]
        assert [one.wait() for one in imports] == [1] * times  # the rows of an unknown type
    assert digests(tmp_path / "together") == digests(tmp_path / "alone")


def test_ctrl_c_says_how_to_go_on(exporter: Exporter, home: Home, tmp_path: Path) -> None:
    """And the next import goes on, as after a kill; what was stored is in lists already."""
    some_runs(exporter, count=4)
    command = [
        sys.executable,
        "-c",
        SLOW,
        "import",
        "neptune",
        str(exporter.folder),
        "--store",
        str(tmp_path / "store"),
    ]
    process = subprocess.Popen(
        command, env={**os.environ, "HEADRACE_HOME": home.root}, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    begun = tmp_path / "store" / PROJECT / "experiments"
    wait_until(lambda: len(list(begun.glob("*"))) > 1, "the first run is done, and others have begun")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130
    assert b"run it again" in said
    assert b"runs, " in said  # progress, without a terminal
    assert StoredProject(open_store(str(tmp_path / "store")), PROJECT).rows()
    assert invoke(["import", "neptune", str(exporter.folder), "--store", str(tmp_path / "store")]) == 1
    assert len(digests(tmp_path / "store")) == 4


def test_an_import_into_a_bucket_is_the_same(
    exporter: Exporter, home: Home, tmp_path: Path, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the same chain of commits; and there, too, nothing is stored twice."""
    monkeypatch.setenv("HEADRACE_HOME", home.root)
    some_runs(exporter, count=2, steps=1_000)
    for store in (s3_url, s3_url, str(tmp_path / "store")):
        assert invoke(["import", "neptune", str(exporter.folder), "--store", store]) == 1
    assert digests(s3_url) == digests(tmp_path / "store")
