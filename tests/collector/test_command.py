"""The command: what it may be told, several workers, and how it ends."""

from __future__ import annotations

import asyncio
import signal
import sys
from asyncio.subprocess import Process
from pathlib import Path
from typing import Any

import psutil
import pytest

from headrace.command.main import invoke
from headrace.service.nats_server import NatsServer
from headrace.service.settings import load_settings
from headrace_collector.serving import worker_environment
from headrace_collector.settings import CollectorSettings
from headrace_proto.errors import ConfigError
from tests.collector.frames import Source
from tests.collector.harness import Broker
from tests.waiting import until


def settings(config: Path | None = None, **flags: Any) -> CollectorSettings:
    return load_settings(CollectorSettings, "collector", config, **flags)


class TestSettings:
    def test_told_nothing_it_stores_into_the_home_as_one_worker(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Told nothing, a collector stores into the home's store, as one worker with 16 partitions."""
        told = settings()
        assert (told.store, told.workers, told.partitions) == (str(told.home / "store"), 1, 16)

    def test_flags_win_over_variables_over_the_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each setting comes from the nearest place that names it."""
        config = tmp_path / "settings.toml"
        config.write_text('[collector]\nstore = "file"\npartitions = 2\nworkers = 3\n')
        monkeypatch.setenv("HEADRACE_STORE", "variable")
        monkeypatch.setenv("HEADRACE_PARTITIONS", "4")
        told = settings(config, store="flag")
        assert (told.store, told.partitions, told.workers) == ("flag", 4, 3)

    @pytest.mark.parametrize(
        ("name", "value"),
        [("partitions", 0), ("partitions", 33), ("workers", 0), ("commit_interval_s", 0), ("drain_s", -1)],
    )
    def test_wrong_value_names_its_flag(self, name: str, value: int) -> None:
        """A value that cannot be is refused by the name under which it was given."""
        with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')}"):
            settings(None, **{name: value})

    def test_worker_is_told_everything_by_variables(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A worker's environment gives it the parent's settings, wherever those came from, and a port of its own."""
        parent = settings(store="s3://bucket/runs", workers=3, metrics_port=9000, commit_interval_s=2.5, log_json=True)
        for name, value in worker_environment(parent, 2).items():
            monkeypatch.setenv(name, value)
        assert settings() == parent.model_copy(update={"workers": 1, "metrics_port": 9002})

    def test_error_is_one_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A wrong setting ends the command with one line for people."""
        assert invoke(["collector", "--partitions", "99"]) == 1
        assert capsys.readouterr().err.startswith("headrace collector: --partitions is 99")


async def start(url: str, store: str, *options: str) -> Process:
    command = [sys.executable, "-m", "headrace_collector", "--nats", url, "--store", store, "--partitions", "4"]
    return await asyncio.create_subprocess_exec(*command, *options, stderr=asyncio.subprocess.DEVNULL)


def two_workers(parent: Process, *, without: int = 0) -> list[int]:
    """The pids of a collector's two workers, once it has two and `without` is none of them."""
    pids = [child.pid for child in psutil.Process(parent.pid).children()]
    return pids if len(pids) == 2 and without not in pids else []


async def test_a_store_that_cannot_be_written_is_named_with_the_remedy(nats_server: NatsServer, tmp_path: Path) -> None:
    """A collector in front of such a store waits, and its log says which it is, what is wrong and what to do."""
    (tmp_path / "file").write_text("in the way")
    store = str(tmp_path / "file" / "store")
    command = [sys.executable, "-m", "headrace_collector", "--nats", nats_server.url, "--store", store]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    try:
        async with asyncio.timeout(60):
            while b"waits for the store" not in (line := await process.stderr.readline()):
                assert line
    finally:
        process.kill()
        await process.communicate()
    for words in (store, "--store", "writable", "Not a directory"):
        assert words in line.decode()


async def test_sigterm_ends_it_in_good_order(nats_server: NatsServer, store: str) -> None:
    """Asked to stop while it still waits for the right moment to commit, it commits, and exits with 0."""
    source = Source()
    source.log("loss", 10)
    async with Broker.connected(nats_server.url) as broker:
        process = await start(nats_server.url, store, "--commit-interval", "3600")
        await broker.send([source.frame(0, source.end)])
        await broker.stored(source)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            assert await process.wait() == 0
        assert await broker.left() == 0


async def test_workers_share_and_are_restarted(nats_server: NatsServer, store: str) -> None:
    """Two workers store together; one that is killed is replaced; SIGTERM ends all; a worker ends with its parent."""
    sources = [Source() for _ in range(6)]
    async with Broker.connected(nats_server.url) as broker:
        process = await start(nats_server.url, store, "--workers", "2")
        first = await until(lambda: two_workers(process), "two workers run")
        await broker.send(frame for source in sources for frame in source.cut(1))
        for source in sources:
            await broker.stored(source)
        psutil.Process(first[0]).kill()
        second = await until(lambda: two_workers(process, without=first[0]), "the killed one is replaced")
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            assert await process.wait() == 0
    assert not [pid for pid in {*first, *second} if psutil.pid_exists(pid)]


async def test_orphaned_workers_end(nats_server: NatsServer, store: str) -> None:
    """When the parent is killed, its workers stop in good order by themselves."""
    process = await start(nats_server.url, store, "--workers", "2")
    workers = await until(lambda: two_workers(process), "two workers run")
    process.kill()
    await process.wait()
    await until(lambda: not any(psutil.pid_exists(pid) for pid in workers), "they have ended")
