"""The quota and the lock: care for the disk and for the home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.service.nats_server import NatsServer
from headrace_agent.lock import HomeLock
from headrace_agent.quota import Quota, measure
from headrace_proto.errors import AlreadyRunning
from headrace_proto.events import Outcome
from headrace_proto.home import Home
from headrace_proto.limits import MIB
from tests.agent.conftest import Serve, log_points, new_writer
from tests.agent.far_end import FarEnd
from tests.agent.process import AgentProcess
from tests.waiting import until


@pytest.mark.filterwarnings("ignore::headrace_proto.errors.TelemetryWarning")
async def test_beyond_the_quota_writers_drop_and_nothing_unstored_is_deleted(
    home: Home, nats_server: NatsServer, serve: Serve
) -> None:
    """The marker stops them; when the store has what there is, it is freed and they go on. Every event is stored or counted."""
    async with FarEnd(nats_server.url, answering=False) as far, serve(quota=3 * MIB) as agent:
        writer = new_writer(home)
        logged = 0
        while not agent.quota.reached:
            log_points(writer, 10_000, logged)
            logged += 10_000
            await agent.quota.work()
        assert "quota" in agent.check().facts["reasons"][-1]
        assert os.path.exists(home.quota_marker)
        while not writer.dropped:
            log_points(writer, 10_000, logged)
            logged += 10_000
        kept = logged - writer.dropped
        await until(lambda: far.watermark(writer.source) >= kept * 34, "what was kept arrived")
        assert agent.tail.lanes[writer.source].source.oldest == 0
        far.answering = True
        await far.mark(writer.source)
        await until(lambda: not os.path.exists(home.quota_marker), "there is room again")

        def accepted() -> bool:
            dropped = writer.dropped
            log_points(writer, 1)
            return bool(writer.dropped == dropped)

        await until(accepted, "the writer logs again")
        writer.close(Outcome.SUCCEEDED)


async def test_the_quota_is_left_with_a_margin(home: Home) -> None:
    """The marker does not come and go with every segment."""
    file = Path(home.journal("a")) / "000000.seg"
    file.parent.mkdir()
    quota = Quota(home, 10 * MIB, dict)
    for size, reached in ((9, False), (10, True), (9.5, True), (8.9, False), (9.9, False)):
        file.write_bytes(b"x" * int(size * MIB))
        await quota.work()
        assert (quota.reached, os.path.exists(home.quota_marker)) == (reached, reached), size


async def test_an_agent_without_a_quota_takes_the_marker_down(home: Home) -> None:
    """The setting was removed: writers go on."""
    Path(home.quota_marker).touch()
    await Quota(home, None, dict).work()
    assert not os.path.exists(home.quota_marker)


def test_use_of_the_disk_is_what_is_allocated(home: Home) -> None:
    """Segments are allocated ahead. What the store has of one that is still written to is not held against its writer."""
    assert measure(home, {}) == (0, 0)
    writer = new_writer(home)
    assert measure(home, {}).owed >= MIB
    assert measure(home, {writer.source: 100}).owed == 100
    assert measure(home, {writer.source: 100}).total >= MIB
    writer.close(Outcome.SUCCEEDED)


def test_a_second_agent_of_a_home_is_refused_by_name(home: Home, nats_server: NatsServer, tmp_path: Path) -> None:
    """Its message names the process that serves already, and what to do."""
    with HomeLock(home):
        second = subprocess.run(
            [sys.executable, "-m", "headrace_agent", "--home", home.root, "--nats", nats_server.url],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert second.returncode == 1
        assert f"process {os.getpid()}" in second.stderr
        assert "Traceback" not in second.stderr


def test_the_lock_dies_with_its_holder(home: Home, nats_server: NatsServer, tmp_path: Path) -> None:
    """An agent killed with SIGKILL leaves a home that the next one can serve; this one is told who serves."""
    agent = AgentProcess(home, nats_server.url, tmp_path / "agent.log")
    with agent:
        from tests.waiting import wait_until

        wait_until(lambda: agent.health(), "it serves")
        assert agent.process is not None
        with pytest.raises(AlreadyRunning, match=str(agent.process.pid)), HomeLock(home):
            pass
    with HomeLock(home):
        assert Path(home.agent_lock).read_text() == f"{os.getpid()}\n"
