"""Files come out of a store as they went in, into the folder asked for and nowhere else."""

from __future__ import annotations

import os
import sys
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from headrace.reading import StoredExperiment, progress
from headrace.reading.downloads import download_archive, download_file
from headrace_proto.errors import ArtifactNotFound, Corrupt, InvalidName, InvalidValue, NotAFolder
from headrace_proto.limits import INLINE_ARTIFACTS_MAX
from headrace_proto.store import layout
from headrace_proto.store.documents import FileRecord
from headrace_proto.store.times import at_us
from tests.sdk.reading.stored import PROJECT, Stored

if TYPE_CHECKING:
    from headrace_proto.store.backend import Store


@pytest.fixture
def experiment(files: Store) -> StoredExperiment:
    """An experiment with a few artifacts and a source file."""
    stored = Stored(files)
    for path, data in (("model.bin", b"weights"), ("plots/a.png", b"a"), ("plots/deep/b.png", b"b"), ("plotsx", b"x")):
        stored.owner.artifact(path, data)
    stored.owner.artifact("train.py", b"print()", kind="source")
    stored.commit()
    return StoredExperiment(files, PROJECT, stored.id)


def test_artifacts_are_listed(experiment: StoredExperiment) -> None:
    """Every artifact stands under its path with size and digest; sources stand apart."""
    assert list(experiment.artifacts) == ["model.bin", "plots/a.png", "plots/deep/b.png", "plotsx"]
    assert experiment.artifacts["model.bin"].sha256 == sha256(b"weights").hexdigest()
    assert list(experiment.source_files) == ["train.py"]


def test_a_file_is_written_under_its_own_name(
    experiment: StoredExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is written under its own name into the folder, which is made if need be, or into the working folder."""
    target = experiment.download_artifact("plots/deep/b.png", str(tmp_path / "new" / "folder"))
    assert target == str(tmp_path / "new" / "folder" / "b.png")
    assert Path(target).read_bytes() == b"b"
    monkeypatch.chdir(tmp_path)
    assert experiment.download_artifact("model.bin") == str(tmp_path / "model.bin")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "store") == ["model.bin", "new"]


def test_folders_come_as_archives_of_neptunes_names(experiment: StoredExperiment, tmp_path: Path) -> None:
    """A folder, a single file, or everything comes as a ZIP archive with Neptune's name, paths as they were logged."""

    def members(archive: str) -> dict[str, bytes]:
        with zipfile.ZipFile(archive) as opened:
            return {name: opened.read(name) for name in opened.namelist()}

    folder = experiment.download_artifacts("plots", str(tmp_path))
    assert folder == str(tmp_path / "plots.zip")
    assert members(folder) == {"plots/a.png": b"a", "plots/deep/b.png": b"b"}
    assert members(experiment.download_artifacts("model.bin", str(tmp_path))) == {"model.bin": b"weights"}
    everything = experiment.download_artifacts(None, str(tmp_path))
    assert everything == str(tmp_path / "DIG-1-artifacts.zip")
    assert len(members(everything)) == 4
    assert members(experiment.download_sources(destination_dir=str(tmp_path))) == {"train.py": b"print()"}


def test_what_is_not_there(experiment: StoredExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing path is an error that shows what is there; a destination that is a file is one, too."""
    for call in (experiment.download_artifact, experiment.download_artifacts, experiment.download_sources):
        with pytest.raises(ArtifactNotFound, match="plot"):
            call("plot", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"model\.bin"):
        experiment.download_artifact("plots", str(tmp_path))
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to("nowhere")
    for wrong in ("file", "file/below", "link"):
        for call in (experiment.download_artifact, experiment.download_artifacts):
            with pytest.raises(NotAFolder, match=f"{wrong}' is no folder"):
                call("model.bin", str(tmp_path / wrong))
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(NotAFolder, match="the current folder was deleted"):
        experiment.download_artifact("model.bin")


def test_a_file_on_its_way(files: Store, tmp_path: Path) -> None:
    """An artifact whose bytes are not stored yet is listed as pending, and its download says what to do."""
    stored = Stored(files)
    stored.owner.artifact("big.bin", {"file": "000000-00000000", "size": 5, "sha256": "0" * 64})
    stored.commit()
    experiment = StoredExperiment(files, PROJECT, stored.id)
    assert experiment.artifacts["big.bin"].state == "pending"
    for call in (experiment.download_artifact, experiment.download_artifacts):
        with pytest.raises(ArtifactNotFound, match="on their way"):
            call("big.bin", str(tmp_path))


def test_an_archive_deflates_what_becomes_smaller(files: Store, tmp_path: Path) -> None:
    """Text is; weights are put there as they are, which is twenty times as fast. Both come out as they went in."""
    stored, held = Stored(files), {"log.txt": b"loss 0.5\n" * 5_000, "model.bin": os.urandom(50_000), "empty": b""}
    for path, data in held.items():
        stored.owner.artifact(path, data)
    stored.commit()
    archive = StoredExperiment(files, PROJECT, stored.id).download_artifacts(None, str(tmp_path))
    with zipfile.ZipFile(archive) as opened:
        ways = {entry.filename: entry.compress_type for entry in opened.infolist()}
        assert {name: opened.read(name) for name in held} == held
    assert ways == {"log.txt": zipfile.ZIP_DEFLATED, "model.bin": zipfile.ZIP_STORED, "empty": zipfile.ZIP_STORED}


def test_damage_is_noticed(experiment: StoredExperiment, files: Store, tmp_path: Path) -> None:
    """Bytes that are not those that were logged are refused, and nothing is left at the target."""
    files.put(layout.artifact_file(PROJECT, experiment.internal_id, "model.bin"), b"wEights")
    for call in (experiment.download_artifact, experiment.download_artifacts):
        with pytest.raises(Corrupt, match="digest"):
            call("model.bin", str(tmp_path / "out"))
    assert list((tmp_path / "out").iterdir()) == []


def test_a_link_at_the_target_is_replaced(experiment: StoredExperiment, tmp_path: Path) -> None:
    """A download never writes through a link that lies where its file goes."""
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "model.bin").symlink_to(tmp_path / "victim")
    experiment.download_artifact("model.bin", str(tmp_path))
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert (tmp_path / "model.bin").read_bytes() == b"weights"


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "a/../../evil", "..\\evil"])
def test_hostile_paths_in_a_document(files: Store, tmp_path: Path, path: str) -> None:
    """A document that somebody changed to name a path outside cannot make a download leave its folder."""
    files.put("x", b"1")
    record = FileRecord(size=1, sha256=sha256(b"1").hexdigest(), state="stored", logged_at=at_us(0))
    out = tmp_path / "out" / "deep"
    with pytest.raises(InvalidName):
        download_file(files, "x", path, record, str(out))
    with pytest.raises(InvalidName):
        download_archive(files, {path: record}, {path: "x"}, "all", str(out))
    assert [found.name for found in tmp_path.rglob("*evil*")] == []


def test_archived_artifacts_are_downloaded_and_removed_ones_are_not(files: Store, tmp_path: Path) -> None:
    """Artifacts beyond those that a commit lists itself are listed and downloaded all the same, removed ones are not."""
    stored = Stored(files)
    for number in range(INLINE_ARTIFACTS_MAX + 40):
        stored.owner.artifact(f"many/{number:04d}", b"%d" % number)
    stored.commit()
    experiment = StoredExperiment(files, PROJECT, stored.id)
    assert len(experiment.artifacts) == INLINE_ARTIFACTS_MAX + 40
    assert Path(experiment.download_artifact("many/0000", str(tmp_path))).read_bytes() == b"0"


def test_progress_is_told_or_shown(
    experiment: StoredExperiment, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To a function as (done, in all); on standard error when that was asked for, or when there is much and it is a terminal."""
    told: list[tuple[int, int]] = []
    experiment.download_artifacts(None, str(tmp_path), progress=lambda *how: told.append(how))
    assert told == [(7, 10), (8, 10), (9, 10), (10, 10)]
    assert capsys.readouterr().err == ""
    experiment.download_artifacts("plots", str(tmp_path), progress=True)
    assert capsys.readouterr().err.endswith("plots.zip: 0 of 0 MiB\n")
    monkeypatch.setattr(progress, "SHOWN_FROM_BYTES", 5)
    experiment.download_artifact("model.bin", str(tmp_path))
    assert capsys.readouterr().err == ""  # no terminal
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    experiment.download_artifact("plotsx", str(tmp_path))  # little
    experiment.download_artifact("model.bin", str(tmp_path), progress=False)
    assert capsys.readouterr().err == ""
    experiment.download_artifact("model.bin", str(tmp_path))
    assert capsys.readouterr().err == "\rmodel.bin: 0 of 0 MiB\n"
    with pytest.raises(InvalidValue, match="progress must be a function"):
        experiment.download_artifact("model.bin", str(tmp_path), progress="yes")  # type: ignore[arg-type]
