"""What a reader believes of a journal whose bytes are not what was written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace_proto import ids
from headrace_proto.errors import Corrupt, FormatUnknown
from headrace_proto.events import CHECK_WIDTH, POINT_WIDTH, Kind, Outcome
from headrace_proto.home import Home
from headrace_proto.journal import JournalReader, JournalWriter, machine
from headrace_proto.journal.file import SegmentFile
from headrace_proto.journal.layout import CHECKS_AT, COMMITTED_AT, segment_name
from headrace_proto.limits import CHECK_BYTES, EVENT_BYTES_MAX, HEADER_BYTES, SEGMENT_BYTES_FIRST
from tests.proto.journal.reading import Clock, decode, read_all, settle

EXPERIMENT = ids.derived_id("a/b", "damage tests")
pytestmark = pytest.mark.usefixtures("kind")
POINTS = 400


def write(home: Home, points: int = POINTS, close: bool = True) -> JournalWriter:
    writer = JournalWriter(home, "a/b", EXPERIMENT)
    for i in range(points):
        writer.point("v", i, i * 0.5, i)
    if close:
        writer.close(Outcome.SUCCEEDED)
    return writer


def segment(home: Home, writer: JournalWriter, number: int = 0) -> Path:
    return Path(home.journal(writer.source)) / segment_name(number)


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def points(raw: bytes) -> list[tuple[float, int, float]]:
    return [(e[2], e[3], e[4]) for e in decode(raw) if e[0] == Kind.POINT]


EXPECTED = [(float(i), i, i * 0.5) for i in range(POINTS)]


# -- Fault 4: its 4 KiB block is lost and kept aside; no wrong event, everything else there --------------------------


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bit=st.integers(0, 8 * POINTS * 34 - 1))
def test_a_flipped_bit_costs_its_block_and_never_shows_a_wrong_event(
    tmp_path_factory: pytest.TempPathFactory, bit: int
) -> None:
    """Whichever bit of the events flips, the damaged range holds it, everything else is read as it was written."""
    home = Home(tmp_path_factory.mktemp("flip") / "home")
    writer = write(home)
    path = segment(home, writer)
    at = HEADER_BYTES + bit // 8
    byte = path.read_bytes()[at]
    overwrite(path, at, bytes([byte ^ 1 << bit % 8]))
    reader = JournalReader(home.journal(writer.source))
    raw, damages = read_all(reader)
    reader.close()
    (damage,) = damages
    assert damage.first <= at - HEADER_BYTES < damage.end
    assert damage.end - damage.first <= CHECK_BYTES + 2 * CHECK_WIDTH
    found = points(raw)
    assert set(found) <= set(EXPECTED)
    assert len(found) >= POINTS - (CHECK_BYTES + 2 * CHECK_WIDTH) // 34 - 1


# -- Fault 3: a prefix of whole events is read; the rest is not yet there, or lost and said --------------------------


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.integers(HEADER_BYTES, HEADER_BYTES + POINTS * 34))
def test_a_segment_cut_anywhere_gives_a_prefix(tmp_path_factory: pytest.TempPathFactory, size: int) -> None:
    """Truncated at any byte of its events, a journal gives a prefix of them, and the rest as one damage."""
    home = Home(tmp_path_factory.mktemp("cut") / "home")
    writer = write(home)
    reader = JournalReader(home.journal(writer.source))
    settle(reader)
    os.truncate(segment(home, writer), size)
    raw, damages = read_all(reader)
    reader.close()
    found = points(raw)
    assert found == EXPECTED[: len(found)]
    assert sum(d.end - d.first for d in damages) + len(raw) == writer.position


# -- What a reader believes ------------------------------------------------------------------------------------------


def test_a_lying_index_costs_nothing(tmp_path: Path) -> None:
    """With the check index zeroed or garbled, every event is still read: checks are found by their own bytes."""
    home = Home(tmp_path / "home")
    for garbage in (b"\0" * 64, os.urandom(64)):
        writer = write(home)
        overwrite(segment(home, writer), CHECKS_AT, garbage)
        reader = JournalReader(home.journal(writer.source))
        raw, damages = read_all(reader)
        reader.close()
        assert not damages
        assert points(raw) == EXPECTED


def test_an_index_that_is_read_as_it_grows_says_what_it_says_as_a_whole(tmp_path: Path) -> None:
    """Look by look, and below any position; what it says beyond the end is not kept."""
    home = Home(tmp_path / "home")
    writer = write(home, points=1, close=False)
    file, grown = SegmentFile(home.journal(writer.source), 0), []
    for step in range(1, 80 * CHECK_BYTES // POINT_WIDTH):
        writer.point("v", step, 0.0, step)
        if not step % 50:
            file.checks(file.base + file.size)
            file.refresh()
            grown.append(len(file.checks(file.end)))
    whole = SegmentFile(home.journal(writer.source), 0)
    checks = list(whole.checks(whole.end))
    assert grown == sorted(grown)
    assert len(checks) > 70
    for end in (0, CHECK_BYTES // 2, 10 * CHECK_BYTES, checks[9], checks[9] + CHECK_WIDTH, file.end - 1, file.end):
        assert list(file.checks(end)) == [check for check in checks if check + CHECK_WIDTH <= end]
    file.close()
    whole.close()
    writer.abandon()


@pytest.mark.parametrize("lie_at", [0, 2, 40])
def test_an_index_that_lies_ahead_of_its_writer_costs_nothing_either(tmp_path: Path, lie_at: int) -> None:
    """Every event is read as it comes, before and after the writer has put it right."""
    home, clock, raw = Home(tmp_path / "home"), Clock(), b""
    writer = write(home, points=1, close=False)
    lie = (HEADER_BYTES + 3 * CHECK_BYTES).to_bytes(4, "little")
    overwrite(segment(home, writer), CHECKS_AT + 4 * lie_at, lie)
    reader = JournalReader(home.journal(writer.source))
    for step in range(1, 80 * CHECK_BYTES // POINT_WIDTH):
        writer.point("v", step, step * 0.5, step)
        if not step % 50:
            settle(reader, clock)
            found = reader.read(len(raw))
            assert isinstance(found, bytes)
            raw += found
    assert points(raw) == [(float(step), step, step * 0.5) for step in range(step // 50 * 50 + 1)]
    reader.close()
    writer.abandon()


def test_a_committed_offset_beyond_the_file_or_gone_back_is_ignored(tmp_path: Path) -> None:
    """The reader goes neither past the file's end nor behind what it has seen."""
    home = Home(tmp_path / "home")
    writer = write(home, close=False)
    reader = JournalReader(home.journal(writer.source))
    clock = Clock()
    end = settle(reader, clock)
    for bad in (0, HEADER_BYTES, 1 << 40, 1 << 63):
        overwrite(segment(home, writer), COMMITTED_AT, bad.to_bytes(8, "little"))
        assert settle(reader, clock) == end
    reader.close()
    writer.abandon()


def test_a_committed_offset_counts_a_millisecond_after_it_was_seen(tmp_path: Path) -> None:
    """A poll that sees new bytes does not hand them out; the next one, 1 ms later, does."""
    home = Home(tmp_path / "home")
    writer = write(home, close=False)
    reader = JournalReader(home.journal(writer.source))
    first = reader.poll(0)
    assert reader.poll(999_999) == first == 0
    assert reader.read(0) is None
    assert reader.poll(1_000_000) == writer.position
    raw = reader.read(0)
    assert isinstance(raw, bytes)
    reader.close()
    writer.close(Outcome.SUCCEEDED)


def test_damage_counts_only_when_it_lasts(tmp_path: Path) -> None:
    """Bytes that do not fit their check are 'not yet' for two seconds, and come through if they are mended by then."""
    home = Home(tmp_path / "home")
    writer = write(home)
    path = segment(home, writer)
    good = path.read_bytes()[HEADER_BYTES + 100]
    overwrite(path, HEADER_BYTES + 100, bytes([good ^ 1]))
    reader, clock = JournalReader(home.journal(writer.source)), Clock()
    reader.poll(clock.later(0))
    reader.poll(clock.later(0.01))
    assert reader.read(0) is None
    reader.poll(clock.later(1.9))
    assert reader.read(0) is None
    overwrite(path, HEADER_BYTES + 100, bytes([good]))
    assert isinstance(reader.read(0), bytes)
    reader.close()


@pytest.fixture
def another_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the machine had booted since the journal was written."""
    monkeypatch.setattr(machine, "boot_id", lambda: "another boot")


def test_after_a_crash_covered_bytes_count_and_a_whole_tail_too(tmp_path: Path, another_boot: None) -> None:
    """A synced tail that no check covers yet is believed event by event."""
    home = Home(tmp_path / "home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "boot_id", lambda: "the boot before")
        writer = write(home, close=False)
    reader = JournalReader(home.journal(writer.source))
    raw, damages = read_all(reader)
    assert (points(raw), damages) == (EXPECTED, [])
    reader.close()
    writer.abandon()


def test_after_a_crash_a_page_that_never_arrived_is_lost_and_said(tmp_path: Path, another_boot: None) -> None:
    """Zero pages in the uncovered tail cut it at the event that reaches into them."""
    home = Home(tmp_path / "home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "boot_id", lambda: "the boot before")
        writer = write(home, close=False)
    page = (HEADER_BYTES + writer.position) // 4096 * 4096
    overwrite(segment(home, writer), page, b"\0" * 4096)
    reader = JournalReader(home.journal(writer.source))
    raw, damages = read_all(reader)
    found = points(raw)
    assert found == EXPECTED[: len(found)]
    assert damages[-1].end == writer.position
    assert sum(damage.end - damage.first for damage in damages) == writer.position - len(raw) <= 2 * CHECK_BYTES + 68
    reader.close()
    writer.abandon()


# -- What a reader refuses, trims and bounds -------------------------------------------------------------------------


def test_a_stranger_in_the_folder_is_refused(tmp_path: Path) -> None:
    """Links, folders, other versions, other magic and other sources' segments are reported, not followed."""
    home = Home(tmp_path / "home")
    writer = write(home)
    path = segment(home, writer)
    original = path.read_bytes()
    overwrite(path, 8, (99).to_bytes(4, "little"))
    with pytest.raises(FormatUnknown, match="99"):
        JournalReader(home.journal(writer.source))
    for offset in (0, 12, 52, 70):
        path.write_bytes(original[:offset] + b"\xff\xff" + original[offset + 2 :])
        with pytest.raises(Corrupt):
            JournalReader(home.journal(writer.source))
    for size in (0, 10, HEADER_BYTES - 1):
        path.write_bytes(original[:size])
        with pytest.raises(Corrupt):
            JournalReader(home.journal(writer.source))
    path.unlink()
    path.symlink_to("/etc/hostname")
    with pytest.raises(OSError, match="symbolic links"):
        JournalReader(home.journal(writer.source))
    path.unlink()
    with pytest.raises(Corrupt, match="no segment"):
        JournalReader(home.journal(writer.source))
    os.mkfifo(path)
    with pytest.raises(Corrupt):
        JournalReader(home.journal(writer.source))


def test_trim_frees_whole_segments_below_a_position_only(tmp_path: Path) -> None:
    """What lies at or above the position stays readable; the segment in use is never deleted."""
    home = Home(tmp_path / "home")
    writer = write(home, points=3 * SEGMENT_BYTES_FIRST // 34, close=False)
    reader = JournalReader(home.journal(writer.source))
    settle(reader)
    assert reader.trim(1000) == 0
    boundary = next(p for p in range(SEGMENT_BYTES_FIRST - HEADER_BYTES, 0, -1) if reader.trim(p) or p == 1)
    assert boundary == SEGMENT_BYTES_FIRST - HEADER_BYTES or reader.oldest > 0
    reader.trim(1 << 60)
    assert reader.oldest <= writer.position
    raw = reader.read(reader.oldest)
    assert isinstance(raw, bytes)
    lost = reader.read(0)
    reader.poll(1 << 50)
    assert lost is None
    assert reader.read(0) == (0, reader.oldest, "its segments are gone")
    reader.close()
    writer.close(Outcome.SUCCEEDED)


def test_a_read_is_bounded_and_ends_between_events(tmp_path: Path) -> None:
    """Each read gives whole events, no more than was asked for, or one block where a block is more."""
    home = Home(tmp_path / "home")
    writer = JournalWriter(home, "a/b", EXPERIMENT)
    for i in range(300):
        writer.point("v", i, 1.0, 1)
        if i % 50 == 0:
            writer.event(Kind.PROPERTY, 1, "k", "x" * (EVENT_BYTES_MAX // 2))
    writer.close(Outcome.SUCCEEDED)
    reader = JournalReader(home.journal(writer.source))
    end, position = settle(reader), 0
    while position < end:
        raw = reader.read(position, 150 * 1024)
        assert isinstance(raw, bytes)
        assert 0 < len(raw) <= 150 * 1024
        decode(raw)
        position += len(raw)
    reader.close()


def test_a_long_backlog_is_read_with_few_descriptors(tmp_path: Path) -> None:
    """However many segments wait, only those in hand are open."""
    home = Home(tmp_path / "home")
    writer = write(home, points=6 * SEGMENT_BYTES_FIRST * 4 // 34)
    reader = JournalReader(home.journal(writer.source))
    end, position = settle(reader), 0
    folder = home.journal(writer.source)
    while position < end:
        raw = reader.read(position)
        assert isinstance(raw, bytes)
        position += len(raw)
        links = [os.path.join("/proc/self/fd", fd) for fd in os.listdir("/proc/self/fd")]
        held = [link for link in links if os.path.islink(link) and os.readlink(link).startswith(folder)]
        assert len(held) <= 3
    reader.sync()
    reader.close()


def test_a_segment_that_cannot_be_read_is_an_obstacle_and_not_the_end(tmp_path: Path) -> None:
    """What lies before it is handed out; the journal is neither closed nor dead, so nobody deletes what lies behind it."""
    home = Home(tmp_path / "home")
    writer = write(home, points=2 * SEGMENT_BYTES_FIRST // 34)
    overwrite(segment(home, writer, 1), 0, b"\0" * 8)
    reader, clock = JournalReader(home.journal(writer.source)), Clock()
    end = settle(reader, clock)
    assert 0 < end < writer.position
    assert "begins with" in reader.obstacle
    assert isinstance(reader.read(0), bytes)
    assert not reader.closed
    header = reader.header
    reader.header = header._replace(pid=0)  # type: ignore[misc]
    settle(reader, clock)
    assert not reader.writer_gone(header.host, header.boot_id)
    reader.close()


def test_a_writer_killed_while_it_makes_a_segment_leaves_no_half_one(tmp_path: Path) -> None:
    """A segment gets its name only with its header in place; what a kill leaves before that is no segment."""
    home = Home(tmp_path / "home")
    writer = write(home, close=False)
    (Path(home.journal(writer.source)) / f".{segment_name(1)}").write_bytes(b"\0" * SEGMENT_BYTES_FIRST)
    reader = JournalReader(home.journal(writer.source))
    raw, damages = read_all(reader)
    assert (points(raw), damages, reader.obstacle) == (EXPECTED, [], "")
    reader.close()
    writer.abandon()


def test_another_hosts_journal_is_neither_dead_nor_damaged_until_a_person_says_so(tmp_path: Path) -> None:
    """A journal that was copied or is shared while its trainer lives elsewhere: a torn tail is 'not yet', a free lock no death."""
    home = Home(tmp_path / "home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "host_name", lambda: "another host")
        patch.setattr(machine, "boot_id", lambda: "its boot")
        writer = write(home, close=False)
    overwrite(segment(home, writer), HEADER_BYTES + writer.position - 20, b"\xff" * 20)
    covered = b"".join(read_until_nothing(reader := JournalReader(home.journal(writer.source))))
    assert points(covered) == EXPECTED[: len(points(covered))]
    host, boot = machine.host_name(), machine.boot_id()
    clock = Clock()
    for _ in range(3):
        clock.later(3600)
        reader.poll(clock.now_ns)
        assert reader.read(len(covered)) is None
        assert not reader.writer_gone(host, boot)
    (Path(home.journal(writer.source)) / "declared-dead").touch()
    reader.poll(clock.later(10))
    assert reader.writer_gone(host, boot)
    damage = reader.read(len(covered))
    assert damage == (len(covered), writer.position, "torn by a crash")
    reader.close()
    writer.abandon()


def read_until_nothing(reader: JournalReader) -> list[bytes]:
    """What can be read without any damage being declared."""
    settle(reader)
    position, parts = reader.oldest, []
    while isinstance(found := reader.read(position), bytes):
        parts.append(found)
        position += len(found)
    return parts
