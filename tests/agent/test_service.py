"""The agent as a service: many sources, its stop, its numbers, its settings."""

from __future__ import annotations

import os
import resource
from functools import partial
from pathlib import Path

import pytest

from headrace.service.nats_server import NatsServer
from headrace.service.settings import load_settings
from headrace_agent.agent import Agent
from headrace_agent.nats_uplink import read_answer
from headrace_agent.settings import AgentSettings
from headrace_agent.uplink import Full, NoStream, Receipt, Refused, TooLarge, Unknown
from headrace_proto.errors import ConfigError
from headrace_proto.events import Outcome
from headrace_proto.home import Home
from headrace_proto.limits import BATCH_RAW_TARGET
from tests.agent.conftest import Serve, log_points, new_writer, points_of
from tests.agent.far_end import FarEnd
from tests.agent.process import AgentProcess
from tests.waiting import until


async def test_new_data_overtakes_the_backlog_of_three_hundred_sources(
    home: Home, nats_server: NatsServer, serve: Serve
) -> None:
    """A source that was just written to is stored while the others still catch up; all of them advance, and all arrive."""
    old = [new_writer(home) for _ in range(300)]
    for writer in old[:40]:
        log_points(writer, 3 * BATCH_RAW_TARGET // 34)
    async with serve() as agent:
        await until(lambda: len(agent.tail.lanes) == 300, "all are found")
        fresh = new_writer(home)
        log_points(fresh, 10)
        await until(lambda: fresh.source in agent.tail.lanes, "the new one is found")
        async with FarEnd(nats_server.url) as far:  # only now are there streams, so all of it waits when it begins
            await far.has_all_of((*old, fresh))
            order = [frame.source for frame in far.frames]
    backlog = {writer.source for writer in old[:40]}
    overtaken = [source for source in order[order.index(fresh.source) :] if source in backlog]
    assert len(overtaken) >= 20  # all but what was on its way when the new data came
    assert len(set(order[:80])) > 30  # in turns, not one after the other
    for writer in (*old, fresh):
        writer.close(Outcome.SUCCEEDED)


async def test_more_sources_than_descriptors_are_served(home: Home, nats_server: NatsServer, serve: Serve) -> None:
    """Those that rest are closed and looked at now and then; what they log later still arrives."""
    writers = [new_writer(home) for _ in range(40)]
    async with FarEnd(nats_server.url) as far, serve() as agent:
        agent.tail._open_max = 10
        await until(lambda: len(agent.tail.lanes) == 40, "all are found")
        await until(
            lambda: sum(lane.source.reader is None for lane in agent.tail.lanes.values()) >= 30, "most of them sleep"
        )
        for writer in writers:
            log_points(writer, 10)
        await far.has_all_of(writers, "all arrived")
        for writer in writers:
            writer.close(Outcome.SUCCEEDED)
        await until(lambda: not os.listdir(home.journals), "all are finished")


async def test_sigterm_ships_what_is_committed(home: Home, nats_server: NatsServer, tmp_path: Path) -> None:
    """The last events before the stop are at the far end when the agent is gone, and it ends with status 0."""
    async with FarEnd(nats_server.url) as far:
        writer = new_writer(home)
        with AgentProcess(home, nats_server.url, tmp_path / "log") as agent:
            await until(agent.health, "it serves")
            log_points(writer, 200_000)
            assert agent.stop() == 0
        await far.has_all(writer, timeout_s=5.0)
        assert points_of(far.bytes[writer.source]) == list(range(200_000))
        writer.close(Outcome.SUCCEEDED)


async def test_a_stop_without_a_broker_ends_with_the_grace(home: Home, nats_server: NatsServer, tmp_path: Path) -> None:
    """It gives up, says what waits, and leaves it in the journals."""
    nats_server.kill()
    writer = new_writer(home)
    log_points(writer, 100)
    with AgentProcess(home, nats_server.url, tmp_path / "log", "--grace", "0.2") as agent:
        health = await until(agent.health, "it serves")
        assert not health["ok"]
        assert "not connected" in health["reasons"][0]
        assert agent.stop() == 0
    assert "waits in the journals" in (tmp_path / "log").read_text()
    assert os.path.exists(home.journal(writer.source))
    writer.close(Outcome.SUCCEEDED)


async def test_a_flush_request_is_taken_and_passed_on(home: Home, nats_server: NatsServer, serve: Serve) -> None:
    """The file that a waiting trainer made is gone, and the far end was asked to commit soon."""
    async with FarEnd(nats_server.url, answering=False) as far, serve():
        writer = new_writer(home)
        log_points(writer, 10)
        await far.has_all(writer)
        far.flushed.clear()
        for times in (1, 2):  # a second request at the same place is no repetition of the first
            Path(home.flush_request(writer.experiment)).touch()
            await until(partial(_flushed, far, times * [writer.source]), "the flush arrived")
        assert not os.listdir(home.flush_requests)
        writer.close(Outcome.SUCCEEDED)


def _flushed(far: FarEnd, sources: list[str]) -> bool:
    return far.flushed == sources


async def test_journals_that_cannot_be_believed_are_left_alone(
    home: Home, nats_server: NatsServer, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """Counted, said once each, and in nobody's way; hidden ones are not even looked at."""
    strange = {"not-an-id": None, "0" * 32: b"", "1" * 32: b"no segment at all" * 1000}
    for name, data in strange.items():
        folder = Path(home.journal(name))
        folder.mkdir()
        if data is not None:
            (folder / "000000.seg").write_bytes(data)
    Path(home.journal("2" * 32)).symlink_to("/")
    Path(home.journal(".unfinished")).mkdir()
    foreign = Path(home.journal("3" * 32))
    foreign.mkdir()
    if os.geteuid() == 0:
        os.chown(foreign, 12345, 12345)
    writer = new_writer(home)
    stolen = Path(home.journal("4" * 32))
    stolen.mkdir()
    (stolen / "000000.seg").write_bytes((Path(writer.folder) / "000000.seg").read_bytes())
    async with FarEnd(nats_server.url) as far, serve() as agent:
        await far.has_all(writer, "the good one arrived")
        assert set(agent.tail.discovery.refused) == {*strange, "2" * 32, "3" * 32, "4" * 32}
        assert "6 journals cannot be read" in agent.check().facts["reasons"][0]
        agent.tail.look(1 << 60)
        assert sum("is left alone" in record.message for record in caplog.records) == 6
        writer.close(Outcome.SUCCEEDED)


async def test_a_journal_that_turns_unreadable_is_no_trouble_to_others(
    home: Home, nats_server: NatsServer, serve: Serve
) -> None:
    """Its header is overwritten while it is shipped; the others go on."""
    async with FarEnd(nats_server.url) as far, serve() as agent:
        bad, good = new_writer(home), new_writer(home)
        log_points(bad, 40_000)
        log_points(good, 10)
        await far.has_all(good, "both are shipped")
        with open(os.path.join(bad.folder, "000001.seg"), "r+b") as file:
            file.write(b"\0" * 64)
        agent.tail.lanes[bad.source].fault = OSError("the disk says no")
        await until(lambda: bad.source in agent.tail.discovery.refused, "it is left alone")
        log_points(good, 10, 10)
        await far.has_all(good, "the other goes on")
        for writer in (bad, good):
            writer.close(Outcome.SUCCEEDED)


async def test_the_agent_tells_its_numbers(home: Home, nats_server: NatsServer, tmp_path: Path) -> None:
    """/metrics for Prometheus, /healthz for probes."""
    async with FarEnd(nats_server.url) as far:
        writer = new_writer(home)
        log_points(writer, 1000)
        with AgentProcess(home, nats_server.url, tmp_path / "log") as agent:
            await far.has_all(writer)
            health = await until(lambda: (h := agent.health()) and h["lag_stored_bytes"] == 0 and h, "all is stored")
            assert (health["ok"], health["sources"], health["reasons"]) == (True, 1, [])
            numbers = agent.ask("/metrics") or ""
            assert 'headrace_agent_frames_total{stream="HR_EVENTS"} ' in numbers
            assert "headrace_agent_sources 1.0" in numbers
            assert "headrace_agent_lag_stored_bytes 0.0" in numbers
            assert "loss" not in numbers
        writer.close(Outcome.SUCCEEDED)


def test_answers_of_the_stream_are_told_apart() -> None:
    """Each kind has its own reaction."""
    assert read_answer(b'{"stream":"S","seq":5}', None) == Receipt(5)
    assert read_answer(b'{"stream":"S","seq":5,"duplicate":true}', {}) == Receipt(5, duplicate=True)
    full = b'{"error":{"code":503,"err_code":10077,"description":"maximum bytes exceeded"}}'
    large = b'{"error":{"code":400,"err_code":10054,"description":"message size exceeds maximum allowed"}}'
    other = b'{"error":{"code":400,"err_code":1,"description":"no"}}'
    for data, headers, kind in (
        (full, None, Full),
        (large, None, TooLarge),
        (other, None, Refused),
        (b"", {"Status": "503"}, NoStream),
        (b"{", None, Unknown),
        (b'{"seq":null}', None, Unknown),
        (b"[]", None, Unknown),
    ):
        assert isinstance(read_answer(data, headers), kind)


def test_settings_come_from_flags_environment_and_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a wrong one is named."""
    file = tmp_path / "headrace.toml"
    file.write_text('nats = "nats://a:1"\n[agent]\nsite = "hall-3"\nhardware_s = 7\n')
    monkeypatch.setenv("HEADRACE_HARDWARE_S", "9")
    settings = load_settings(AgentSettings, "agent", file, quota=2_000_000)
    assert (settings.site, settings.hardware_s, settings.quota, settings.nats) == (
        "hall-3",
        9.0,
        2_000_000,
        "nats://a:1",
    )
    with pytest.raises(ConfigError, match="--site"):
        load_settings(AgentSettings, "agent", file, site="a.b")


async def test_a_wrong_url_is_an_error_of_its_own_type(home: Home) -> None:
    """Not a group of errors from somewhere inside."""
    import asyncio

    with pytest.raises(ConfigError, match="like nats://"):
        await Agent(AgentSettings(home=Path(home.root), nats="carrier://pigeon", hardware_s=0)).run(asyncio.Event())


def test_the_descriptor_limit_is_raised_to_what_is_allowed() -> None:
    """The soft limit is a shell's default, and the hard one what the machine allows."""
    from headrace_agent.tail import sources_open_max

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        assert sources_open_max() >= 16
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
