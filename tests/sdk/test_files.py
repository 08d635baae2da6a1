"""Files: when a call returns, the bytes are ours, whatever becomes of the file; and nothing leads out of the experiment."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

import headrace as hr
from headrace import spool
from headrace.errors import ArtifactNotFound, InvalidName, InvalidValue, TelemetryWarning
from headrace_proto.events import Kind
from headrace_proto.home import Home
from headrace_proto.limits import INLINE_BYTES_MAX
from headrace_proto.spool import is_spool_file, read_facts
from tests.sdk.journals import journal_of, journals

LARGE = os.urandom(3 * INLINE_BYTES_MAX + 17)


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def logged(experiment: hr.Experiment) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Path -> payload and facts of each artifact."""
    return {path: (payload, facts) for path, payload, facts in journal_of(experiment).of(Kind.ARTIFACT)}


def content(experiment: hr.Experiment, payload: Any) -> bytes:
    """The bytes that a payload means."""
    if not isinstance(payload, dict):
        return payload if isinstance(payload, bytes) else payload.encode()
    path = Path(experiment.origin.home.spool(experiment._writer.source), payload["file"])
    data = path.read_bytes()
    facts = read_facts(str(path))
    assert facts is not None
    assert (facts.size, facts.sha256) == (payload["size"], payload["sha256"]) == (len(data), sha256(data).hexdigest())
    return data


def test_a_small_file_is_in_its_event(experiment: hr.Experiment) -> None:
    """Under its own name, with its mode and time."""
    Path("model.json").write_text('{"a": 1}')
    os.chmod("model.json", 0o750)
    experiment.log_artifact("model.json")
    payload, facts = logged(experiment)["model.json"]
    assert payload == b'{"a": 1}'
    assert facts == {"mode": 0o750, "mtime_ns": os.stat("model.json").st_mtime_ns, "copied": True, "kind": "artifact"}


def test_a_large_file_survives_its_own_end(experiment: hr.Experiment) -> None:
    """Rewritten, truncated or deleted right after the call, the logged bytes are the old ones."""
    for name, end in (
        ("rewritten.bin", lambda: Path("rewritten.bin").write_bytes(b"new")),
        ("deleted.bin", lambda: os.unlink("deleted.bin")),
    ):
        Path(name).write_bytes(LARGE)
        experiment.log_artifact(name, f"models/{name}")
        end()
        payload, facts = logged(experiment)[f"models/{name}"]
        assert content(experiment, payload) == LARGE
        assert facts["copied"]


def test_open_files_and_buffers_need_a_destination(experiment: hr.Experiment) -> None:
    """An open file is read from where it stands, a buffer whole, wherever it stands; text as UTF-8."""
    Path("data.bin").write_bytes(LARGE)
    with open("data.bin", "rb") as file:
        file.seek(10)
        experiment.log_artifact(file, "rest.bin")
    buffer = io.BytesIO()
    buffer.write(LARGE)
    experiment.log_artifact(buffer, "whole.bin")
    experiment.log_artifact(io.StringIO("grün"), "text.txt")
    with open("data.bin", "rb") as file, pytest.raises(InvalidName, match="destination"):
        experiment.log_artifact(file)
    found = logged(experiment)
    assert content(experiment, found["rest.bin"][0]) == LARGE[10:]
    assert content(experiment, found["whole.bin"][0]) == LARGE
    assert content(experiment, found["text.txt"][0]) == "grün".encode()
    assert buffer.tell() == len(LARGE)


def test_a_folder_is_all_its_files(experiment: hr.Experiment) -> None:
    """Below its own name or the destination; links inside it are followed, those that lead out are not."""
    Path("run/sub").mkdir(parents=True)
    Path("outside").write_text("secret")
    Path("run/a.txt").write_text("a")
    Path("run/sub/b.bin").write_bytes(LARGE)
    os.symlink("a.txt", "run/latest")
    os.symlink("../outside", "run/out")
    os.mkfifo("run/pipe")
    with pytest.warns(TelemetryWarning, match="leads out"):
        experiment.log_artifact("run")
    with pytest.warns(TelemetryWarning, match="leads out"):
        experiment.log_artifact("run/", "copy/of")
    found = logged(experiment)
    assert sorted(found) == [
        "copy/of/a.txt",
        "copy/of/latest",
        "copy/of/sub/b.bin",
        "run/a.txt",
        "run/latest",
        "run/sub/b.bin",
    ]
    assert found["run/latest"][0] == b"a"


def test_a_folder_that_holds_the_home_is_logged_without_it(experiment: hr.Experiment, tmp_path: Path) -> None:
    """Reading our own journal into our own journal would never end."""
    Path("kept.txt").write_text("a")
    experiment.log_artifact(tmp_path, "all")
    assert list(logged(experiment)) == [f"all/{Path.cwd().name}/kept.txt"]


def test_logging_what_lies_in_the_home_leaves_us_alive(experiment: hr.Experiment) -> None:
    """A journal's lock that its own process opened and closed would be free, and the agent would bury the living."""
    home, source = experiment.origin.home, experiment._writer.source
    Path(home.settings_file).write_text("")
    Path("link").symlink_to(home.journal(source))
    experiment.log_artifact(home.root, "home")
    for path in ("link/lock", "link", home.journals, os.path.join(home.journal(source), "lock")):
        with pytest.raises(InvalidValue, match="part of a journal"):
            experiment.log_artifact(path, "journal")
    assert list(logged(experiment)) == ["home/headrace.toml"]
    ask = "import sys; from headrace_proto.journal import lock; print(lock.holder(sys.argv[1]))"
    lock = os.path.join(home.journal(source), "lock")
    assert subprocess.check_output([sys.executable, "-c", ask, lock], text=True) == f"{os.getpid()}\n"


def test_a_named_pipe_is_refused_at_once(experiment: hr.Experiment) -> None:
    """Nobody may ever write to it."""
    os.mkfifo("pipe.png")
    with pytest.raises(InvalidValue, match="no plain file"):
        experiment.log_artifact("pipe.png")
    with pytest.raises(InvalidValue, match="no plain file"):
        experiment.log_image("samples", "pipe.png")
    assert logged(experiment) == {}


@pytest.mark.parametrize(
    ("artifact", "error"),
    [
        ("nowhere.bin", ArtifactNotFound),
        ("", ArtifactNotFound),
        (3, InvalidValue),
        (None, InvalidValue),
        (b"bytes", InvalidValue),
        ("/dev/zero", InvalidValue),
    ],
    ids=repr,
)
def test_what_is_no_file_is_refused(experiment: hr.Experiment, artifact: Any, error: type[Exception]) -> None:
    """By the error that fits each."""
    with pytest.raises(error):
        experiment.log_artifact(artifact, "a.bin")
    assert logged(experiment) == {}


@pytest.mark.parametrize(
    "destination", ["", "/etc/passwd", "../up", "a/../b", "a//b", "a\\b", "C:/x", "a\0b", "a/%2e%2e/b", "x" * 1000, 3]
)
def test_a_destination_stays_inside_the_experiment(experiment: hr.Experiment, destination: Any) -> None:
    """Whatever its form."""
    Path("a.txt").write_text("a")
    with pytest.raises(InvalidName):
        experiment.log_artifact("a.txt", destination)
    with pytest.raises(InvalidName):
        experiment.log_artifact(io.BytesIO(b"a"), destination)


def test_a_failing_read_is_the_callers_error(experiment: hr.Experiment, project: hr.Project) -> None:
    """Nothing half is left in the spool."""

    class Broken(io.RawIOBase):
        def __init__(self) -> None:
            self.left = 3

        def read(self, size: int = -1) -> bytes:
            self.left -= 1
            if not self.left:
                raise OSError(errno.ESTALE, "stale")
            return LARGE

    with pytest.raises(OSError, match="stale"):
        experiment.log_artifact(Broken(), "a.bin")
    assert os.listdir(project.home.spool(experiment._writer.source)) == []
    assert logged(experiment) == {}


def test_deleting_names_files_and_folders(experiment: hr.Experiment) -> None:
    """By their path in the experiment, one or several; never out of it, and never all."""
    for name in ("folder/a.bin", "folder/sub/b.bin", "folder2.bin"):
        experiment.log_artifact(io.BytesIO(b"a"), name)
    experiment.delete_artifacts("model.bin")
    experiment.delete_artifacts(["a/b.txt", "folder/"])
    experiment.delete_artifacts("folder")
    assert journal_of(experiment).of(Kind.UNLINK) == [
        [["model.bin"]],
        [["a/b.txt", "folder", "folder/a.bin", "folder/sub/b.bin"]],
        [["folder"]],
    ]
    wrongs: tuple[Any, ...] = ("", "..", "/", "../a", [3])
    for wrong in wrongs:
        with pytest.raises(InvalidName):
            experiment.delete_artifacts(wrong)


def test_above_the_copy_limit_a_file_is_linked_and_the_call_warns(
    experiment: hr.Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes that cannot be copied cheaply are held by a second name; replacing the file is safe."""
    monkeypatch.setenv("HEADRACE_COPY_MAX", str(len(LARGE) - 1))
    Path("huge.bin").write_bytes(LARGE)
    with pytest.warns(TelemetryWarning, match="hard-linked"):
        experiment.log_artifact("huge.bin")
    assert os.stat("huge.bin").st_nlink == 2
    Path("new.bin").write_bytes(b"new")
    os.replace("new.bin", "huge.bin")
    payload, facts = logged(experiment)["huge.bin"]
    assert content(experiment, payload) == LARGE
    assert not facts["copied"]


def test_where_no_link_can_be_made_the_file_is_copied(
    experiment: hr.Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another file system has no second name for it: then it takes its time."""
    monkeypatch.setenv("HEADRACE_COPY_MAX", "1")

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EXDEV, "another device")

    monkeypatch.setattr(os, "link", refuse)
    Path("huge.bin").write_bytes(LARGE)
    experiment.log_artifact("huge.bin")
    payload, facts = logged(experiment)["huge.bin"]
    assert content(experiment, payload) == LARGE
    assert facts["copied"]


@pytest.mark.parametrize(
    "log",
    [
        lambda experiment: experiment.log_artifact(io.BytesIO(LARGE), "a.bin"),
        lambda experiment: experiment.log_text("notes", "x" * len(LARGE)),
        lambda experiment: experiment.log_image("samples", b"\x89PNG" + LARGE),
    ],
    ids=["artifact", "text", "image"],
)
def test_a_full_disk_drops_and_says_so(
    create: Callable[..., hr.Experiment], monkeypatch: pytest.MonkeyPatch, log: Callable[[hr.Experiment], None]
) -> None:
    """A payload that finds no room never raises into training: it is counted, warned about, and a gap in the journal."""
    experiment = create()

    def full(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(spool, "_write", full)
    with pytest.warns(TelemetryWarning, match="No space left"):
        log(experiment)
    experiment.log_metric("loss", 0.5)
    experiment.stop()
    assert journal_of(experiment).of(Kind.GAP) == [[1, "No space left on device"]]
    assert [point.channel for point in journal_of(experiment).points()] == ["loss"]


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.EDQUOT, errno.EROFS], ids=os.strerror)
def test_what_the_machine_lacks_is_never_the_programs_error(
    create: Callable[..., hr.Experiment], monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """A trainer that has used up its descriptors, or whose disk went read-only, loses a payload and not the run."""
    experiment = create()
    monkeypatch.setattr(spool, "_write", Mock(side_effect=OSError(code, os.strerror(code))))
    with pytest.warns(TelemetryWarning, match=os.strerror(code)):
        experiment.log_text("notes", "x" * len(LARGE))
    experiment.stop()
    assert journal_of(experiment).of(Kind.GAP) == [[1, os.strerror(code)]]


def test_the_quota_counts_for_the_spool(create: Callable[..., hr.Experiment], project: hr.Project) -> None:
    """While the agent says that the quota is reached, payloads are dropped and counted."""
    experiment = create()
    Path(project.home.quota_marker).touch()
    with pytest.warns(TelemetryWarning, match="quota"):
        experiment.log_artifact(io.BytesIO(LARGE), "a.bin")
    assert not os.path.exists(project.home.spool(experiment._writer.source))


def test_spooled_files_have_names_of_their_own(experiment: hr.Experiment, project: hr.Project) -> None:
    """Numbered in order, companions beside them, nothing hidden left."""
    for number in range(5):
        experiment.log_artifact(io.BytesIO(LARGE), f"{number}.bin")
    names = sorted(os.listdir(project.home.spool(experiment._writer.source)))
    files = [name for name in names if is_spool_file(name)]
    assert [name[:6] for name in files] == [f"{number:06d}" for number in range(1, 6)]
    assert sorted([*files, *(f"{name}.json" for name in files)]) == names
    assert json.loads(Path(project.home.spool(experiment._writer.source), names[1]).read_text())["size"] == len(LARGE)


def test_memory_does_not_grow_with_the_file(experiment: hr.Experiment) -> None:
    """A stream of any length is held block by block."""
    held: list[int] = []

    class Endless(io.RawIOBase):
        left = 64

        def read(self, size: int = -1) -> bytes:
            held.append(size)
            self.left -= 1
            return bytes(1024 * 1024) if self.left else b""

    experiment.log_artifact(Endless(), "zeros.bin")
    payload, _ = logged(experiment)["zeros.bin"]
    assert payload["size"] == 63 * 1024 * 1024
    assert max(held) <= 1024 * 1024


def test_a_process_without_a_descriptor_left_goes_on(run_script: Any, home: Home) -> None:
    """At RLIMIT_NOFILE no call raises: files are dropped and counted, points are logged, `wait` says what it knows; and when
    descriptors are free again, files are logged again."""
    done = run_script(
        "import resource, warnings\n"
        "open('small.bin', 'wb').write(b'x'); open('large.bin', 'wb').write(bytes(200_000))\n"
        "os.makedirs('folder/inner'); open('folder/one.bin', 'wb').write(b'1')\n"
        "exp.log_metric('loss', 0, 0.5)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))\n"
        "held = []\n"
        "try:\n"
        "    while True:\n"
        "        held.append(os.open('small.bin', os.O_RDONLY))\n"
        "except OSError:\n"
        "    pass\n"
        "warnings.simplefilter('ignore')\n"
        "exp.log_artifact('small.bin'); exp.log_artifact('large.bin'); exp.log_artifact('folder')\n"
        "exp.log_text('notes', 'x' * 100_000)\n"
        "exp.log_metric('loss', 1, 0.25)\n"
        "exp.flush(durable=True)\n"
        "receipt = exp.wait('stored', timeout=0.05)\n"
        "print(receipt.reached, receipt.files, exp.id == exp.internal_id)\n"
        "dropped = exp._writer.dropped\n"
        "for descriptor in held: os.close(descriptor)\n"
        "exp.log_artifact('large.bin')\n"
        "exp.flush(durable=True)\n"
        "print(dropped, exp._writer.dropped)\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "False -1 True\n4 4\n"
    [journal] = journals(home)
    assert journal.series("loss") == [(0.0, 0.5), (1.0, 0.25)]
    assert [path for path, *_ in journal.of(Kind.ARTIFACT)] == ["large.bin"]
    assert sum(count for count, _ in journal.of(Kind.GAP)) == 4
    assert journal.outcome == "succeeded"
