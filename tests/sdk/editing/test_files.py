"""Artifacts of a stored experiment: added, replaced and deleted, whole or with an error."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest

import headrace as hr
from headrace.editing import files as editing_files
from headrace.errors import ArtifactNotFound, Corrupt, InvalidName, InvalidValue, TelemetryWarning
from headrace.reading import StoredExperiment
from headrace_proto.limits import INLINE_BYTES_MAX
from tests.sdk.reading.stored import Stored
from tests.stores import head_of

LARGE = os.urandom(3 * INLINE_BYTES_MAX + 17)


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def content(experiment: StoredExperiment, path: str) -> bytes:
    """An artifact's bytes, as they are downloaded."""
    return Path(experiment.download_artifact(path, "downloads")).read_bytes()


def test_files_folders_and_buffers_are_stored(experiment: StoredExperiment) -> None:
    """Small and large ones, when the call returns; links that lead out of a folder are not."""
    Path("run/sub").mkdir(parents=True)
    Path("run/a.txt").write_text("a")
    Path("run/sub/b.bin").write_bytes(LARGE)
    Path("secret").write_text("s")
    os.symlink("../secret", "run/out")
    with pytest.warns(TelemetryWarning, match="leads out"):
        experiment.log_artifact("run", "logs/run")
    experiment.send_artifact("run/sub/b.bin")
    experiment.log_artifact(io.BytesIO(LARGE[1:]), "stream.bin")
    experiment.log_artifact(io.StringIO("grün"), "text.txt")
    with open("run/sub/b.bin", "rb") as file:
        file.seek(10)
        experiment.log_artifact(file, "rest.bin")
    assert content(experiment, "logs/run/a.txt") == b"a"
    assert content(experiment, "logs/run/sub/b.bin") == content(experiment, "b.bin") == LARGE
    assert content(experiment, "stream.bin") == LARGE[1:]
    assert content(experiment, "rest.bin") == LARGE[10:]
    assert content(experiment, "text.txt") == "grün".encode()
    assert all(record.state == "stored" for record in experiment.artifacts.values())
    assert not head_of(experiment._writing.chain).pending


def test_an_artifact_is_replaced(experiment: StoredExperiment) -> None:
    """By the same path: small by large, large by small."""
    for data in (LARGE, b"small", LARGE[5:]):
        experiment.log_artifact(io.BytesIO(data), "model.bin")
        assert content(experiment, "model.bin") == data


def test_artifacts_are_deleted(experiment: StoredExperiment) -> None:
    """Files and folders, one or several; a path that is not there is an error, and then nothing is deleted."""
    for name in ("folder/a", "folder/deep/b", "folder2"):
        experiment.log_artifact(io.BytesIO(b"x"), name)
    with pytest.raises(ArtifactNotFound, match=r"no file 'other'; there is: folder/a"):
        experiment.delete_artifacts(["folder2", "other"])
    experiment.delete_artifacts(["model.bin", "folder/"])
    assert list(experiment.artifacts) == ["folder2"]
    wrongs: tuple[Any, ...] = ("", "/", "..", "../a", [3])
    for wrong in wrongs:
        with pytest.raises(InvalidName):
            experiment.delete_artifacts(wrong)
    with pytest.raises(InvalidValue, match="None"):
        experiment.delete_artifacts(None)  # type: ignore[arg-type]
    assert list(experiment.artifacts) == ["folder2"]


@pytest.mark.parametrize(
    ("artifact", "destination", "error"),
    [
        ("nowhere.bin", None, ArtifactNotFound),
        (3, "a.bin", InvalidValue),
        (None, None, InvalidValue),
        ("/dev/zero", "a.bin", InvalidValue),
        (io.BytesIO(b"a"), None, InvalidName),
        (io.BytesIO(b"a"), "../up", InvalidName),
        (io.BytesIO(b"a"), "/etc/passwd", InvalidName),
        (__file__, "a/../b", InvalidName),
        (__file__, "", InvalidName),
    ],
    ids=lambda given: repr(given)[:24],
)
def test_what_is_no_file_is_refused(
    experiment: StoredExperiment, stored: Stored, artifact: Any, destination: str | None, error: type[Exception]
) -> None:
    """By the errors of a live experiment."""
    number = stored.chain.load().number
    with pytest.raises(error):
        experiment.log_artifact(artifact, destination)
    assert stored.chain.load().number == number
    assert list(experiment.artifacts) == ["model.bin"]


def test_a_file_is_no_folder(experiment: StoredExperiment) -> None:
    """What the store itself cannot take is refused at the call; what was said beside it is stored."""
    with pytest.raises(InvalidValue, match="is a file and a folder at once"):
        experiment.log_artifact(io.BytesIO(b"a"), "model.bin/inside")
    assert list(experiment.artifacts) == ["model.bin"]


def test_a_file_that_changes_meanwhile_is_refused(
    experiment: StoredExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the digest and the upload somebody rewrote it: the call says so, the document too, and logging it again mends it."""
    Path("model.pt").write_bytes(LARGE)
    digest = editing_files._digest

    def slow(blocks: Any) -> Any:
        held = digest(blocks)
        Path("model.pt").write_bytes(LARGE[1:] + b"x")
        return held

    monkeypatch.setattr(editing_files, "_digest", slow)
    with pytest.raises(Corrupt, match=r"'model\.pt': its digest is .* Log it again"):
        experiment.log_artifact("model.pt")
    assert experiment.artifacts["model.pt"].state == "changed"
    monkeypatch.setattr(editing_files, "_digest", digest)
    experiment.log_artifact("model.pt")
    assert content(experiment, "model.pt") == LARGE[1:] + b"x"


def test_a_curator_who_dies_in_between_is_no_harm(
    experiment: StoredExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The artifact is shown as pending, and is there when it is logged again."""

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(StoredExperiment, "_put", die)
        with pytest.raises(KeyboardInterrupt):
            experiment.log_artifact(io.BytesIO(LARGE), "big.bin")
    experiment.refresh()
    assert experiment.artifacts["big.bin"].state == "pending"
    experiment.log_artifact(io.BytesIO(LARGE), "big.bin")
    assert content(experiment, "big.bin") == LARGE
    assert not head_of(experiment._writing.chain).pending


def test_a_live_journal_is_never_opened(experiment: StoredExperiment, home: Any) -> None:
    """Not by way of another experiment either: closing its lock would free it."""
    with hr.init("vision/digits", home=home.root).create_experiment(upload_source_files=[], git_info=False) as live:
        lock = os.path.join(home.journal(live.source), "lock")
        with pytest.raises(InvalidValue, match="part of a journal"):
            experiment.log_artifact(lock, "lock")
        experiment.log_artifact(home.root, "home")
    assert list(experiment.artifacts) == ["model.bin"]
