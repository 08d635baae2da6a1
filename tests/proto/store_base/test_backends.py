"""Every back end keeps the contract of `Store`; and what only one of them can do wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3  # type: ignore[import-untyped]
import fsspec
import pytest
from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from headrace_proto.errors import Corrupt, FormatUnknown, MissingExtra, StoreUnsuitable, UnknownStore
from headrace_proto.store import layout
from headrace_proto.store.backend import open_store, store_id
from headrace_proto.store.local import LocalStore
from headrace_proto.store.remote import FsspecStore
from tests.proto.store_base.contract import StoreContract

if TYPE_CHECKING:
    from collections.abc import Callable

_numbers = count(1)


class TestLocal(StoreContract):
    """Plain files."""

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return str(tmp_path / "store")

    @pytest.fixture
    def outsider(self, url: str) -> Callable[[str], bytes]:
        return lambda path: Path(url, path).read_bytes()

    def test_temporary_files_of_killed_writers_go_after_a_day(self, store: LocalStore) -> None:
        """A file without a name that is a day old was left by a killed writer; a younger one may be a long upload's."""
        store.put("kept", b"1")
        folder = Path(store.url) / layout.TEMPORARY
        for name, age_s in (("old", 24 * 3600 + 60), ("young", 23 * 3600)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"half")
            os.utime(folder / name, (time.time() - age_s,) * 2)
        assert store.clear_temporary(now_ns=time.time_ns()) == 1
        assert os.listdir(folder) == ["young"]
        assert store.read("kept") == b"1"

    def test_temporary_files_are_gone(self, store: LocalStore) -> None:
        """Nothing is left of creates that lost, puts, or streams that broke."""
        store.create("a", b"1")
        store.create("a", b"2")
        store.put("a", b"3")
        with pytest.raises(ZeroDivisionError):
            store.put_stream("b", (bytes(1 // n) for n in (1, 0)))
        assert store.names(layout.TEMPORARY) == []

    def test_links_out_of_the_root_are_refused(self, store: LocalStore, tmp_path: Path) -> None:
        """A link that somebody put into the store cannot make it read, list, write or delete outside."""
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "secret").write_bytes(b"secret")
        store.put("folder/object", b"1")
        Path(store.url, "folder/out").symlink_to(outside)
        Path(store.url, "folder/secret").symlink_to(outside / "secret")
        for call in (store.read, store.open, store.size, store.names):
            for path in ("folder/out/secret", "folder/secret", "folder/out"):
                with pytest.raises(PermissionError):
                    call(path)
        for write in (store.create, store.put):
            with pytest.raises(PermissionError):
                write("folder/out/new", b"")
        with pytest.raises(PermissionError):
            store.delete(["folder/out/secret"])
        store.delete(["folder/secret"])
        store.put("folder/secret", b"ours")
        assert [path.name for path in outside.iterdir()] == ["secret"]
        assert (outside / "secret").read_bytes() == b"secret"

    def test_the_root_itself_may_be_a_link(self, tmp_path: Path) -> None:
        """A store reached through a link (a home on another disk) works."""
        (tmp_path / "disk").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "disk")
        store = open_store(str(tmp_path / "link" / "store"))
        store.put("a/b", b"1")
        assert store.read("a/b") == b"1"

    def test_opening_for_reading_makes_nothing(self, tmp_path: Path) -> None:
        """A reader of a store that is not there yet sees an empty one and leaves no trace."""
        store = open_store(str(tmp_path / "absent"), writable=False)
        assert store.names("") == []
        assert not (tmp_path / "absent").exists()

    @pytest.mark.parametrize("form", ["{}", "file://{}", "local://{}"])
    def test_forms_of_a_folder(self, tmp_path: Path, form: str) -> None:
        """A folder may be given as a path or as a URL."""
        store = open_store(form.format(tmp_path / "store"))
        assert store.url == str(tmp_path / "store")
        assert store.local

    def test_a_write_survives_folders_that_vanish(self, store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
        """A create whose folder another's delete has just removed as empty makes the folder again."""
        link, calls = os.link, count()

        def link_after_prune(temporary: str, target: str) -> None:
            if next(calls) == 0:
                os.rmdir(os.path.dirname(target))
            link(temporary, target)

        monkeypatch.setattr(os, "link", link_after_prune)
        assert store.create("a/b", b"1")
        assert store.read("a/b") == b"1"

    @pytest.mark.parametrize("call", ["rename", "link"])
    def test_a_kill_before_the_name_leaves_nothing_under_it(self, tmp_path: Path, call: str) -> None:
        """A writer killed when the bytes are written and their name is not leaves no object, and the name stays free."""
        program = (
            "import os, signal, sys\n"
            "from headrace_proto.store.local import LocalStore\n"
            f"os.{call} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
            "store = LocalStore(sys.argv[1])\n"
            f"store.{'put' if call == 'rename' else 'create'}('commits/1', b'x' * 100)\n"
        )
        finished = subprocess.run([sys.executable, "-c", program, str(tmp_path / "store")], check=False)
        assert finished.returncode == -9
        store = LocalStore(tmp_path / "store")
        assert store.names("commits") == []
        assert store.create("commits/1", b"y")


class TestMemory(StoreContract):
    """fsspec's memory, with a lock."""

    @pytest.fixture
    def url(self) -> str:
        return f"memory://contract-{next(_numbers)}"

    @pytest.fixture
    def outsider(self, url: str) -> Callable[[str], bytes]:
        return lambda path: bytes(
            fsspec.filesystem("memory").store[f"/{url.removeprefix('memory://')}/{path}"].getvalue()
        )


class TestS3(StoreContract):
    """A real S3 API on loopback."""

    @pytest.fixture
    def url(self, s3_url: str) -> str:
        return s3_url

    @pytest.fixture
    def outsider(self, url: str) -> Callable[[str], bytes]:
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        client = boto3.client("s3")
        return lambda path: client.get_object(Bucket=bucket, Key=f"{prefix}/{path}")["Body"].read()

    def test_an_unreachable_endpoint_is_an_os_error(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """botocore's own exception for a refused connection comes out as an `OSError`, which callers retry."""
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        store = open_store(url, writable=False)
        store._fs.retries = 1  # type: ignore[attr-defined]
        with pytest.raises(OSError, match="Could not connect"):
            store.read("a")


def _client_error(status: int, code: str) -> OSError:
    response: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error = OSError(5, code)
    error.__cause__ = ClientError(response, "PutObject")
    return error


class _Answers(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """A file system that answers creates as told."""

    cachable = False

    def __init__(self, *answers: OSError | None) -> None:
        super().__init__()
        self.answers = list(answers)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        answer = self.answers.pop(0)
        if answer is not None:
            raise answer


@pytest.mark.parametrize(
    ("answers", "created"),
    [
        ([_client_error(409, "ConditionalRequestConflict")] * 3 + [None], True),
        ([_client_error(409, "ConditionalRequestConflict"), _client_error(412, "PreconditionFailed")], False),
        ([_client_error(412, "PreconditionFailed")], False),
        ([FileExistsError()], False),
    ],
)
def test_conflicts_are_sent_again_and_precondition_means_exists(
    answers: list[OSError | None], created: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3's 409 to a racing create decides nothing, 412 does; the same create is sent again until one of them is clear."""
    monkeypatch.setattr("headrace_proto.store.remote._CONFLICT_WAIT_S", 0.0)
    assert FsspecStore("x://y", _Answers(*answers), "y").create("a", b"") is created


def test_other_failures_of_a_create_come_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A create that a server refuses for another reason, or for ever with 409, raises."""
    monkeypatch.setattr("headrace_proto.store.remote._CONFLICT_WAIT_S", 0.0)
    with pytest.raises(OSError, match="AccessDenied"):
        FsspecStore("x://y", _Answers(_client_error(403, "AccessDenied")), "y").create("a", b"")
    with pytest.raises(OSError, match="Conflict"):
        FsspecStore("x://y", _Answers(*[_client_error(409, "Conflict")] * 10), "y").create("a", b"")


class _Overwriting(fsspec.implementations.memory.MemoryFileSystem):  # type: ignore[misc]
    """A store that ignores the condition, as some that speak S3 do."""

    protocol = "overwriting"

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        super().pipe_file(path, value)


class _LooksFirst(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """A store without the condition: fsspec looks whether the object is there, then writes."""

    protocol = "looksfirst"


@pytest.mark.parametrize("file_system", [_Overwriting, _LooksFirst])
def test_a_store_that_cannot_create_exclusively_is_refused(file_system: type[Any]) -> None:
    """Opening a store for writing finds out that a second create overwrites, or that the class only looks first."""
    fsspec.register_implementation(file_system.protocol, file_system, clobber=True)
    with pytest.raises(StoreUnsuitable, match="only if it is absent"):
        open_store(f"{file_system.protocol}://bucket/runs")


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("s4://bucket/runs", "s4"),
        ("", "folder"),
        ("file://", "folder"),
        ("s3://", "bucket"),
        ("simplecache::s3://bucket/runs", "simplecache"),
    ],
)
def test_urls_that_mean_no_store(url: str, named: str) -> None:
    """A URL with an unknown protocol, without a place, or with a cache before it is refused by name."""
    with pytest.raises(UnknownStore, match=named):
        open_store(url)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A protocol whose package is not installed says which pip command installs it."""
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(MissingExtra, match=r"headrace\[gcs\]"):
        open_store("gs://bucket/runs")


def test_a_store_has_one_id(tmp_path: Path) -> None:
    """The id is made by the first who asks, is the same for all who ask at once, and stays; FORMAT.md lies beside it."""
    stores = [open_store(str(tmp_path / "store")) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(store_id, stores))
    assert len(ids) == 1
    assert store_id(open_store(str(tmp_path / "store"), writable=False)) in ids
    assert (tmp_path / "store" / "FORMAT.md").read_text(encoding="utf-8").startswith("# ")
    assert store_id(open_store(str(tmp_path / "other"))) not in ids


@pytest.mark.parametrize(
    ("data", "error"), [(b'{"format": 2, "id": "x"}', FormatUnknown), (b"{}", Corrupt), (b"\xff", Corrupt)]
)
def test_a_store_that_is_not_ours(tmp_path: Path, data: bytes, error: type[Exception]) -> None:
    """A store of a newer format, or with a damaged record, is refused and left as it is."""
    store = open_store(str(tmp_path / "store"))
    store.put(layout.STORE_FILE, data)
    with pytest.raises(error):
        store_id(store)
    assert store.read(layout.STORE_FILE) == data
    assert layout.FORMAT_FILE not in store.names("")
