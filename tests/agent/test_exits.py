"""Deaths: that a trainer is gone is known as soon as the kernel knows, or at the latest when its lock is next asked for."""

from __future__ import annotations

import errno
import os
import signal
import time
from unittest.mock import Mock

import pytest

from headrace.service.nats_server import NatsServer
from headrace_agent import rest
from headrace_agent import tail as tailing
from headrace_agent.budget import Budget
from headrace_agent.exits import Exits
from headrace_agent.source import Death, Source
from headrace_agent.ticks import TICK_S
from headrace_proto.home import Home
from headrace_proto.journal import JournalReader, machine
from headrace_proto.journal.layout import LOCK_NAME, UNLOCKED_NAME
from tests.agent.conftest import Serve
from tests.agent.far_end import FarEnd
from tests.agent.writers import OTHER_NAMESPACE, Write
from tests.processes import process_state
from tests.waiting import until, wait_until

NEVER_NS = 10**18


async def test_a_death_is_heard_of_without_asking(
    nats_server: NatsServer, serve: Serve, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if no source were ever asked whether its writer lives: the kernel says so, and all that it wrote is there before."""
    monkeypatch.setattr(tailing, "REST_NS", NEVER_NS)
    async with FarEnd(nats_server.url) as far, serve() as agent:
        writer, other = write(), write()
        await until(lambda: len(agent.tail.lanes) == 2, "both are found")
        end = agent.tail.lanes[writer.source].source
        writer.process.kill()
        await until(lambda: writer.source in far.dead, "the death is told")
        assert far.watermark(writer.source) == end.end > 0
        assert agent.tail.lanes[other.source].source.death is Death.UNPROVEN
        os.kill(other.process.pid, signal.SIGTERM)
        await until(lambda: other.source in far.dead, "the other's is told, too")


async def test_a_process_that_nobody_hears_of_is_asked_for(nats_server: NatsServer, serve: Serve, write: Write) -> None:
    """In another pid namespace only the lock tells; such a source never rests for so long that it would be late."""
    async with FarEnd(nats_server.url) as far, serve() as agent:
        writer = write(before=OTHER_NAMESPACE)
        await until(lambda: writer.source in agent.tail.lanes, "it is found")
        source = agent.tail.lanes[writer.source].source
        assert not source.exit_is_heard
        writer.process.kill()
        writer.process.wait()
        await until(lambda: writer.source in far.dead, "the death is told")


async def test_a_process_that_had_died_before_the_agent_began_is_known_at_once(
    nats_server: NatsServer, serve: Serve, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no exit to hear of any more, and none to wait for."""
    monkeypatch.setattr(tailing, "REST_NS", NEVER_NS)
    writer = write()
    writer.process.kill()
    writer.process.wait()
    async with FarEnd(nats_server.url) as far, serve():
        await until(lambda: writer.source in far.dead, "the death is told")


async def test_a_process_that_has_let_go_of_its_journal_and_lives_is_no_death(
    nats_server: NatsServer, serve: Serve, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its descriptors were closed for it, and its lock went with them: it has the journal mapped, and may log."""
    async with FarEnd(nats_server.url) as far, serve() as agent:
        writer = write(after="os.closerange(3, 256)")
        await until(lambda: writer.source in agent.tail.lanes, "it is found")
        source = agent.tail.lanes[writer.source].source
        source.exited = True  # as a pid that was made up would have it
        looks = agent.tail._looks
        await until(lambda: agent.tail._looks > looks + 10, "ten looks")
        assert source.death is Death.UNPROVEN
        assert writer.source not in far.dead


async def test_another_program_in_the_same_process_is_the_end_of_the_first(
    nats_server: NatsServer, serve: Serve, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`os.execv` leaves the process as it was; of a source that has rested for long it is asked within 6 s."""
    monkeypatch.setattr(rest, "LONG_NS", 0)
    assert rest.LONG_ROUNDS * TICK_S <= 6
    program = "[sys.executable, '-c', 'import time; time.sleep(600)']"
    async with FarEnd(nats_server.url) as far, serve() as agent:
        writer = write(after=f"signal.signal(signal.SIGUSR1, lambda *_: os.execv(sys.executable, {program}))")
        await until(lambda: len(agent.tail._rest) == 1, "it rests")
        source = agent.tail.lanes[writer.source].source
        assert source.exit_is_heard
        writer.process.send_signal(signal.SIGUSR1)
        looks = agent.tail._looks
        await until(lambda: source.death is not Death.UNPROVEN, "its end is seen")
        assert agent.tail._looks - looks <= rest.LONG_ROUNDS + 2 * rest.ROUNDS
        assert writer.lives
        await until(lambda: writer.source in far.dead, "the death is told")


async def test_a_process_whose_first_thread_has_left_lives(
    home: Home, nats_server: NatsServer, serve: Serve, write: Write
) -> None:
    """/proc calls it a zombie, while its other threads log on: also where a lock cannot say so."""
    left = "import ctypes; ctypes.CDLL(None).pthread_exit(None)"
    log = "[time.sleep(0.05) or writer.point('v', n, 1.0, 1) for n in range(100_000)]"
    script = (
        f"import threading; threading.Thread(target=lambda: {log}).start(); print(writer.source, flush=True); {left}"
    )
    writer = write(after=script)
    os.rename(os.path.join(writer.folder, LOCK_NAME), os.path.join(writer.folder, UNLOCKED_NAME))
    wait_until(lambda: process_state(writer.process.pid) == "Z", "the first thread is gone")
    async with FarEnd(nats_server.url) as far, serve() as agent:
        await until(lambda: far.watermark(writer.source) > 0, "it is shipped")
        seen = far.watermark(writer.source)
        await until(lambda: far.watermark(writer.source) > seen, "it logs on")
        source = agent.tail.lanes[writer.source].source
        assert not source.exited
        assert source.exit_is_heard
        writer.process.kill()
        await until(lambda: writer.source in far.dead, "now it is dead")


def test_a_process_id_that_was_given_away_meanwhile_is_nobodys(
    home: Home, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the process and the descriptor of it: the one that has the number now began at another time."""
    reader = JournalReader(write().folder)
    source = Source(reader, Budget(1), None, time.monotonic_ns())
    monkeypatch.setattr(machine, "process_gone", lambda *_: False)
    monkeypatch.setattr(machine, "process_start", lambda _: source.header.pid_start + 1)
    exits, before = Exits(2), len(os.listdir("/proc/self/fd"))
    exits.watch(source)
    assert (source.exited, source.exit_is_heard, len(exits)) == (False, False, 0), "its lock is asked for, now and then"
    assert len(os.listdir("/proc/self/fd")) == before
    exits.close()
    reader.close()


def test_a_process_that_the_kernel_will_not_watch_any_more_is_asked_for(
    home: Home, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user watches only so many files in all his epolls: that ends nothing, and leaves no descriptor."""
    reader = JournalReader(write().folder)
    source = Source(reader, Budget(1), None, time.monotonic_ns())
    exits, before = Exits(2), len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as full:
        full.setattr(exits, "_epoll", Mock(register=Mock(side_effect=OSError(errno.ENOSPC, "no watch is left"))))
        exits.watch(source)
    assert (source.exited, source.exit_is_heard, len(exits)) == (False, False, 0)
    assert len(os.listdir("/proc/self/fd")) == before
    exits.watch(source)
    assert source.exit_is_heard
    exits.close()
    reader.close()


def test_sources_of_one_process_share_a_descriptor_and_leave_none(home: Home, write: Write, serve: Serve) -> None:
    """One a process, freed with its last source, with its end, and with the agent."""
    second = "other = JournalWriter(home, 'tests/agent', experiment, SourceFacts(rank=0))"
    writers = write(after=second), write(), write()
    readers = [JournalReader(home.journal(name)) for name in os.listdir(home.journals)]
    sources = [Source(reader, Budget(1), None, time.monotonic_ns()) for reader in readers]
    before = len(os.listdir("/proc/self/fd"))
    exits = Exits(2)
    for source in sorted(sources, key=lambda one: one.header.created_ns):
        exits.watch(source)
    assert len(exits) == 2, "two processes, and no room for a third"
    assert sum(source.exit_is_heard for source in sources) == 3
    two = [source for source in sources if source.header.pid == writers[0].process.pid]
    assert len(two) == 2
    exits.forget(two[0])
    exits.forget(two[0])
    assert len(exits) == 2
    exits.forget(two[1])
    assert len(exits) == 1
    writers[1].process.kill()
    [ended] = wait_until(exits.ended, "an end is heard")
    assert ended.header.pid == writers[1].process.pid
    assert (ended.exited, len(exits), exits.ended()) == (True, 0, [])
    exits.watch(next(source for source in sources if source.header.pid == writers[2].process.pid))
    assert len(exits) == 1
    exits.close()
    assert len(os.listdir("/proc/self/fd")) == before
    for reader in readers:
        reader.close()
