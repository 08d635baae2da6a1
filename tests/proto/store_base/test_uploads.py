"""A file's chunks become the file, exactly and only then, whatever is sent twice, left out, killed or changed."""

from __future__ import annotations

import subprocess
import sys
from hashlib import sha256
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_proto.errors import InvalidName
from headrace_proto.store import layout, uploads
from headrace_proto.store.backend import open_store
from headrace_proto.store.uploads import PiecesGone, Upload
from tests.proto.store_base.faults import FaultyStore, History

if TYPE_CHECKING:
    from headrace_proto.store.backend import Store

PROJECT, EXPERIMENT, SOURCE, FILE = "vision/digits", "e" * 32, "a" * 32, "000001-0a1b2c3d"
TARGET = layout.artifact_file(PROJECT, EXPERIMENT, "models/model.bin")
DATA = bytes(range(256)) * 40


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(str(tmp_path_factory.mktemp("store")))


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "PIECE_BYTES", 1000)


def _upload(store: Store, data: bytes = DATA, digest: str = "") -> Upload:
    return Upload(store, PROJECT, EXPERIMENT, SOURCE, FILE, size=len(data), sha256=digest or sha256(data).hexdigest())


def _pieces(store: Store) -> list[str]:
    return store.names(layout.upload_folder(PROJECT, EXPERIMENT, SOURCE, FILE))


def _send(upload: Upload, data: bytes = DATA, chunk: int = 300) -> None:
    for first in range(upload.received, len(data), chunk):
        upload.add(first, data[first : first + chunk])


def test_chunks_become_the_file(store: Store) -> None:
    """Chunks in order become pieces, pieces the file; the pieces go when a commit has said so."""
    upload = _upload(store)
    _send(upload)
    assert upload.complete
    assert len(_pieces(store)) == 11
    assert store.size(TARGET) is None
    assert upload.finish(TARGET) == ""
    assert store.read(TARGET) == DATA
    assert len(_pieces(store)) == 11
    upload.discard()
    assert _pieces(store) == []
    assert store.read(TARGET) == DATA


def test_an_empty_file_needs_no_piece(store: Store) -> None:
    """A file of no bytes is complete from the start."""
    upload = _upload(store, b"")
    assert upload.complete
    assert upload.finish(TARGET) == ""
    assert store.read(TARGET) == b""


def test_an_upload_goes_on_after_a_kill(store: Store) -> None:
    """A new collector finds by listing how far the pieces are, and what was only gathered is asked for again."""
    first = _upload(store)
    for at in range(0, 2400, 300):
        first.add(at, DATA[at : at + 300])
    assert (first.offset, first.received) == (2000, 2400)
    second = _upload(store)
    assert (second.offset, second.received) == (2000, 2000)
    with pytest.raises(ValueError, match="up to 2000"):
        second.add(2400, DATA[2400:2700])
    _send(second)
    assert second.finish(TARGET) == ""
    assert store.read(TARGET) == DATA


def test_gathered_bytes_can_be_stored_early(store: Store) -> None:
    """What must not wait for a whole piece is written as a small one."""
    upload = _upload(store)
    assert not upload.flush()
    assert not upload.add(0, DATA[:300])
    assert upload.flush()
    assert upload.offset == 300
    _send(upload)
    assert upload.finish(TARGET) == ""


def test_a_chunk_beyond_the_file_is_refused(store: Store) -> None:
    """A chunk may not make a file longer than its event said."""
    with pytest.raises(ValueError, match="ends at"):
        _upload(store, b"abc").add(0, b"abcd")


def test_what_is_not_the_file_never_comes_into_place(store: Store) -> None:
    """A changed byte: the reason is told, nothing is at the path, and the pieces are gone."""
    upload = _upload(store, digest="0" * 64)
    _send(upload)
    assert "digest" in upload.finish(TARGET)
    assert store.size(TARGET) is None
    assert _pieces(store) == []
    assert upload.offset == 0


@pytest.mark.parametrize("at", [3000, len(DATA) // 1000 * 1000])
def test_pieces_that_somebody_removed_are_no_fault_of_the_file(store: Store, at: int) -> None:
    """A hole or a missing tail: nothing is at the path, and the file can be sent again, from the start."""
    upload = _upload(store)
    _send(upload)
    store.delete([layout.piece_file(PROJECT, EXPERIMENT, SOURCE, FILE, at)])
    with pytest.raises(PiecesGone):
        upload.finish(TARGET)
    assert store.size(TARGET) is None
    assert _pieces(store) == []
    assert upload.received == 0
    _send(upload)
    assert upload.finish(TARGET) == ""
    assert store.read(TARGET) == DATA


def test_a_file_that_nobody_awaits_any_more_is_not_put(store: Store) -> None:
    """Its path may be another file's by now: what lies there stays, and no fault is told."""
    store.put(TARGET, b"later")
    upload = _upload(store)
    _send(upload)
    assert upload.finish(TARGET, lambda: False) == ""
    assert store.read(TARGET) == b"later"


def test_a_file_is_asked_for_once_more_when_its_pieces_are_read(store: Store) -> None:
    """The question comes after the last byte was read: that may be long after the first."""
    upload = _upload(store)
    _send(upload)
    reads: list[int] = []

    def awaited() -> bool:
        reads.append(len(_pieces(store)))
        return True

    assert upload.finish(TARGET, awaited) == ""
    assert reads == [11]
    assert store.read(TARGET) == DATA


def test_a_file_sent_again_after_a_mismatch(store: Store) -> None:
    """After a refusal the same upload takes the file from 0 and finishes."""
    upload = _upload(store)
    _send(upload, bytes(len(DATA)))
    assert upload.finish(TARGET)
    _send(upload)
    assert upload.finish(TARGET) == ""
    assert store.read(TARGET) == DATA


def test_finish_may_be_repeated(store: Store) -> None:
    """A collector killed between the file and its commit finishes again, with the same result."""
    upload = _upload(store)
    _send(upload)
    assert upload.finish(TARGET) == ""
    again = _upload(store)
    assert again.complete
    assert again.finish(TARGET) == ""
    assert store.read(TARGET) == DATA


@settings(max_examples=40)
@given(
    cuts=st.lists(st.integers(0, len(DATA)), max_size=30),
    deliveries=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 31)), max_size=60),
    faults=st.dictionaries(st.integers(0, 12), st.sampled_from(["before", "after"]), max_size=4),
)
def test_two_collectors_and_lost_answers(
    tmp_path_factory: pytest.TempPathFactory,
    cuts: list[int],
    deliveries: list[tuple[int, int]],
    faults: dict[int, str],
) -> None:
    """Chunks cut anywhere, delivered to either of two collectors in any order, any number of times, with requests and answers
    lost: the file that comes out is the file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uploads, "PIECE_BYTES", 1000)
        store = open_store(str(tmp_path_factory.mktemp("store")))
        faulty = FaultyStore(store, dict(faults))  # type: ignore[arg-type]
        collectors = [_upload(faulty), _upload(faulty)]
        edges = sorted({0, len(DATA), *cuts})
        chunks = list(pairwise(edges))
        for collector, index in deliveries:
            first, end = chunks[index % len(chunks)]
            upload = collectors[collector]
            if first <= upload.received:
                try:
                    upload.add(first, DATA[first:end])
                except TimeoutError:
                    collectors[collector] = _upload(faulty)
        faulty.faults.clear()
        last = _upload(faulty)
        _send(last)
        assert last.complete
        assert last.finish(TARGET) == ""
        assert store.read(TARGET) == DATA


def test_a_listing_that_lacks_the_newest_piece_stops_nobody(store: Store) -> None:
    """A collector whose listing is a moment old finds its piece there, asks that piece how long it is, and goes on."""
    history = History()
    faulty = FaultyStore(store, history=history)
    first, second = _upload(FaultyStore(store, history=history)), _upload(faulty)
    first.add(0, DATA[:2500])
    first.flush()
    faulty.plan = lambda call: "stale" if call.method == "names" else None
    second.add(0, DATA[:2500])
    second.flush()
    assert second.offset == 2500
    faulty.heal()
    _send(second)
    assert second.finish(TARGET) == ""
    assert store.read(TARGET) == DATA


def test_names_that_lead_elsewhere_are_refused(store: Store) -> None:
    """A file's name comes over a network: it cannot name a path."""
    for file in ("../../x", "a/b", ".", "", "x" * 200):
        with pytest.raises(InvalidName):
            Upload(store, PROJECT, EXPERIMENT, SOURCE, file, size=1, sha256="")
    with pytest.raises(InvalidName):
        layout.artifact_file(PROJECT, EXPERIMENT, ".uploads/x")


def test_memory_is_bounded(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A 256 MiB file passes through a process that may not grow by more than 64 MiB."""
    program = """
import resource, sys
from hashlib import sha256
from headrace_proto.store import layout
from headrace_proto.store.local import LocalStore
from headrace_proto.store.uploads import Upload
size, chunk = 256 << 20, bytes(512 << 10)
digest = sha256()
for _ in range(size // len(chunk)):
    digest.update(chunk)
upload = Upload(LocalStore(sys.argv[1]), "a/b", "e" * 32, "a" * 32, "f", size=size, sha256=digest.hexdigest())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for first in range(0, size, len(chunk)):
    upload.add(first, chunk)
assert upload.finish(layout.artifact_file("a/b", "e" * 32, "big")) == ""
upload.discard()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    folder = tmp_path_factory.mktemp("store")
    finished = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True)
    assert int(finished.stdout) < 64 * 1024  # ru_maxrss is in KiB


def test_a_file_through_s3(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces and the file's multi-part upload work over S3, and a mismatch leaves no object."""
    monkeypatch.setattr(uploads, "PIECE_BYTES", 2 << 20)
    data = bytes(range(256)) * (9 << 12)
    store = open_store(s3_url)
    upload = _upload(store, data)
    _send(upload, data, 512 << 10)
    assert upload.finish(TARGET) == ""
    assert store.read(TARGET) == data
    upload.discard()
    bad = _upload(store, data, digest="1" * 64)
    _send(bad, data, 512 << 10)
    other = layout.artifact_file(PROJECT, EXPERIMENT, "bad.bin")
    assert "digest" in bad.finish(other)
    assert store.size(other) is None
    assert _pieces(store) == []
