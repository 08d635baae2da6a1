"""The journal against a model: whatever is called, killed, cut or flipped, what a reader shows is what was logged."""

from __future__ import annotations

import math
import os
import shutil
import struct
import tempfile
from bisect import bisect_left, bisect_right
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from headrace_proto import ids
from headrace_proto.errors import Corrupt, FormatUnknown, InvalidValue
from headrace_proto.events import CHECK_WIDTH, ChannelType, Kind, Outcome, pack
from headrace_proto.home import Home
from headrace_proto.journal import JournalReader, JournalWriter, machine, tape
from headrace_proto.journal.layout import CHECKS_AT, FACTS_AT, segment_name, segment_numbers
from headrace_proto.limits import CHECK_BYTES, EVENT_BYTES_MAX, HEADER_BYTES, KIB, ROW_VALUES_MAX
from tests.examples import examples
from tests.proto.journal.reading import Clock, Lost, Reading

EXPERIMENT = ids.derived_id("a/b", "model tests")
SMALL_FIRST, SMALL = 144 * KIB, 176 * KIB
"""Segments that hold one of the largest events, so that a few calls fill one."""
names = st.sampled_from(["loss", "acc", "x" * 300, "ä/ö", "lr"])
steps = st.one_of(st.none(), st.floats(), st.integers(-3, 1 << 40).map(float))
values = st.floats()
times = st.integers(0, (1 << 64) - 1)
near_limits = st.sampled_from([CHECK_BYTES, EVENT_BYTES_MAX]).flatmap(lambda n: st.integers(n - 40, n))
text_sizes = st.one_of(
    st.integers(0, 600), near_limits, st.sampled_from([EVENT_BYTES_MAX - 1, EVENT_BYTES_MAX, EVENT_BYTES_MAX + 1])
)
row_sizes = st.sampled_from([1, 2, 3, 64, 65, 500, ROW_VALUES_MAX - 1, ROW_VALUES_MAX, ROW_VALUES_MAX + 1])


class JournalMachine(RuleBasedStateMachine):
    """One source: a real writer in real files, a reader that follows it, and what should be there."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="headrace-machine-"))
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(tape, "SEGMENT_BYTES_FIRST", SMALL_FIRST)
        self.patch.setattr(tape, "SEGMENT_BYTES", SMALL)
        self.patch.setattr("headrace_proto.journal.writer.warn", lambda _: None)
        self.home = Home(self.folder / "home")
        self.writer = JournalWriter(self.home, "a/b", EXPERIMENT)
        self.expected: list[bytes] = []
        self.marks = [(self.writer.position, 0)]  # (position behind a call, events expected below it)
        self.channels: dict[str, int] = {}
        self.schemas: dict[tuple[str, ...], int] = {}
        self.dropped = 0
        self.follower, self.clock = JournalReader(self.writer.folder), Clock()
        self.followed = b""
        self.found: list[bytes] = []  # what was followed, packed again: NaNs compare, and C compares fast
        self.found_ends: list[int] = []
        self.checks: list[int] = []
        self.reported = self.decoded = 0
        self.copies = 0

    def teardown(self) -> None:
        self.writer.abandon()
        self.follower.close()
        self.patch.undo()
        shutil.rmtree(self.folder)

    # -- What is logged --------------------------------------------------------------------------------------------------

    def channel(self, name: str, of: ChannelType = ChannelType.NUMERIC) -> int:
        if name not in self.channels:
            self.channels[name] = len(self.channels)
            self.expect(Kind.CHANNEL, self.channels[name], name, int(of))
        return self.channels[name]

    def expect(self, *event: Any, count: int = 1) -> None:
        self.expected += [msgpack.packb((int(event[0]), *event[1:]))] * count

    def called(self) -> None:
        self.marks.append((self.writer.position, len(self.expected)))

    @initialize()
    def opened(self) -> None:
        self.called()

    @precondition(lambda self: not self.writer.closed)
    @rule(name=names, step=steps, value=values, time=times, count=st.sampled_from([1, 1, 1, 7, 130, 600]))
    def points(self, name: str, step: float | None, value: float, time: int, count: int) -> None:
        for _ in range(count):
            self.writer.point(name, step, value, time)
        number = self.channel(name)
        if step is None:
            self.expect(Kind.AUTO_POINT, number, time, value, count=count)
        elif math.isfinite(step):
            self.expect(Kind.POINT, number, step, time, value, count=count)
        else:
            self.dropped += count
        self.called()

    @precondition(lambda self: not self.writer.closed)
    @rule(size=row_sizes, step=steps, value=values, time=times)
    def row(self, size: int, step: float | None, value: float, time: int) -> None:
        keys = tuple(f"k{i}" for i in range(size))
        self.writer.row(dict.fromkeys(keys, value), step, time)
        numbers = [self.channel(key) for key in keys]
        as_points = size > ROW_VALUES_MAX
        if not as_points and keys not in self.schemas:
            self.schemas[keys] = len(self.schemas)
            self.expect(Kind.SCHEMA, self.schemas[keys], numbers)
        if step is not None and not math.isfinite(step):
            self.dropped += size
        elif as_points and step is None:
            for number in numbers:
                self.expect(Kind.AUTO_POINT, number, time, value)
        elif as_points:
            for number in numbers:
                self.expect(Kind.POINT, number, step, time, value)
        else:
            head = [Kind.AUTO_ROW, self.schemas[keys]] if step is None else [Kind.ROW, self.schemas[keys], step]
            self.expect(*head, time, struct.pack(">d", value) * size)
        self.called()

    @precondition(lambda self: not self.writer.closed)
    @rule(
        size=text_sizes, step=st.none() | st.integers(0, 9).map(float), filling=st.sampled_from(["x", "\0", "\x95\x09"])
    )
    def text(self, size: int, step: float | None, filling: str) -> None:
        overhead = len(pack(Kind.TEXT, 0, step, 1, "x" * 70_000)) - 70_000
        payload = (filling * size)[: max(size - overhead, 0)]
        fits = len(pack(Kind.TEXT, self.channels.get("notes", len(self.channels)), step, 1, payload)) <= EVENT_BYTES_MAX
        try:
            self.writer.channel_event(Kind.TEXT, "notes", ChannelType.TEXT, step, 1, payload)
        except InvalidValue:
            assert not fits
        number = self.channel("notes", ChannelType.TEXT)
        if fits:
            self.expect(Kind.TEXT, number, step, 1, payload)
        self.called()

    @precondition(lambda self: not self.writer.closed)
    @rule(size=st.integers(EVENT_BYTES_MAX - 1, EVENT_BYTES_MAX + 1))
    def event_at_the_limit(self, size: int) -> None:
        value = "v" * (size - len(pack(Kind.PROPERTY, 1, "p", "v" * 70_000)) + 70_000)
        if size > EVENT_BYTES_MAX:
            with pytest.raises(InvalidValue):
                self.writer.event(Kind.PROPERTY, 1, "p", value)
        else:
            self.writer.event(Kind.PROPERTY, 1, "p", value)
            self.expect(Kind.PROPERTY, 1, "p", value)
        self.called()

    @rule()
    def sync(self) -> None:
        self.writer.sync()
        self.follower.sync()
        self.called()

    @precondition(lambda self: not self.writer.closed and len(self.expected) > 20)
    @rule(detail=st.sampled_from([None, "traceback" * 5000]))
    def close(self, detail: str | None) -> None:
        self.writer.close(Outcome.FAILED, detail)
        self.called()

    # -- What is read ----------------------------------------------------------------------------------------------------

    @rule(bytes_max=st.sampled_from([1, 5 * KIB, 300 * KIB]))
    def follow(self, bytes_max: int) -> None:
        self.follower.poll(self.clock.later(0.01))
        end = self.follower.poll(self.clock.later(0.01))
        assert end == self.writer.position
        while len(self.followed) < end:
            found = self.follower.read(len(self.followed), bytes_max)
            assert isinstance(found, bytes)
            assert found
            self.followed += found
        self.decode_followed()

    def decode_followed(self) -> None:
        """What is new, whole events: beside the reports of what was dropped, which come when there is room."""
        unpacker, start = msgpack.Unpacker(max_buffer_size=1 << 30), self.decoded
        unpacker.feed(memoryview(self.followed)[start:])
        for event in unpacker:
            if event[0] == Kind.CHECK:
                self.checks.append(self.decoded)
            elif event[0] == Kind.GAP:
                self.reported += event[2]
            elif event[0] != Kind.OPEN:
                self.found.append(msgpack.packb(event))
                self.found_ends.append(start + unpacker.tell())
            self.decoded = start + unpacker.tell()
        assert self.decoded == len(self.followed)

    @rule(back=st.floats(0, 1))
    def trim(self, back: float) -> None:
        """Below any position that the store could have named."""
        self.follow(300 * KIB)
        position = self.marks[int(back * (len(self.marks) - 1))][0]
        before = self.follower.oldest
        self.follower.trim(position)
        assert self.follower.oldest <= max(position, before)
        reading = Reading(self.writer.folder, 64 * KIB)
        assert reading.oldest == self.follower.oldest
        assert reading.raw == self.followed[reading.oldest :]

    @rule(bytes_max=st.sampled_from([1, 64 * KIB]))
    def killed(self, bytes_max: int) -> None:
        """A copy of the files as they stand, which is what a kill leaves: every returned call is there, in order, once."""
        reading = Reading(self.copy(), bytes_max)
        assert not reading.lost
        assert not reading.obstacle
        assert reading.end == self.writer.position
        assert reading.closed == self.writer.closed
        assert reading.gone
        self.follow(300 * KIB)
        assert reading.raw == self.followed[reading.oldest :]

    @invariant()
    def nothing_is_lost_or_invented(self) -> None:
        self.follow(300 * KIB)
        found = self.found
        if self.writer.closed:
            *found, closed = found
            assert closed[1] == Kind.CLOSED
            assert self.reported == self.dropped
        assert found == self.expected
        for position, count in self.marks[-3:]:
            assert min(bisect_right(self.found_ends, position), len(found)) == count

    # -- What is damaged -------------------------------------------------------------------------------------------------

    def copy(self) -> str:
        self.copies += 1
        folder = self.folder / str(self.copies) / self.writer.source
        shutil.copytree(self.writer.folder, folder)
        return str(folder)

    def blocks(self) -> list[tuple[int, int]]:
        """[begin, end) of every covered block, by decoding what was followed."""
        found, start, segments = [], 0, self.bases()
        for check in self.checks:
            begin = max(start, segments[bisect_right(segments, check) - 1])
            found.append((begin, check + CHECK_WIDTH))
            start = check + CHECK_WIDTH
        return found

    def bases(self) -> list[int]:
        return [file.base for file in self.follower._files]

    def place(self, position: int) -> tuple[Path, int]:
        """The file name and offset of a position."""
        bases = self.bases()
        nth = bisect_right(bases, position) - 1
        number = self.follower._files[nth].head.number
        return Path(segment_name(number)), position - bases[nth] + HEADER_BYTES

    def hit(self, first: int, end: int) -> Lost:
        """What a reader must give up when the covered bytes [first, end) are damaged: their blocks, and no more."""
        blocks = self.blocks()
        ends = [block[1] for block in blocks]
        touched = blocks[bisect_right(ends, first) : bisect_left([block[0] for block in blocks], end)]
        return [(touched[0][0], touched[-1][1])] if touched else []

    def survives(self, folder: str, lost: Lost, tail: int, bytes_max: int = 64 * KIB) -> None:
        reading = Reading(folder, bytes_max)
        reading.assert_true(self.followed)
        assert reading.lost in (lost, [(first, max(end, tail)) for first, end in lost])
        assert (
            sum(len(part) for _, part in reading.parts) + sum(b - a for a, b in reading.lost)
            == self.writer.position - reading.oldest
        )

    @precondition(lambda self: self.follower._files and len(self.marks) > 1)
    @rule(
        where=st.floats(0, 1), length=st.sampled_from([1, 1, 40, 512, 6000]), bit=st.integers(0, 7), boot=st.booleans()
    )
    def flip_covered_bytes(self, where: float, length: int, bit: int, boot: bool) -> None:
        """A bit, or the bits of a stretch inside a segment, of bytes that a check covers: the hit blocks are lost, nothing else."""
        blocks = [block for block in self.blocks() if block[0] >= self.follower.oldest]
        if not blocks:
            return
        first = blocks[0][0] + int(where * (blocks[-1][1] - blocks[0][0] - 1))
        if first >= self.follower.end:
            return
        name, offset = self.place(first)
        bases = [*self.bases(), self.follower.end]
        end = min(first + length, blocks[-1][1], bases[bisect_right(bases, first)])
        folder = self.copy()
        with (Path(folder) / name).open("r+b") as file:
            file.seek(offset)
            data = file.read(end - first)
            file.seek(offset)
            file.write(bytes(byte ^ 1 << bit for byte in data))
        lost = self.hit(first, end)
        if boot:
            with pytest.MonkeyPatch.context() as later:
                later.setattr(machine, "boot_id", lambda: "a later boot")
                reading = Reading(folder, 64 * KIB)
            reading.assert_true(self.followed)
            assert all(any(a <= begin and stop <= b for a, b in reading.lost) for begin, stop in lost)
            return
        behind = self.follower.end if end == blocks[-1][1] and length > CHECK_WIDTH else 0
        # which bytes follow a check that is wholly destroyed, nothing says any more
        self.survives(folder, lost, behind)

    @precondition(lambda self: len(self.marks) > 1)
    @rule(where=st.floats(0, 1), zeros=st.booleans(), bytes_max=st.sampled_from([1, 700 * KIB]))
    def cut_or_zeroed_behind(self, where: float, zeros: bool, bytes_max: int) -> None:
        """A segment that ends, or is zeros, behind any byte: the blocks before it and the other segments stay."""
        oldest, end = self.follower.oldest, self.follower.end
        covered = self.blocks()[-1][1] if self.blocks() else 0
        if covered <= oldest:  # in its own boot, what no check covers is believed as it stands
            return
        first = oldest + int(where * (covered - oldest - 1))
        name, offset = self.place(first)
        bases = [*self.bases(), end]
        last = bases[bisect_right(bases, first)]
        folder = self.copy()
        path = Path(folder) / name
        size = path.stat().st_size
        os.truncate(path, offset)
        if zeros:
            os.truncate(path, size)
        reading = Reading(folder, bytes_max)
        reading.assert_true(self.followed)
        held = [block for block in self.blocks() if block[1] <= first or block[0] >= last]
        for begin, stop in held:
            assert not any(a < stop and begin < b for a, b in reading.lost)
        if not zeros and last == end:
            assert reading.end <= end
        else:
            assert sum(b - a for a, b in reading.lost) + len(reading.raw) == end - oldest
        assert not reading.lost or last == end or reading.lost[-1][1] <= last

    @precondition(lambda self: len(self.marks) > 1)
    @rule(kind=st.sampled_from(["zero", "garbage", "a bit"]), bytes_max=st.sampled_from([1, 700 * KIB]), data=st.data())
    def index_lies(self, kind: str, bytes_max: int, data: st.DataObject) -> None:
        """The list of checks in a header is wrong: not one covered event is lost."""
        folder = self.copy()
        number = data.draw(st.sampled_from(segment_numbers(folder)))
        with (Path(folder) / segment_name(number)).open("r+b") as file:
            file.seek(CHECKS_AT)
            index = bytearray(file.read(HEADER_BYTES - CHECKS_AT))
            if kind == "zero":
                index[:] = bytes(len(index))
            elif kind == "garbage":
                first = data.draw(st.integers(0, 40))
                index[first : first + 64] = data.draw(st.binary(min_size=64, max_size=64))
            else:
                index[data.draw(st.integers(0, 200))] ^= 1 << data.draw(st.integers(0, 7))
            file.seek(CHECKS_AT)
            file.write(index)
        reading = Reading(folder, bytes_max)
        reading.assert_true(self.followed)
        assert len(reading.raw) + sum(b - a for a, b in reading.lost) == self.writer.position - reading.oldest
        covered = self.blocks()[-1][1] if self.blocks() else 0
        assert all(first >= covered for first, _ in reading.lost)

    @rule(bit=st.integers(0, 8 * 1024 - 1), data=st.data())
    def header_bit_flips(self, bit: int, data: st.DataObject) -> None:
        """Any bit of the facts in a header: refused, or an obstacle, or of no consequence; never a wrong event, never the end."""
        folder = self.copy()
        number = data.draw(st.sampled_from(segment_numbers(folder)))
        at = bit // 8 if bit // 8 < FACTS_AT else data.draw(st.integers(FACTS_AT, 1000))
        with (Path(folder) / segment_name(number)).open("r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1 << bit % 8]))
        try:
            reading = Reading(folder, 64 * KIB)
        except (Corrupt, FormatUnknown):
            return
        reading.assert_true(self.followed)
        assert reading.closed <= self.writer.closed
        if not reading.obstacle:
            for begin, stop in self.blocks():
                if begin >= reading.oldest:
                    assert not any(a < stop and begin < b for a, b in reading.lost)


def test_a_journal_shows_what_was_logged_whatever_happens_to_it() -> None:
    """Calls, rolls, kills, trims, flipped bits, cut and zeroed files, lying headers, in any order: a reader never crashes, hangs
    or shows a wrong event; what a call returned for is there; of damage only the hit blocks are missing, and are said to be."""
    run_state_machine_as_test(JournalMachine, settings=examples(25, steps=12))
