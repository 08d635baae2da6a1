"""Readers while collectors commit and compact."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from headrace.reading import StoredExperiment
from headrace.reading.snapshot import RELOADS_MAX
from headrace_proto.errors import Corrupt
from tests.proto.store_base.faults import FaultyStore
from tests.sdk.reading.stored import PROJECT, START_NS, Stored
from tests.stores import head_of

if TYPE_CHECKING:
    from typing import BinaryIO

    from headrace_proto.store.backend import Store


class _Replacing(FaultyStore):
    """A store in which, before a part is opened, it is merged into another and removed, as often as told."""

    stored: Stored
    times = 0

    def open(self, path: str) -> BinaryIO:
        if self.times and "/channels/" in path:
            self.times -= 1
            self.stored.owner.point("other", 0, 0.0)
            self.stored.commit()
            old = [part.path for part in head_of(self.stored.chain).parts.numeric]
            assert self.stored.chain.compact(now_ns=START_NS, final=True)
            self.inner.delete(f"{self.stored.chain.folder}/{name}" for name in old)
        return super().open(path)


def _running(files: Store) -> tuple[Stored, _Replacing]:
    stored = Stored(files)
    for step in range(3):
        stored.owner.point("loss", step, step * 0.5)
        stored.commit()
    store = _Replacing(files)
    store.stored = stored
    return stored, store


@pytest.mark.parametrize("times", range(1, RELOADS_MAX + 1))
def test_a_replaced_part_is_read_from_the_newest_commit(files: Store, times: int) -> None:
    """A reader whose parts are merged and removed under it begins again with the newest commit, up to three times."""
    stored, store = _running(files)
    experiment = StoredExperiment(store, PROJECT, stored.id)
    store.times = times
    assert experiment.get_numeric_channels_values("loss")["loss"].tolist() == [0.0, 0.5, 1.0]
    assert store.times == 0


def test_a_part_that_is_missing_for_good(files: Store) -> None:
    """A part that the newest commit names and nobody has is damage, and is named."""
    stored, _ = _running(files)
    part = head_of(stored.chain).parts.numeric[0].path
    files.delete([f"{stored.chain.folder}/{part}"])
    with pytest.raises(Corrupt, match=part):
        StoredExperiment(files, PROJECT, stored.id).get_channel("loss")


def test_reading_while_it_is_written_and_compacted(files: Store) -> None:
    """A reader beside a writer that commits, merges and removes sees a channel that only grows, without holes."""
    stored = Stored(files)
    stored.owner.point("loss", 0, 0.0)
    stored.commit()
    done = threading.Event()

    def write() -> None:
        try:
            for step in range(1, 40):
                stored.owner.point("loss", step, step)
                stored.commit()
                if step % 5 == 0:
                    old = [part.path for part in head_of(stored.chain).parts.numeric]
                    stored.chain.compact(now_ns=START_NS, final=True)
                    files.delete(f"{stored.chain.folder}/{name}" for name in old)
        finally:
            done.set()

    experiment = StoredExperiment(files, PROJECT, stored.id)
    seen = []
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        while not done.is_set():
            frame = experiment.get_channel("loss")
            assert frame["value"].tolist() == list(range(len(frame)))
            seen.append(len(frame))
        writing.result()
    assert seen == sorted(seen)
    assert len(experiment.get_channel("loss")) == 40
