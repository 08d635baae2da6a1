"""What a reader waits for: lists of 100,000 experiments, and a channel among fifty."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from headrace.reading import StoredExperiment, StoredProject
from headrace_proto.ids import random_id
from headrace_proto.store.backend import open_store
from headrace_proto.store.catalog import CatalogRow, append_rows, row_of
from headrace_proto.store.claims import claim_project
from headrace_proto.store.documents import ChannelRecord, Channels, Last
from tests.benchmarks.rows import Row, median_ms
from tests.benchmarks.series import Series

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headrace_proto.store.backend import Store
    from headrace_proto.store.chain import Chain
    from headrace_proto.store.commits import Commit

FEW, MANY = "bench/few", "bench/many"
EXPERIMENTS: Final = {FEW: 2_000, MANY: 100_000}
APPENDED: Final = 500
"""Rows of one append, as of a collector that restarts; what has gathered is folded as collectors do."""
CHANNELS, STEPS = 50, 1_000_000
COMMIT_STEPS: Final = 50_000


def run() -> list[Row]:
    """Every figure of reading."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        store = open_store(folder)
        return [*_lists(store, folder), *_series(store)]


def _lists(store: Store, folder: str) -> Iterator[Row]:
    template = _template(store)
    for project, count in EXPERIMENTS.items():
        claim_project(store, project)
        for first in range(0, count, APPENDED):
            append_rows(store, project, [_row(template, number) for number in range(first, first + APPENDED)])
    few, many = StoredProject(store, FEW), StoredProject(store, MANY)

    def filtered() -> object:
        board = few.get_leaderboard()
        return board[(board["parameter_lr"] < 0.5) & (board["channel_loss"] < 0.5)]

    yield Row("2,000 experiments by a parameter and a metric into a DataFrame", median_ms(filtered), "ms", at_most=5)

    def first_look() -> StoredProject:
        return StoredProject(store, MANY)

    yield Row(
        "100,000 experiments: those of a tag and a state, first look",
        median_ms(lambda: first_look().get_experiments(tag="best", state="failed")),
        "ms",
        at_most=500,
    )
    yield Row("  again", median_ms(lambda: many.get_experiments(tag="best", state="failed")), "ms")
    hundred = [f"MAN-{number}" for number in range(700, EXPERIMENTS[MANY], EXPERIMENTS[MANY] // 100)]
    yield Row(
        "  the leaderboard of all, first look", median_ms(lambda: first_look().get_leaderboard()), "ms", at_most=2000
    )
    yield Row("  again", median_ms(many.get_leaderboard), "ms")
    yield Row(
        "  of 100 by id, first look", median_ms(lambda: first_look().get_leaderboard(id=hundred)), "ms", at_most=200
    )
    yield Row("  again", median_ms(lambda: many.get_leaderboard(id=hundred)), "ms")
    yield Row("headrace ls, start-up included", _command_ms(folder, "ls"), "ms", at_most=700)
    yield Row("  of the 100,000 experiments", _command_ms(folder, "ls", MANY), "ms", at_most=700)


def _template(store: Store) -> Commit:
    """A commit as a collector makes it: what rows are made of."""
    series = Series(store, "bench/template", 3)
    series.commit(10)
    assert series.chain.head is not None
    return series.chain.head


def _row(template: Commit, number: int) -> CatalogRow:
    """The row of an experiment with 5 parameters and 3 metrics, from its document."""
    values, created = random.Random(number), datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number)
    state = values.choice(["succeeded", "succeeded", "failed", "running"])
    channels = {
        name: ChannelRecord(count=1, last=Last(step=9, time=created, value=values.random()))
        for name in ("loss", "acc", "auc")
    }
    document = template.document.model_copy(
        update={
            "internal_id": random_id(),
            "id": f"MAN-{number + 1}",
            "name": f"run {number}",
            "state": state,
            "created_at": created,
            "finished_at": None if state == "running" else created + timedelta(hours=1),
            "owner": values.choice(["josh", "frederic"]),
            "tags": ("baseline", "best") if number % 10 == 0 else ("baseline",),
            "params": {
                "lr": values.random(),
                "dropout": values.random(),
                "layers": values.randrange(10),
                "optimizer": values.choice(["adam", "sgd"]),
                "augment": values.random() < 0.5,
            },
            "channels": Channels(numeric=channels),
        }
    )
    return row_of(template.model_copy(update={"document": document}))


def _command_ms(store: str, *arguments: str) -> float:
    """The command as a user has it: a process of its own, with its modules' bytecode beside it."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as bytecode:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": bytecode}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        command = [sys.executable, "-m", "headrace.command", *arguments, "--store", store]

        def call() -> object:
            return subprocess.run(command, env=environment, check=True, capture_output=True)

        return median_ms(call)


def _series(store: Store) -> Iterator[Row]:
    series = Series(store, MANY, CHANNELS)
    for _ in range(0, STEPS, COMMIT_STEPS):
        series.commit(COMMIT_STEPS)
    series.chain.compact(now_ns=time.time_ns(), final=True)
    experiment = StoredExperiment(store, MANY, series.chain.place.experiment)

    def one() -> object:
        return experiment.get_channel(series.names[CHANNELS // 2])

    yield Row("one channel of 50, 1 M points each, as a DataFrame", median_ms(one), "ms", at_most=60)
    # a fiftieth is the channel's own; the rest are the footers of the parts that an ended experiment keeps
    yield Row("  bytes read of those stored", 100 * _share_read(series.chain, one), "%", at_most=5)
    three = series.names[10:13]
    yield Row(
        "three such channels side by side",
        median_ms(lambda: experiment.get_numeric_channels_values(*three)),
        "ms",
        at_most=500,
    )


def _share_read(chain: Chain, call: Callable[[], object]) -> float:
    """Of the bytes of an experiment's points, the share that `call` reads."""
    assert chain.head is not None
    before = _bytes_read()
    call()
    return (_bytes_read() - before) / sum(part.bytes for part in chain.head.parts.numeric)


def _bytes_read() -> int:
    """What this process has read so far, by read(2) and its like."""
    with open("/proc/self/io", encoding="ascii") as file:
        return int(file.readline().split()[1])
