"""tensorboardX: event files, written by a thread through a queue and a buffer."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar

from tests.benchmarks.peers.peer import CHANNEL, Log, Peer, Series

if TYPE_CHECKING:
    from collections.abc import Mapping


class TensorboardX(Peer):
    """`SummaryWriter.add_scalar`."""

    name: ClassVar[str] = "tensorboardX"
    distribution: ClassVar[str] = "tensorboardX"
    columns: ClassVar[frozenset[str]] = frozenset({"scalars", "rows", "first", "kill", "read"})
    way: ClassVar[str] = (
        "`SummaryWriter(logdir)`, `add_scalar(tag, value, step)`, `close()`. It has no call for a dict of scalars in "
        "one run (`add_scalars` opens a writer for each), so a row is a call for each value. Read by TensorBoard's "
        "`EventAccumulator`. Runs are compared in TensorBoard's HParams page; nothing lists them from Python."
    )
    beyond: ClassVar[str] = (
        "what it writes opens in TensorBoard, which everybody has: histograms, images, audio, video, meshes, "
        "embeddings, graphs, precision-recall curves, each with a page of its own."
    )

    def begin(self) -> Log:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(os.path.join(self.folder, "runs"))
        self._writer.add_text("batch", "32")
        add = self._writer.add_scalar

        def row(values: Mapping[str, float], step: int) -> None:
            for name, value in values.items():
                add(name, value, step)

        return Log(lambda name, step, value: add(name, value, step), row)

    def end(self) -> None:
        self._writer.close()

    def read(self) -> Series:
        from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

        events = EventAccumulator(os.path.join(self.folder, "runs"), size_guidance={SCALARS: 0})
        events.Reload()
        if CHANNEL not in events.Tags()[SCALARS]:
            return Series([], [])
        points = events.Scalars(CHANNEL)
        return Series([point.step for point in points], [point.value for point in points])
