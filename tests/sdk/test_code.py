"""What is known of the code: the repository as `.git` has it, and the source files by Neptune's rules."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import headrace as hr
from headrace.errors import ArtifactNotFound, InvalidValue, TelemetryWarning
from headrace.git import GitInfo, Inquiry, find_repository, look, read_repository, without_userinfo
from headrace.sources import SourceFile, source_files
from headrace_proto.events import Kind
from headrace_proto.home import Home
from headrace_proto.limits import MIB, SOURCES_BYTES_TOLD
from tests.sdk.conftest import Run
from tests.sdk.journals import journal_of, journals
from tests.waiting import wait_until

Create = Callable[..., hr.Experiment]


def git(folder: Path, *arguments: str) -> str:
    """What the real git says."""
    identity = {
        "GIT_AUTHOR_NAME": "Ada",
        "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "Ada",
        "GIT_COMMITTER_EMAIL": "a@b",
    }
    clean = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env={**os.environ, **identity, **clean},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit."""
    folder = tmp_path / "repository"
    (folder / "sub").mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    (folder / "train.py").write_text("print()\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "First try\n\nwith details")
    return folder


def read(folder: Path) -> GitInfo | None:
    """What we make of the repository around a folder."""
    found = find_repository(str(folder))
    assert found is not None
    return read_repository(found[1])


def test_branch_commit_and_remote_are_read_without_git(repository: Path) -> None:
    """From anywhere below; the remote without who may use it."""
    git(repository, "remote", "add", "other", "https://example.org/other.git")
    git(repository, "remote", "add", "origin", "https://ada:secret@example.org/a.git")
    head = git(repository, "rev-parse", "HEAD")
    assert read(repository / "sub") == GitInfo(head, "main", "https://example.org/a.git")


def test_packed_references_are_read(repository: Path) -> None:
    """As git leaves them after a while; a loose one is newer."""
    head = git(repository, "rev-parse", "HEAD")
    git(repository, "pack-refs", "--all")
    assert not (repository / ".git/refs/heads/main").exists()
    assert read(repository) == GitInfo(head, "main")
    git(repository, "commit", "-q", "--allow-empty", "-m", "Second")
    assert read(repository) == GitInfo(git(repository, "rev-parse", "HEAD"), "main")


def test_a_detached_head_has_no_branch(repository: Path) -> None:
    """Only a commit."""
    head = git(repository, "rev-parse", "HEAD")
    git(repository, "checkout", "-q", "--detach")
    assert read(repository) == GitInfo(head, None)


def test_a_worktree_and_a_branch_with_slashes(repository: Path, tmp_path: Path) -> None:
    """A `.git` that is a file names the folder; what it has not, the common one has."""
    git(repository, "remote", "add", "only", "git@example.org:a.git")
    git(repository, "worktree", "add", "-q", "-b", "feature/x", str(tmp_path / "tree"))
    head = git(repository, "rev-parse", "HEAD")
    assert read(tmp_path / "tree") == GitInfo(head, "feature/x", "git@example.org:a.git")


def test_a_repository_without_commits_has_a_branch(tmp_path: Path) -> None:
    """And one that is damaged says nothing."""
    git(tmp_path, "init", "-q", "-b", "main")
    assert read(tmp_path) == GitInfo(None, "main")
    for content in ("", "nonsense", "ref: refs/heads/../../../etc/passwd"):
        (tmp_path / ".git/HEAD").write_text(content)
        info = read(tmp_path)
        assert info is None or info.commit is None


def test_userinfo_never_leaves() -> None:
    """In any URL."""
    assert without_userinfo("https://token@example.org/a") == "https://example.org/a"
    assert without_userinfo("ssh://git:secret@example.org:22/a") == "ssh://example.org:22/a"
    assert without_userinfo("https://ada:p@ss@example.org/a@b") == "https://example.org/a@b"
    assert without_userinfo("/path/with@sign") == "/path/with@sign"


def test_a_quoted_remote_is_read_as_git_reads_it(repository: Path) -> None:
    """And loses its userinfo like others."""
    with (repository / ".git/config").open("a") as config:
        config.write('[remote "origin"]\n\turl = "https://ada:secret@example.org/a.git"\n')
    assert git(repository, "remote", "get-url", "origin") == "https://ada:secret@example.org/a.git"
    info = read(repository)
    assert info is not None
    assert info.remote == "https://example.org/a.git"


def answer(inquiry: Inquiry) -> dict[str, Any]:
    """Git's answer, once it has come."""
    said: list[dict[str, Any]] = []

    def answered() -> bool:
        said.extend(one for one in [inquiry.answer()] if one is not None)
        return bool(said)

    wait_until(answered, "git answers")
    inquiry.close()
    return said[0]


def test_git_is_asked_whether_the_tree_is_dirty(repository: Path) -> None:
    """Untracked files count; and who wrote the commit comes with it."""
    clean = answer(Inquiry(str(repository)))
    assert (clean["dirty"], clean["author"], clean["message"]) == (False, "Ada", "First try")
    assert clean["date"].startswith("20")
    (repository / "new file").touch()
    assert answer(Inquiry(str(repository)))["dirty"] is True


def test_without_git_nothing_more_is_known(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing wrong is said; nor after closing."""
    monkeypatch.setenv("PATH", "/nowhere")
    inquiry = Inquiry(str(repository))
    assert answer(inquiry) == {}
    assert inquiry.answer() is None


def test_an_experiment_keeps_what_git_says(repository: Path, home: Home, run_script: Run) -> None:
    """At once what the files say, at the end what git has said meanwhile."""
    (repository / "train.py").write_text(
        "import headrace as hr, time\n"
        "exp = hr.init('a/b').create_experiment(upload_source_files=[])\n"
        "while not exp._inquiry.answer(): time.sleep(0.005)\n"
    )
    subprocess.run(
        [sys.executable, str(repository / "train.py")],
        env={**os.environ, "HEADRACE_HOME": home.root},
        check=True,
        cwd="/",
    )
    [journal] = journals(home)
    script, first, last = [facts for [facts] in journal.of(Kind.FACTS)]
    head = git(repository, "rev-parse", "HEAD")
    assert script == {"entrypoint": "train.py"}
    assert first == {"git": {"commit": head, "branch": "main"}}
    assert last["git"].items() > first["git"].items()
    assert (last["git"]["dirty"], last["git"]["message"]) == (True, "First try")


def test_a_given_git_info_is_taken_as_it_is(create: Create) -> None:
    """And False means none."""
    with create(git_info=GitInfo(commit="abc", branch="main")) as experiment:
        assert [facts for [facts] in journal_of(experiment).of(Kind.FACTS)][-1] == {
            "git": {"commit": "abc", "branch": "main"}
        }
    with create(git_info=False) as experiment:
        assert not any("git" in facts for [facts] in journal_of(experiment).of(Kind.FACTS))


def test_above_the_script_comes_before_the_current_folder(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command of an installed package lies in no repository: then it is the one that it was called in."""
    script = tmp_path / "bin/train"
    script.parent.mkdir()
    script.touch()
    monkeypatch.setattr(sys, "argv", [str(script)])
    monkeypatch.chdir(repository / "sub")
    head = git(repository, "rev-parse", "HEAD")
    assert look(None)[0] == GitInfo(head, "main")
    other = tmp_path / "bin"
    git(other, "init", "-q", "-b", "trunk")
    assert look(None)[0] == GitInfo(None, "trunk")


def test_no_repository_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above a folder of its own there is none; nor in a folder that was deleted meanwhile."""
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.chdir("/")
    assert look(None) == (GitInfo(), None)
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert look(None) == (GitInfo(), None)


# -- Sources -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source tree, entered."""
    for name in ("a.py", "b.py", "notes.md", ".hidden.py", "lib/c.py", "lib/deep/d.py"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    monkeypatch.chdir(tmp_path / "tree")
    return tmp_path / "tree"


def named(patterns: Any, *ours: str) -> list[str]:
    """What the matched files are called."""
    return [file.name for file in source_files(patterns, ours)]


def test_sources_by_pattern(tree: Path) -> None:
    """Hidden files only when they are named; `**` looks into folders; a folder is all in it."""
    assert named("*.py") == ["a.py", "b.py"]
    assert named("**/*.py") == ["a.py", "b.py", "lib/c.py", "lib/deep/d.py"]
    assert named(["a.py", "?.py"]) == ["a.py", "b.py"]
    assert named("lib") == ["lib/c.py", "lib/deep/d.py"]
    assert named([".*"]) == [".hidden.py"]
    assert named([]) == []
    assert named("nothing*") == []


def test_sources_elsewhere_are_named_from_their_common_folder(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below the current folder from there, so that names do not depend on what was matched."""
    assert named("lib/deep/*") == ["lib/deep/d.py"]
    (tree / "other").mkdir()
    monkeypatch.chdir(tree / "other")
    assert named(str(tree / "lib/**/*.py")) == ["c.py", "deep/d.py"]
    assert named("../*.py") == ["a.py", "b.py"]


def test_a_named_source_that_does_not_exist_is_refused_and_a_pattern_may_match_nothing(tree: Path) -> None:
    """A typing error in a file's name is an error at the call; a pattern without a match is an answer."""
    with pytest.raises(ArtifactNotFound, match="nope"):
        source_files(["nope.py"], [])
    assert source_files(["*.nope"], []) == []


def test_sources_may_be_paths_and_nothing_else(tree: Path) -> None:
    """One or several; what is neither a name nor a list of names is refused with what was given."""
    assert named(Path("a.py")) == named([Path("a.py")]) == ["a.py"]
    wrongs: tuple[Any, ...] = (42, [42], {"a.py": 1}, b"a.py")
    for wrong in wrongs:
        with pytest.raises(InvalidValue, match="upload_source_files"):
            source_files(wrong, [])


def test_neither_home_nor_store_is_a_source(tree: Path) -> None:
    """Even where they lie among them: each run would keep all that was stored before."""
    assert named("*", str(tree / "lib/deep"), "s3://a/b") == ["a.py", "b.py", "lib/c.py", "notes.md"]
    project = hr.init("vision/digits", home=tree / "home", store=tree / "store", direct=True)
    with project.create_experiment(upload_source_files=[], git_info=False) as first:
        first.log_text("notes", "x")
    with project.create_experiment(upload_source_files="*", git_info=False) as second:
        second.log_artifact(".", "all")
    project.get_experiment(first.internal_id).log_artifact(".", "all")
    wanted = ["a.py", "b.py", "lib/c.py", "lib/deep/d.py", "notes.md"]
    assert list(second.stored().source_files) == wanted
    for experiment in (first, second):
        assert sorted(experiment.stored().artifacts) == sorted(f"all/{name}" for name in [".hidden.py", *wanted])


def test_by_default_the_script_is_the_source(run_script: Run, home: Home) -> None:
    """Under its own name, which is also the entry point."""
    run_script("", "git_info=False")
    [journal] = journals(home)
    [[path, payload, facts]] = journal.of(Kind.ARTIFACT)
    assert (path, facts["kind"]) == ("train.py", "source")
    assert payload.startswith(b"import headrace")
    assert journal.of(Kind.FACTS) == [[{"entrypoint": "train.py"}]]


def test_named_sources_are_kept_with_the_experiment(tree: Path, create: Create) -> None:
    """As files of the kind `source`."""
    with create(upload_source_files=["lib/**/*.py"]) as experiment:
        kept = {path: facts["kind"] for path, _, facts in journal_of(experiment).of(Kind.ARTIFACT)}
    assert kept == {"lib/c.py": "source", "lib/deep/d.py": "source"}


def test_a_pattern_that_catches_a_data_set_is_told(
    tree: Path, create: Create, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """Before the copying, with the number and the size, and again after each such amount; all of it is kept all the same."""
    assert SOURCES_BYTES_TOLD == 100 * MIB
    monkeypatch.setattr("headrace.sources.SOURCES_BYTES_TOLD", 2 * MIB)
    for number in range(5):
        (tree / f"data-{number}.bin").write_bytes(bytes(MIB))
    with create(upload_source_files="*.bin") as experiment:
        kept = [path for path, *_ in journal_of(experiment).of(Kind.ARTIFACT)]
    assert len(kept) == 5
    told = [str(one.message) for one in recwarn if isinstance(one.message, TelemetryWarning)]
    assert told[0].startswith("upload_source_files means 5 files of 5 MB")
    assert told[1:] == ["2 of 5 MB of source files are kept", "4 of 5 MB of source files are kept"]
    recwarn.clear()
    with create(upload_source_files=["data-0.bin", "data-1.bin"]):
        assert not list(recwarn)


def test_a_source_that_is_gone_is_an_error_of_its_kind(
    tree: Path, create: Create, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deleted between the listing and the reading; the experiment does not begin."""
    gone = [SourceFile(str(tree / "gone.py"), "gone.py")]
    monkeypatch.setattr("headrace.sources.source_files", lambda *_: gone)
    with pytest.raises(ArtifactNotFound, match="gone"):
        create(upload_source_files="*.py")


def test_an_answer_that_the_program_closed_is_none(repository: Path) -> None:
    """Daemons close all descriptors that they find: their `stop` does not fail on ours."""
    inquiry = Inquiry(str(repository))
    assert inquiry._answer is not None
    os.close(inquiry._answer)
    assert inquiry.answer() is None
    inquiry.close()
    silent = Inquiry(str(repository))
    assert silent._answer is not None
    os.close(silent._answer)
    silent.close()
