"""Upkeep: what a collector merges and sweeps without being asked, and when."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from headrace.reading import StoredExperiment
from headrace.service.nats_server import NatsServer
from headrace_collector import upkeep
from headrace_collector.listing import Listing
from headrace_collector.metrics import Metrics
from headrace_collector.upkeep import LAST_SWEEP_S, SETTLE_S, Task, Upkeep, Work, wanted
from headrace_proto.limits import COMMITS_KEPT, PARTS_MAX, SWEEP_COMMITS
from headrace_proto.store import layout, sweeping
from headrace_proto.store.backend import open_store
from headrace_proto.store.catalog import Catalog
from headrace_proto.store.chain import Chain
from headrace_proto.store.commits import Commit, PartRecord, Parts
from headrace_proto.store.documents import ExperimentDocument
from headrace_proto.store.sweeping import named_places
from headrace_proto.store.times import at_us
from tests.collector.frames import PROJECT, Source
from tests.collector.harness import Broker, collecting, points
from tests.proto.store_core import script
from tests.stores import head_of, list_newest
from tests.waiting import until


def head(number: int, *, parts: int = 1, state: Any = "running", swept: int = 0) -> Commit:
    live = tuple(PartRecord(path=f"channels/{n}", rows=1, bytes=1) for n in range(parts))
    document = ExperimentDocument(id="DIG-1", internal_id="e" * 32, project=PROJECT, state=state)
    facts: dict[str, Any] = {"format": 1, "nonce": "n", "written_at": at_us(0), "store": "s"}
    return Commit(**facts, number=number, swept=swept, document=document, parts=Parts(numeric=live))


@pytest.mark.parametrize(
    ("commit", "task"),
    [
        (head(3), None),
        (head(70, parts=PARTS_MAX), Task(0.0, Work.MERGE, ended=False)),
        (head(SWEEP_COMMITS - 1), None),
        (head(SWEEP_COMMITS), Task(0.0, Work.SWEEP, ended=False)),
        (head(2 * SWEEP_COMMITS, swept=SWEEP_COMMITS + 1), None),
        (head(9, parts=2, state="failed"), Task(SETTLE_S, Work.MERGE, ended=True)),
        (head(9, state="succeeded"), Task(LAST_SWEEP_S, Work.SWEEP, ended=True)),
        (head(9, state="succeeded", swept=9), None),
        (head(10, state="succeeded", swept=9), Task(LAST_SWEEP_S, Work.SWEEP, ended=True)),
    ],
)
def test_what_is_to_be_done_is_read_from_the_commit(commit: Commit, task: Task | None) -> None:
    """Merges when there are many parts, or at the end; sweeps every so many commits, and once after the end."""
    assert wanted(commit) == task


def leftovers(store: str, source: Source) -> set[str]:
    """What lies in an experiment's folders of data and is not named by its newest commit."""
    chain = Chain(open_store(store), source.project, source.experiment).load()
    root = Path(store) / chain.folder
    files = {str(path.relative_to(root)) for folder in ("channels", "side") for path in (root / folder).rglob("*.*")}
    return files - named_places(chain)


def hasten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what is replaced grow old in no time."""
    monkeypatch.setattr(sweeping, "RETENTION_S", 0.1)
    monkeypatch.setattr(upkeep, "SWEEP_GRACE_S", 0.0)


def commits(store: str, source: Source) -> int:
    return len(open_store(store).names(layout.commits_folder(source.project, source.experiment)))


async def test_an_ended_run_is_merged_and_swept(
    nats_server: NatsServer, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the retention after a run's end is over, one part and the last commits are left, and all points with them."""
    monkeypatch.setattr(upkeep, "SETTLE_S", 0.0)
    monkeypatch.setattr(upkeep, "LAST_SWEEP_S", 0.5)
    hasten(monkeypatch)
    source = Source()
    source.log("loss", 300)
    source.close()
    async with (
        Broker.connected(nats_server.url) as broker,
        collecting(nats_server.url, store, commit_interval_s=0.01),
    ):
        for sent in source.cut(30):
            await broker.send([sent])
            await broker.stored(source, sent.end)
        await until(lambda: commits(store, source) == COMMITS_KEPT, "old commits are gone")
        await until(lambda: is_listed(store, source.experiment), "the merge and the sweep are listed")
    assert leftovers(store, source) == set()
    assert points(store, source.experiment) == sorted(source.points)


def is_listed(store: str, experiment: str) -> bool:
    """Whether lists show the newest commit."""
    files = open_store(store)
    return Catalog(files, PROJECT).commits()[experiment] == Chain(files, PROJECT, experiment).load().number


async def test_a_commit_that_a_killed_collector_did_not_list_is_listed_by_the_next(
    nats_server: NatsServer, store: str
) -> None:
    """Killed between its merge and the row: no later commit of the run, which has ended, would show it."""
    files = open_store(store)
    source = script.Source(time_ns=time.time_ns()).create()
    chain = Chain(files, PROJECT, "e" * 32)
    for step in range(3):
        chain.commit([source.point("x", step, 0.5).batch()], now_ns=time.time_ns())
    chain.commit([source.close(time_ns=time.time_ns()).batch()], now_ns=time.time_ns())
    list_newest(chain)
    assert chain.compact(now_ns=time.time_ns(), final=True)
    assert not is_listed(store, "e" * 32)
    async with collecting(nats_server.url, store):
        await until(lambda: is_listed(store, "e" * 32), "the merge is listed")


async def test_a_long_run_is_swept_while_it_goes_on(
    nats_server: NatsServer, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of many commits never has many more than its retention, whatever it has merged is gone, and a reader never fails."""
    monkeypatch.setattr(upkeep, "SWEEP_COMMITS", 40)
    hasten(monkeypatch)
    source = Source()
    source.log("loss", 600)
    seen: list[int] = []
    async with (
        Broker.connected(nats_server.url) as broker,
        collecting(nats_server.url, store, commit_interval_s=0.01),
    ):
        for sent in source.cut(150):
            await broker.send([sent])
            await broker.stored(source, sent.end)
            if len(seen) * 10 < commits(store, source):
                experiment = StoredExperiment(open_store(store), PROJECT, source.experiment)
                seen.append(len(await asyncio.to_thread(experiment.get_channel, "loss")))
        chain = Chain(open_store(store), PROJECT, source.experiment).load()
        assert head_of(chain).sweep >= 2
        await until(lambda: commits(store, source) < 120, "old commits are gone")
    assert points(store, source.experiment) == sorted(source.points)
    assert seen == sorted(seen)


async def test_what_a_killed_collector_left_is_done_by_the_next(
    nats_server: NatsServer, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that had ended, and was neither merged nor swept, is found by a collector that starts later."""
    files = open_store(store)
    ended = script.Source(time_ns=time.time_ns()).create()
    chain = Chain(files, PROJECT, "e" * 32)
    for step in range(20):
        chain.commit([ended.point("x", step, 0.5).batch()], now_ns=time.time_ns())
    chain.commit([ended.close(time_ns=time.time_ns()).batch()], now_ns=time.time_ns())
    list_newest(chain)
    monkeypatch.setattr(upkeep, "SETTLE_S", 0.0)
    monkeypatch.setattr(upkeep, "LAST_SWEEP_S", 0.5)
    hasten(monkeypatch)
    async with collecting(nats_server.url, store):
        await until(lambda: len(head_of(chain.load()).parts.numeric) == 1, "it is merged")
        folder = f"{chain.folder}/channels"
        await until(lambda: len(files.names(folder)) == 1, "it is swept")
    assert len(script.points_of(chain.load())) == 20


async def test_temporary_files_go_when_a_collector_starts(nats_server: NatsServer, store: str) -> None:
    """What a killed writer left without a name a day ago is removed."""
    folder = Path(store) / layout.TEMPORARY
    folder.mkdir(parents=True)
    (folder / "old").write_bytes(b"half")
    os.utime(folder / "old", (time.time() - 25 * 3600,) * 2)
    async with collecting(nats_server.url, store):
        await until(lambda: not (folder / "old").exists(), "it is gone")


async def test_a_store_that_fails_does_not_end_the_upkeep(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep that dies of the store is left for the next occasion, and the next experiment gets its turn."""
    files = open_store(store)
    done: list[str] = []

    def broken(chain: Chain, **_: Any) -> Any:
        done.append(chain.place.experiment)
        if len(done) == 1:
            raise TimeoutError("no answer")
        return sweeping.Swept()

    monkeypatch.setattr(upkeep, "sweep", broken)
    monkeypatch.setattr(upkeep, "LAST_SWEEP_S", 0.0)
    keeping = Upkeep(files, Listing(files, asyncio.to_thread, Metrics()), Metrics())
    task = asyncio.create_task(keeping.run())
    try:
        for name in ("e" * 32, "f" * 32):
            chain = Chain(files, PROJECT, name)
            chain.commit([script.Source().create().point("x", 1, 1.0).close().batch()], now_ns=time.time_ns())
            keeping.consider((PROJECT, name), head_of(chain))
        await until(lambda: len(done) == 2, "both had their turn")
    finally:
        task.cancel()
        keeping.close()
    assert set(done) == {"e" * 32, "f" * 32}
