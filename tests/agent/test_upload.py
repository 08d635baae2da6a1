"""Files: in chunks, verified at the far end, resumable, and never in the way of events."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from headrace.service.nats_server import NatsServer
from headrace_agent.spoolfile import REFUSED_SUFFIX
from headrace_proto import subjects
from headrace_proto.events import Outcome
from headrace_proto.home import Home
from headrace_proto.limits import CHUNK_BYTES, MIB
from headrace_proto.messages import UNNAMED
from headrace_proto.spool import COMPANION_SUFFIX, SpoolFacts, is_spool_file, read_facts, write_facts
from headrace_proto.status import read_status
from tests.agent.conftest import Serve, log_points, new_writer, spool
from tests.agent.far_end import FarEnd
from tests.agent.process import AgentProcess
from tests.waiting import until


@pytest.fixture
def writer(home: Home) -> Any:
    writer = new_writer(home)
    log_points(writer, 10)
    yield writer
    writer.close(Outcome.SUCCEEDED)


async def test_files_arrive_and_are_freed(home: Home, nats_server: NatsServer, serve: Serve, writer: Any) -> None:
    """Small, large, and of exactly a chunk; afterwards the spool is empty and the status says so."""
    sizes = [70_000, 3 * MIB + 17, CHUNK_BYTES, CHUNK_BYTES + 1]
    contents = [os.urandom(size) for size in sizes]
    async with FarEnd(nats_server.url) as far, serve():
        names = [spool(home, writer.source, nth, data) for nth, data in enumerate(contents)]
        await until(lambda: len(far.done_files) == len(names), "all files arrived")
        for name, data in zip(names, contents, strict=True):
            assert far.done_files[writer.source, name] == data
        await until(lambda: not os.listdir(home.spool(writer.source)), "the spool is empty")
        path = home.status(writer.experiment)
        await until(lambda: (s := read_status(path)) and s.sources[writer.source].files == 0, "the status says so")


async def test_many_small_files_do_not_wait_for_each_others_commit(
    home: Home, nats_server: NatsServer, serve: Serve, writer: Any
) -> None:
    """The next one is sent when the stream has the one before, not when the store does."""
    async with FarEnd(nats_server.url, answering=False) as far, serve():
        names = [spool(home, writer.source, nth, os.urandom(1000)) for nth in range(100)]
        await until(lambda: len(far.done_files) == 100, "all files arrived")
        assert list(dict.fromkeys(frame.file for frame in far.frames if frame.file)) == names
        far.answering = True
        for name in names:
            await far.file_mark((writer.source, name))
        await until(lambda: not os.listdir(home.spool(writer.source)), "the spool is empty")


async def test_a_journal_with_unsent_files_is_not_deleted(home: Home, nats_server: NatsServer, serve: Serve) -> None:
    """It is what ties them to their experiment."""
    async with FarEnd(nats_server.url) as far, serve():
        writer = new_writer(home)
        far.answering = False
        name = spool(home, writer.source, 0, os.urandom(1000))
        await until(lambda: (writer.source, name) in far.done_files, "the file arrived")
        writer.close(Outcome.SUCCEEDED)
        await far.has_all(writer)
        await far.mark(writer.source)
        path = home.status(writer.experiment)
        await until(
            lambda: (s := read_status(path)) and s.sources[writer.source] == (writer.position, writer.position, 1),
            "told",
        )
        assert os.path.exists(home.journal(writer.source))
        await far.file_mark((writer.source, name))
        await until(lambda: not os.path.exists(home.journal(writer.source)), "the journal is deleted")
        await until(lambda: not os.path.exists(home.spool(writer.source)), "and its spool")


async def test_an_upload_goes_on_where_the_collector_is_after_a_kill(
    home: Home, nats_server: NatsServer, tmp_path: Path, writer: Any
) -> None:
    """The second agent sends the first chunks, hears that the collector has more, and does not send all of it again."""
    data = os.urandom(48 * MIB)
    async with FarEnd(nats_server.url) as far:
        agent = AgentProcess(home, nats_server.url, tmp_path / "agent.log")
        name = spool(home, writer.source, 0, data)
        key = (writer.source, name)
        agent.start()
        await until(lambda: len(far.files[key]) > len(data) // 2, "half of it arrived")
        agent.kill()
        with agent:
            await until(lambda: key in far.done_files, "the file arrived")
            assert far.done_files[key] == data
            await until(lambda: not os.listdir(home.spool(writer.source)), "the spool is empty")
        sent = sum(frame.end - frame.first for frame in far.frames if frame.file)
        assert sent < len(data) + len(data) // 2


async def test_a_file_that_changed_is_noticed_and_given_up(
    home: Home, nats_server: NatsServer, serve: Serve, writer: Any
) -> None:
    """The bytes are no more what was logged: the far end refuses them, the last chunk says why, and the next file follows."""
    async with FarEnd(nats_server.url) as far, serve() as agent:
        changed = spool(home, writer.source, 0, os.urandom(2 * MIB), sha256="0" * 64)
        cut = spool(home, writer.source, 1, b"")
        write_facts(os.path.join(home.spool(writer.source), cut), SpoolFacts(100_000, "1" * 64))
        good = spool(home, writer.source, 2, b"good" * 1000)
        await until(lambda: (writer.source, good) in far.done_files, "the next file arrived")
        await until(lambda: not os.listdir(home.spool(writer.source)), "the spool is empty")
        assert "changed while it was read" in far.bad_files[writer.source, changed]
        assert "changed while it was read" in far.bad_files[writer.source, cut]
        sample = agent.metrics.registry.get_sample_value
        assert sample("headrace_agent_files_total", {"outcome": "changed"}) == 2
        assert sample("headrace_agent_files_total", {"outcome": "stored"}) == 1


async def test_a_file_that_is_refused_although_intact_is_sent_twice_and_kept(
    home: Home, nats_server: NatsServer, serve: Serve, writer: Any
) -> None:
    """Nothing that may be good is deleted unless the store has it."""
    async with FarEnd(nats_server.url) as far, serve() as agent:
        name = f"{0:06d}-{'ab' * 4}"
        far.bad_files[writer.source, name] = "a fault of the far end"
        folder = Path(home.spool(writer.source))
        folder.mkdir()
        data = os.urandom(100_000)
        write_facts(str(folder / name), SpoolFacts(len(data), hashlib.sha256(data).hexdigest()))
        (folder / name).write_bytes(data)
        kept = folder / (name + REFUSED_SUFFIX)
        await until(kept.exists, "the file is set aside")
        assert kept.read_bytes() == data
        assert [frame.file for frame in far.frames].count(name) == 2
        assert agent.metrics.registry.get_sample_value("headrace_agent_files_total", {"outcome": "refused"}) == 1


async def test_a_file_that_no_event_names_goes_with_its_journal(
    home: Home, nats_server: NatsServer, serve: Serve, writer: Any
) -> None:
    """Its writer was killed inside the call that held it: the store says so, and nothing of either is left."""
    async with FarEnd(nats_server.url) as far, serve() as agent:
        name = f"{0:06d}-{'ab' * 4}"
        far.bad_files[writer.source, name] = UNNAMED
        folder = Path(home.spool(writer.source))
        folder.mkdir()
        (folder / ".000001-0a0b0c0d").touch()
        write_facts(str(folder / name), SpoolFacts(1, hashlib.sha256(b"x").hexdigest()))
        (folder / name).write_bytes(b"x")
        writer.close(Outcome.SUCCEEDED)
        await until(lambda: not os.path.exists(writer.folder), "the journal is finished")
        assert [frame.file for frame in far.frames].count(name) == 1
        assert agent.metrics.registry.get_sample_value("headrace_agent_files_total", {"outcome": "unnamed"}) == 1


async def test_a_collector_may_ask_for_a_file_again(
    home: Home, nats_server: NatsServer, serve: Serve, writer: Any
) -> None:
    """It lost a piece before it was safe."""
    data = os.urandom(2 * MIB)
    async with FarEnd(nats_server.url, answering=False) as far, serve():
        name = spool(home, writer.source, 0, data)
        key = (writer.source, name)
        await until(lambda: key in far.done_files, "the file arrived")
        del far.done_files[key]
        far.files[key] = far.files[key][: CHUNK_BYTES + 5]
        await far.rewind(writer.source, CHUNK_BYTES + 5, name)
        await until(lambda: key in far.done_files, "the file arrived again")
        assert far.done_files[key] == data
        again = [frame.first for frame in far.frames if frame.file][4:]
        assert again[0] == CHUNK_BYTES + 5


async def test_a_stream_of_files_that_was_made_again_is_filled_again(
    home: Home, nats_server: NatsServer, serve: Serve, writer: Any
) -> None:
    """As with events: its numbers begin anew, and what the collector has not said it has is sent again."""
    from headrace.service.broker import ensure_streams

    async with FarEnd(nats_server.url, answering=False) as far, serve() as agent:
        far.consuming = False
        name = spool(home, writer.source, 0, os.urandom(2 * MIB))
        await until(lambda: (lane := agent.uploader.lanes.get((writer.source, name))) and lane.sent, "it is sent")
        js = far.client.jetstream()
        await js.delete_stream(subjects.FILES_STREAM)
        await ensure_streams(js)
        other = spool(home, writer.source, 1, os.urandom(1000))
        far.consuming = True
        await until(lambda: {(writer.source, name), (writer.source, other)} <= far.done_files.keys(), "both arrived")


async def test_a_full_stream_of_files_leaves_events_alone(
    home: Home, nats_server: NatsServer, serve: Serve, writer: Any
) -> None:
    """Files have a stream of their own, so that metrics never wait for a checkpoint."""
    from headrace.service.broker import ensure_streams

    async with FarEnd(nats_server.url) as far:
        far.consuming = False
        js = far.client.jetstream()
        await js.delete_stream(subjects.FILES_STREAM)
        await ensure_streams(js, files_bytes=2 * MIB)
        async with serve() as agent:
            spool(home, writer.source, 0, os.urandom(4 * MIB))
            await until(lambda: agent.files.full, "the stream of files pushes back")
            log_points(writer, 1000, 10)
            lane = agent.tail.lanes[writer.source]
            await until(lambda: lane.source.window.acked == writer.position, "the events are with the stream", 5.0)
            far.consuming = True
            await until(lambda: len(far.done_files) == 1, "the file arrived")


def test_a_companion_that_is_of_no_use_is_no_facts(tmp_path: Path) -> None:
    """Missing, cut short, or of other types."""
    path = str(tmp_path / "000001-0a0b0c0d")
    assert read_facts(path) is None
    for text in ("", "{", '{"size": "1", "sha256": ""}', '{"size": -1, "sha256": ""}', '{"x": 1}'):
        Path(path + COMPANION_SUFFIX).write_text(text)
        assert read_facts(path) is None
    write_facts(path, SpoolFacts(5, "ff", copied=False))
    assert read_facts(path) == SpoolFacts(5, "ff", copied=False)
    assert is_spool_file("000001-0a0b0c0d")
    assert not is_spool_file("000001-0a0b0c0d.json")
    assert not is_spool_file(".000001-0a0b0c0d")
