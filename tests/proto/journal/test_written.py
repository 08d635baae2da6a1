"""The journal on network and copy-on-write file systems: written, not mapped, and every write may fail."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace_proto import filesystem, ids
from headrace_proto.errors import HomeUnusable, TelemetryWarning
from headrace_proto.events import Kind, Outcome
from headrace_proto.home import Home
from headrace_proto.journal import JournalReader, JournalWriter
from headrace_proto.journal.layout import COMMITTED_AT
from headrace_proto.limits import HEADER_BYTES, SEGMENT_BYTES_FIRST
from tests.proto.journal.reading import events_of, lies_on, points_of, settle

EXPERIMENT = ids.derived_id("a/b", "written tests")
pytestmark = pytest.mark.filterwarnings("ignore:.*were dropped")
Pwrite = Callable[[int, Any, int], int]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed write is tried again at the next call."""
    monkeypatch.setattr("headrace_proto.journal.tape.RETRY_S", 0.0)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """One on copy-on-write."""
    monkeypatch.setattr(filesystem, "kind_of", lies_on("btrfs"))
    return Home(tmp_path / "home")


class Disk:
    """os.pwrite over a file system that can be made to fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fault: Callable[[Pwrite, int, Any, int], int] | None = None
        self._pwrite: Pwrite = os.pwrite
        monkeypatch.setattr("headrace_proto.journal.written.os.pwrite", self)

    def __call__(self, descriptor: int, data: Any, at: int) -> int:
        if self.fault is None:
            return self._pwrite(descriptor, data, at)
        return self.fault(self._pwrite, descriptor, data, at)


def test_what_can_be_mapped_is_known_by_the_file_systems_type() -> None:
    """Local disks that reserve what they allocate are mapped; servers, FUSE and copy-on-write are written to."""
    local = ["ext4", "ext3", "xfs", "tmpfs", "overlay", "f2fs", "ramfs", "jfs", ""]
    network = [
        "nfs",
        "nfs4",
        "lustre",
        "cifs",
        "smb3",
        "9p",
        "ceph",
        "gpfs",
        "beegfs",
        "virtiofs",
        "afs",
        "ocfs2",
        "gfs2",
    ]
    fuse = ["fuse", "fuse.sshfs", "fuse.gcsfuse", "fuse.juicefs", "fuse.ceph-fuse", "fuse.glusterfs", "fuseblk"]
    for kind in local:
        assert (filesystem.can_be_mapped(kind), filesystem.is_network(kind)) == (True, False), kind
    for kind in network + fuse:
        assert (filesystem.can_be_mapped(kind), filesystem.is_network(kind)) == (False, True), kind
    for kind in ["btrfs", "zfs", "bcachefs"]:
        assert (filesystem.can_be_mapped(kind), filesystem.is_network(kind)) == (False, False), kind


def test_a_folders_file_system_is_found_through_links_and_before_it_exists(tmp_path: Path) -> None:
    """By its mount, so that a link, or a folder still to be made, is judged by where the bytes will lie."""
    here = filesystem.kind_of(str(tmp_path))
    assert here
    assert filesystem.kind_of("/proc/self") == "proc"
    assert filesystem.kind_of(str(tmp_path / "not" / "yet")) == here
    (tmp_path / "link").symlink_to("/dev/shm")
    assert filesystem.kind_of(str(tmp_path / "link")) == filesystem.kind_of("/dev/shm") == "tmpfs"


def test_a_server_reserves_what_copy_on_write_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment on a server has all its blocks before it is used; on copy-on-write it only has its size."""
    for kind, reserved in (("nfs4", True), ("btrfs", False)):
        monkeypatch.setattr(filesystem, "kind_of", lies_on(kind))
        writer = JournalWriter(Home(tmp_path / kind), "a/b", EXPERIMENT)
        status = os.stat(os.path.join(writer.folder, "000000.seg"))
        assert status.st_size == SEGMENT_BYTES_FIRST
        assert (status.st_blocks * 512 >= SEGMENT_BYTES_FIRST) == reserved
        writer.close(Outcome.SUCCEEDED)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def log(writer: JournalWriter, first: int, end: int) -> None:
    for i in range(first, end):
        writer.point("v", i, i * 0.5, 1)


def expected(*ranges: range) -> list[tuple[float, float]]:
    return [(float(i), i * 0.5) for one in ranges for i in one]


# -- Fault 25: it is written, not mapped, with the same promises; each host has its part and its agent ---------------


@pytest.mark.parametrize("what", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.ESTALE], ids=errno.errorcode.get)
@pytest.mark.parametrize("where", ["bytes", "word"])
def test_a_failed_write_drops_its_event_and_nothing_else(home: Home, disk: Disk, what: int, where: str) -> None:
    """Whether the bytes or the word could not be written: the event is in the gap, nothing is there twice, later ones go on."""
    writer = JournalWriter(home, "a/b", EXPERIMENT)
    log(writer, 0, 10)

    def fail(pwrite: Pwrite, descriptor: int, data: Any, at: int) -> int:
        if (at == COMMITTED_AT) == (where == "word"):
            raise OSError(what, os.strerror(what))
        return pwrite(descriptor, data, at)

    disk.fault = fail
    log(writer, 10, 17)
    assert points_of(home, writer.source) == expected(range(10))
    disk.fault = None
    log(writer, 17, 30)
    writer.close(Outcome.SUCCEEDED)
    assert points_of(home, writer.source) == expected(range(10), range(17, 30))
    assert [e[2:] for e in events_of(home, writer.source) if e[0] == Kind.GAP] == [[7, os.strerror(what)]]
    assert writer.dropped == 7


def test_a_write_that_fails_and_arrives_all_the_same_counts(home: Home, disk: Disk) -> None:
    """What a reader may have seen is never taken back: the word is read again before its event is called dropped."""
    writer = JournalWriter(home, "a/b", EXPERIMENT)

    def fail_after(pwrite: Pwrite, descriptor: int, data: Any, at: int) -> int:
        done = pwrite(descriptor, data, at)
        if at == COMMITTED_AT:
            raise OSError(errno.EIO, "after the effect")
        return done

    disk.fault = fail_after
    log(writer, 0, 500)
    writer.close(Outcome.SUCCEEDED)
    assert writer.dropped == 0
    assert points_of(home, writer.source) == expected(range(500))


@pytest.mark.parametrize("most", [1, 7])
def test_short_writes_are_finished(home: Home, disk: Disk, most: int) -> None:
    """A system call may take fewer bytes than it was given; the word follows only when all of them are there."""
    writer = JournalWriter(home, "a/b", EXPERIMENT)
    disk.fault = lambda pwrite, descriptor, data, at: pwrite(descriptor, data[:most], at)
    log(writer, 0, 300)
    writer.row({f"r{k}": float(k) for k in range(50)}, 1, 1)
    writer.close(Outcome.SUCCEEDED)
    assert points_of(home, writer.source) == expected(range(300))
    assert sum(e[0] == Kind.ROW for e in events_of(home, writer.source)) == 1


def test_every_write_may_fail_once(home: Home, disk: Disk) -> None:
    """The nth write fails, for every n of a run that rolls over: what was not dropped is there once, in order, and the rest is
    counted exactly. Where the opening fails, it is refused as a whole."""
    events, large = 60, "x" * 90_000
    fails_at = calls = 0

    def fail(pwrite: Pwrite, descriptor: int, data: Any, at: int) -> int:
        nonlocal calls
        calls += 1
        if calls == fails_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(descriptor, data, at)

    disk.fault = fail
    while fails_at <= calls:
        fails_at, calls = fails_at + 1, 0
        try:
            writer = JournalWriter(home, "a/b", EXPERIMENT)
        except HomeUnusable:
            continue
        for i in range(events):
            if i % 4:
                writer.point("v", i, i * 0.5, 1)
            else:
                writer.event(Kind.PROPERTY, i, "large", large)
        dropped = writer.dropped
        writer.close(Outcome.SUCCEEDED)
        found = events_of(home, writer.source)
        numbers = [e[2] if e[0] == Kind.POINT else e[1] for e in found if e[0] in (Kind.POINT, Kind.PROPERTY)]
        assert numbers == sorted(set(numbers)), fails_at
        assert events - len(numbers) == dropped == sum(e[2] for e in found if e[0] == Kind.GAP), fails_at
        assert [e[0] for e in found].count(Kind.CLOSED) == 1, fails_at
        shutil.rmtree(writer.folder)
    assert fails_at > 2 * events
    assert os.listdir(home.journals) == []


def test_a_disk_that_stays_full_ends_the_journal_as_a_kill_would(home: Home, disk: Disk) -> None:
    """Copy-on-write keeps no reserve: close() returns, says so once, and what was written before is whole."""
    writer = JournalWriter(home, "a/b", EXPERIMENT)
    log(writer, 0, 100)

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    disk.fault = full
    with pytest.warns(TelemetryWarning, match="could not be closed"):
        writer.close(Outcome.SUCCEEDED)
    assert points_of(home, writer.source) == expected(range(100))
    reader = JournalReader(home.journal(writer.source))
    settle(reader)
    assert not reader.closed
    reader.close()


def test_a_failing_server_is_asked_once_a_second(home: Home, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write may wait for a server that is gone: until RETRY_S is over calls are dropped without another try."""
    monkeypatch.setattr("headrace_proto.journal.tape.RETRY_S", 3600.0)
    writer = JournalWriter(home, "a/b", EXPERIMENT)
    tries = 0

    def fail(*_: Any) -> int:
        nonlocal tries
        tries += 1
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    disk.fault = fail
    log(writer, 0, 1000)
    assert (tries, writer.dropped) == (1, 1000)


def test_both_ways_of_writing_give_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte for byte behind the header, and in the index of checks, when the facts are the same."""
    monkeypatch.setattr("headrace_proto.journal.tape.unpack", lambda *_: (1 << 60,))
    monkeypatch.setattr("headrace_proto.journal.tape.random_id", lambda: ids.derived_id("a/b", "one source"))
    monkeypatch.setattr("headrace_proto.journal.tape.time.time_ns", lambda: 1)
    files = []
    for kind in ("ext4", "btrfs"):
        monkeypatch.setattr(filesystem, "kind_of", lies_on(kind))
        writer = JournalWriter(Home(tmp_path / kind), "a/b", EXPERIMENT)
        log(writer, 0, 2000)
        writer.row({"a": 1.0, "b": 2.0}, None, 1)
        writer.close(Outcome.SUCCEEDED)
        files.append((Path(writer.folder) / "000000.seg").read_bytes())
    assert files[0][HEADER_BYTES:].rstrip(b"\0")
    assert files[0] == files[1]
