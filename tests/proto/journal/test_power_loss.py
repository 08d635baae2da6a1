"""What is left of a journal when its node loses power: modelled, because real disks do not tear on demand."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from headrace_proto import ids
from headrace_proto.errors import Corrupt
from headrace_proto.events import ChannelType, Kind, Outcome
from headrace_proto.home import Home
from headrace_proto.journal import JournalReader, JournalWriter, machine, tape
from headrace_proto.journal.layout import SECTOR
from headrace_proto.limits import KIB
from tests.examples import SOAK_VARIABLE
from tests.proto.journal.disk import Disk
from tests.proto.journal.reading import Clock, Reading, settle

EXPERIMENT = ids.derived_id("a/b", "power tests")
RUNS = 12 * max(int(os.environ.get(SOAK_VARIABLE) or 0), 1)
SMALL_EVENT = 600
"""An agent cannot cover what it syncs with a check: if the last event's bytes in its last sector are all zeros, they may as well
not have arrived, and the event is called lost. An event with more zeros than a sector is covered when it is written."""
IMAGES = 12
"""Legal images tried of what each run left."""


class Trainer:
    """A writer that logs what chance says, and an agent's reader beside it."""

    def __init__(self, folder: Path, chance: random.Random, disk: Disk) -> None:
        self.home = Home(folder / "home")
        self.chance, self.disk = chance, disk
        self.writer = JournalWriter(self.home, "a/b", EXPERIMENT)
        self.reader, self.clock = JournalReader(self.writer.folder), Clock()
        self.synced = 0
        self.sure = 0  # what of it no crash can call in question
        disk.look()

    def step(self) -> None:
        chance, writer = self.chance, self.writer
        match chance.randrange(8):
            case 0 | 1:
                for i in range(chance.choice([1, 5, 80])):
                    writer.point("v", i, chance.choice([0.0, 1.0, 0.1]), i << 40)
            case 2:
                size = chance.choice([1, 40, 90, 700])
                writer.row({f"k{i}": chance.choice([0.0, 0.5]) for i in range(size)}, 0.0, 0)
            case 3:
                filling = chance.choice(["\0", "x"])
                writer.channel_event(
                    Kind.TEXT, "t", ChannelType.TEXT, None, 1, filling * chance.choice([3, 700, 9_000])
                )
            case 4:
                writer.row(dict.fromkeys((f"k{i}" for i in range(90)), 0.0), 0.0, 0)
            case 5:
                writer.channel_event(Kind.TEXT, "t", ChannelType.TEXT, None, 1, "y" * chance.choice([30_000, 120_000]))
            case 6:
                writer.sync()
                self.synced = writer.position
                self.sure = self.synced
            case 7:
                self.sync_as_agent()
        self.disk.look()

    def sync_as_agent(self) -> None:
        settle(self.reader, self.clock)
        self.reader.sync()
        self.synced = self.reader.end
        file = self.reader._files[-1]
        last = file.offset(self.synced) % SECTOR
        zeros = not any(file.read(self.synced - last, self.synced))
        self.sure = max(self.synced - (SMALL_EVENT if zeros else 0), self.sure)


def written(folder: str) -> bytes:
    return Reading(folder, 700 * KIB).raw


@pytest.mark.parametrize("seed", range(RUNS))
def test_what_was_synced_survives_a_power_loss_and_what_was_not_is_never_shown_wrong(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever pages, sectors and names had reached the disk: all that `sync` returned for is read back, nothing but what was
    logged is, and the loss behind it is a range that the reader names, or the journal's end."""
    monkeypatch.setattr(tape, "SEGMENT_BYTES_FIRST", 144 * KIB)
    monkeypatch.setattr(tape, "SEGMENT_BYTES", 160 * KIB)
    chance = random.Random(seed if not os.environ.get(SOAK_VARIABLE) else None)
    live = tmp_path / "live"
    live.mkdir()
    with pytest.MonkeyPatch.context() as recorded:
        recorded.setattr(machine, "boot_id", lambda: "the boot before")
        disk = Disk(live, recorded)
        trainer = Trainer(live, chance, disk)
        for _ in range(chance.randrange(2, 30)):
            trainer.step()
        if chance.random() < 0.2:
            trainer.writer.close(Outcome.SUCCEEDED)
        trainer.reader.close()
        whole = written(trainer.writer.folder)
        images = [disk.after_power_loss(tmp_path / f"image{n}", chance) for n in range(IMAGES)]
        trainer.writer.abandon()
    monkeypatch.setattr(machine, "boot_id", lambda: "the boot after")
    for image in images:
        folder = image / "home" / "journal" / trainer.writer.source
        try:
            reading = Reading(str(folder), 64 * KIB)
        except (Corrupt, FileNotFoundError):
            assert not trainer.synced
            continue
        reading.assert_true(whole)
        assert reading.end >= trainer.synced
        assert all(first >= trainer.sure for first, _ in reading.lost)
        assert not reading.obstacle
        assert reading.gone
        shutil.rmtree(image)
