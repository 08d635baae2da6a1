"""A node that lost its power: what its journals lack, and what the store makes of them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from headrace.service.nats_server import NatsServer
from headrace_agent.marks import MARK_NAME
from headrace_proto.home import Home
from headrace_proto.journal import machine
from headrace_proto.journal.layout import LOCK_NAME
from tests.agent.conftest import PROJECT, Serve, log_points, new_writer
from tests.collector.harness import collecting, document, points
from tests.waiting import until

EARLY, MANY = 1_000, 3_000


@pytest.mark.parametrize("mark_kept", [True, False], ids=["its mark survived", "its mark is lost"])
async def test_a_journal_that_ends_below_what_is_stored_still_tells_of_its_death(
    home: Home,
    nats_server: NatsServer,
    serve: Serve,
    store: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    mark_kept: bool,
) -> None:
    """The disk kept less than the store had: the experiment is over all the same, and each event is stored once."""
    writer = new_writer(home)
    folder, on_disk = Path(writer.folder), Path(home.root).with_name("what the disk kept")
    async with collecting(nats_server.url, store):
        async with serve() as agent:
            log_points(writer, EARLY)
            await until(lambda: writer.source in agent.tail.lanes, "the journal is found")
            shutil.copytree(folder, on_disk, ignore=shutil.ignore_patterns(LOCK_NAME, MARK_NAME))
            log_points(writer, MANY - EARLY, EARLY)
            source = agent.tail.lanes[writer.source].source
            await until(lambda: source.stored == writer.position, "all is stored")
        writer.abandon()
        if mark_kept:
            shutil.copy(folder / MARK_NAME, on_disk)
        (on_disk / LOCK_NAME).touch(mode=0o600)
        shutil.rmtree(folder)
        on_disk.rename(folder)
        monkeypatch.setattr(machine, "boot_id", lambda: "the boot after the power came back")
        async with serve():

            def state() -> str:
                chain = document(store, writer.experiment, PROJECT)
                return chain.sources[writer.source].state

            await until(lambda: state() == "dead", "the store knows that it is over")
            await until(lambda: not os.path.exists(folder), "the journal is deleted")
    assert [step for _, step, _ in points(store, writer.experiment, PROJECT)] == list(map(float, range(MANY)))
    assert document(store, writer.experiment, PROJECT).sources[writer.source].lost == ()
