"""Abort, as the agent serves it: which processes it ends, which it must not, and what it says of each."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from headrace.service.broker import connect
from headrace.service.nats_server import NatsServer
from headrace_agent.processes import Held, Program, pid_here
from headrace_proto import abort, messages, subjects
from headrace_proto.events import Outcome
from headrace_proto.frame import ABORTED, FrameKind
from headrace_proto.home import Home
from headrace_proto.ids import random_id
from headrace_proto.journal import machine
from headrace_proto.messages import Abort, Find, SourceAnswer, SourceState
from tests.agent.conftest import Serve, log_points, new_writer
from tests.agent.far_end import FarEnd
from tests.agent.writers import OTHER_HOST, OTHER_NAMESPACE, WRITER, Write
from tests.processes import is_alive
from tests.waiting import until, wait_until


class Operator:
    """Asks as the command does, and hears all."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.heard: list[SourceAnswer] = []

    async def on_answer(self, message: Msg) -> None:
        answer = messages.decode(SourceAnswer, message.data)
        assert answer is not None
        assert message.subject == subjects.answer("local", answer.request)
        self.heard.append(answer)

    async def find(self, wanted: str) -> list[SourceAnswer]:
        """What is said to a question of who has it; asked again until somebody answers: an agent takes a moment to find it."""
        request = random_id()
        asked: list[asyncio.Future[None]] = []

        def answered() -> list[SourceAnswer]:
            question = messages.encode(Find(request, messages.digest_of(wanted)))
            asked.append(asyncio.ensure_future(self.client.publish(subjects.FIND, question)))
            return [answer for answer in self.heard if answer.request == request]

        found = await until(answered, "an answer to the question of who has it")
        await asyncio.gather(*asked)
        return found

    async def abort(self, experiment: str, *, grace_s: float = -1.0, reason: str = "") -> list[SourceAnswer]:
        """What is said to a request, up to the last word."""
        await self.find(experiment)
        request = random_id()
        question = messages.encode(Abort(request, experiment, "ann@desk", reason, grace_s))
        await self.client.publish(subjects.abort("local", experiment), question)

        def over() -> list[SourceAnswer] | None:
            found = [answer for answer in self.heard if answer.request == request]
            return found if found and found[-1].state != SourceState.ASKED else None

        return await until(over, "the last word on the request")


@asynccontextmanager
async def operating(url: str) -> AsyncIterator[Operator]:
    client = await connect(url, name="operator", on_event=lambda _: None)
    try:
        operator = Operator(client)
        await client.subscribe(subjects.answer("*", "*"), cb=operator.on_answer)
        yield operator
    finally:
        await client.close()


# -- What is ended ---------------------------------------------------------------------------------------------------------


async def test_only_the_experiment_that_is_meant_is_ended(
    nats_server: NatsServer, serve: Serve, write: Write, home: Home
) -> None:
    """Its process gets SIGTERM, the request lies beside its journal, and its death is told as an abort. The other lives."""
    async with FarEnd(nats_server.url) as far, serve() as agent, operating(nats_server.url) as operator:
        other, writer = write(), write()
        said = await operator.abort(writer.experiment, reason="diverged")
        assert [answer.state for answer in said] == [SourceState.ASKED, SourceState.ENDED]
        assert (said[1].source, said[1].pid, said[1].rank) == (writer.source, writer.process.pid, 0)
        assert said[0].wait_s > agent.settings.abort_grace_s, "who asked knows how long to wait for the last word"
        assert writer.process.wait(30) == -signal.SIGTERM
        assert abort.asked(writer.folder) is not None
        await until(lambda: writer.source in far.dead, "the death is told")
        [death] = [frame for frame in far.frames if frame.kind is FrameKind.DEAD]
        assert death.reason == f"{ABORTED}aborted by ann@desk: diverged"
        assert other.lives


async def test_an_agent_that_was_not_there_at_the_end_knows_that_it_was_asked_for(
    nats_server: NatsServer, serve: Serve, write: Write
) -> None:
    """The request is in the journal's folder: agent and process may both be killed, in any order."""
    writer = write()
    abort.ask(writer.folder, abort.Request(random_id(), "ann@desk", "x" * abort.REASON_CHARACTERS_MAX))
    writer.process.kill()
    writer.process.wait()
    async with FarEnd(nats_server.url) as far, serve():
        await until(lambda: writer.source in far.dead, "the death is told")
    [death] = [frame for frame in far.frames if frame.kind is FrameKind.DEAD]
    assert death.reason.startswith(f"{ABORTED}aborted by ann@desk: xxx")


async def test_the_longest_reason_in_any_script_is_told(nats_server: NatsServer, serve: Serve, write: Write) -> None:
    """Messages and frames have room for it."""
    reason = "\U0001f600" * abort.REASON_CHARACTERS_MAX
    async with FarEnd(nats_server.url) as far, serve(), operating(nats_server.url) as operator:
        writer = write()
        await operator.abort(writer.experiment, reason=reason)
        await until(lambda: writer.source in far.dead, "the death is told")
    [death] = [frame for frame in far.frames if frame.kind is FrameKind.DEAD]
    assert death.reason.endswith(reason)


async def test_a_program_that_ends_only_by_force_is_killed_with_its_children(
    nats_server: NatsServer, serve: Serve, write: Write, home: Home
) -> None:
    """One that ignores SIGTERM, its child that does too, and a daemon that had left it: the daemon lives."""
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
    before = (
        "signal.signal(15, signal.SIG_IGN)\n"
        f"child = subprocess.Popen([sys.executable, '-c', {stubborn!r}], stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        'daemon = [\'import subprocess; print(subprocess.Popen(["sleep", "600"], stdout=-3).pid)\']\n'
        "daemon = int(subprocess.run([sys.executable, '-c', *daemon], stdout=subprocess.PIPE).stdout)\n"
        "open(os.path.join(home.root, 'pids'), 'w').write(f'{child.pid} {daemon}')\n"
    )
    async with serve(), operating(nats_server.url) as operator:
        writer = write(before=before)
        with open(os.path.join(home.root, "pids")) as file:
            child, daemon = map(int, file.read().split())
        try:
            said = await operator.abort(writer.experiment, grace_s=0.2)
            assert said[-1].state == SourceState.KILLED
            assert said[-1].text.startswith("2 by SIGKILL")
            assert writer.process.wait(30) == -signal.SIGKILL
            assert not is_alive(child)
            assert is_alive(daemon)
        finally:
            os.kill(daemon, signal.SIGKILL)


async def test_ranks_of_one_experiment_all_answer(nats_server: NatsServer, serve: Serve, write: Write) -> None:
    """Three processes of one node, each ended, each with a word of its own."""
    async with serve() as agent, operating(nats_server.url) as operator:
        experiment = random_id()
        writers = [write(experiment=experiment) for _ in range(3)]
        await until(lambda: len(agent.tail.lanes) == 3, "all are found")
        assert {answer.state for answer in await operator.find(experiment)} == {SourceState.ALIVE}
        await operator.abort(experiment)
        await until(
            lambda: {a.source for a in operator.heard if a.state == SourceState.ENDED} == {w.source for w in writers},
            "every rank's last word",
        )


async def test_ranks_that_one_process_has_started_end_with_it_each_asked_once(
    nats_server: NatsServer, serve: Serve, home: Home
) -> None:
    """As `mp.spawn` has it: the ranks get one SIGTERM, all are asked before any ends, and all are aborted."""
    experiment = random_id()
    note = "signal.signal(15, lambda *_: (os.write(2, b'SIGTERM\\n'), os._exit(15)))"
    rank = WRITER.format(before=note, after="")
    start = (
        f"ranks = [subprocess.Popen([sys.executable, '-c', {rank!r}, *sys.argv[1:]], stdout=-1, stderr=2) for _ in '12']\n"
        "sources = [one.stdout.readline().decode().strip() for one in ranks]\n"
        "open(os.path.join(home.root, 'sources'), 'w').write(' '.join(sources))\n"
    )
    command = [sys.executable, "-c", WRITER.format(before="", after=start), home.root, experiment]
    home.make()
    async with FarEnd(nats_server.url) as far, serve() as agent, operating(nats_server.url) as operator:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        sources = {process.stdout.readline().strip()}
        with open(os.path.join(home.root, "sources")) as file:
            sources |= set(file.read().split())
        await until(lambda: sources <= agent.tail.lanes.keys(), "all are found")
        await operator.abort(experiment)

        def ended() -> set[str]:
            return {answer.source for answer in operator.heard if answer.state == SourceState.ENDED}

        await until(lambda: ended() == sources, "each has its last word")
        await until(lambda: sources <= set(far.dead), "each death is told")
        _, said = process.communicate()
    assert said == "SIGTERM\n" * 2
    assert len(sources) == 3
    assert all(frame.reason.startswith(ABORTED) for frame in far.frames if frame.kind is FrameKind.DEAD)


async def test_an_experiment_is_found_by_its_short_id(nats_server: NatsServer, serve: Serve, write: Write) -> None:
    """Once the store has given it one; the question names it by a digest only."""
    async with FarEnd(nats_server.url), serve(), operating(nats_server.url) as operator:
        writer = write()
        [answer, *_] = await operator.find("TST-1")
        assert (answer.experiment, answer.short_id, answer.state) == (writer.experiment, "TST-1", SourceState.ALIVE)


# -- What is not -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "why"), [(OTHER_NAMESPACE, "shareProcessNamespace"), (OTHER_HOST, "written on elsewhere")]
)
async def test_a_process_that_cannot_be_proven_is_left_alone(
    nats_server: NatsServer, serve: Serve, write: Write, before: str, why: str
) -> None:
    """A pid of another namespace or machine means somebody else here. Nothing is asked of it, and it is no abort."""
    async with serve(), operating(nats_server.url) as operator:
        writer = write(before=before)
        said = await operator.abort(writer.experiment)
        assert [answer.state for answer in said] == [SourceState.REFUSED]
        assert why in said[0].text
        assert abort.asked(writer.folder) is None
        assert writer.lives


async def test_a_pid_that_is_somebody_elses_by_now_is_left_alone(
    nats_server: NatsServer, serve: Serve, write: Write
) -> None:
    """The journal's lock is held, but the process of its pid started at another time: no signal, and no abort."""
    before = "start = machine.process_start; machine.process_start = lambda pid: start(pid) + 1"
    async with serve(), operating(nats_server.url) as operator:
        writer = write(before=before)
        said = await operator.abort(writer.experiment)
        assert {answer.state for answer in said} == {SourceState.GONE}
        assert abort.asked(writer.folder) is None
        assert writer.lives


async def test_a_process_in_another_container_is_asked_by_its_callback(
    nats_server: NatsServer, serve: Serve, write: Write
) -> None:
    """That needs no pid: the thread of its process watches the folder that both see."""
    before = f"{OTHER_NAMESPACE}\nsys.path[:0] = []\nfrom headrace.aborting import AbortWatch\n"
    async with serve(), operating(nats_server.url) as operator:
        writer = write(before=before, after="watch = AbortWatch(writer, lambda: os._exit(5))")
        said = await operator.abort(writer.experiment)
        assert [answer.state for answer in said] == [SourceState.ASKED, SourceState.ENDED]
        assert writer.process.wait(30) == 5


async def test_what_has_died_before_it_was_asked_is_not_aborted(
    nats_server: NatsServer, serve: Serve, write: Write
) -> None:
    """The agent knows the experiment, and says that its process is gone; the store will say that it failed."""
    async with FarEnd(nats_server.url) as far, serve(), operating(nats_server.url) as operator:
        writer = write()
        await operator.find(writer.experiment)
        far.answering = False  # so that the journal stays
        writer.process.kill()
        writer.process.wait()
        said = await operator.abort(writer.experiment)
        assert [answer.state for answer in said] == [SourceState.GONE]
        await until(lambda: writer.source in far.dead, "the death is told")
    [death] = [frame for frame in far.frames if frame.kind is FrameKind.DEAD]
    assert not death.reason.startswith(ABORTED)


async def test_the_agent_does_not_end_itself(nats_server: NatsServer, serve: Serve, home: Home) -> None:
    """Where program and agent are one process, it says so."""
    async with serve(), operating(nats_server.url) as operator:
        writer = new_writer(home)
        log_points(writer, 1)
        said = await operator.abort(writer.experiment)
        assert [answer.state for answer in said] == [SourceState.REFUSED]
        writer.close(Outcome.SUCCEEDED)


async def test_requests_that_are_none_are_ignored(nats_server: NatsServer, serve: Serve, write: Write) -> None:
    """Whatever arrives on the subjects: the agent goes on, and serves the next request."""
    async with serve(), operating(nats_server.url) as operator:
        writer = write()
        await operator.find(writer.experiment)
        hostile = (
            b"",
            b"\xff" * 100,
            messages.encode(Abort("a.b", writer.experiment)),
            messages.encode(Abort(">", writer.experiment)),
            messages.encode(Abort("", writer.experiment)),
            messages.encode(Abort("x" * 65, writer.experiment)),
            messages.encode(Find("1", messages.digest_of(writer.experiment))),
            messages.encode(Abort("1", writer.experiment))[:-3],
        )
        for data in hostile:
            await operator.client.publish(subjects.abort("local", writer.experiment), data)
            await operator.client.publish(subjects.FIND, data)
        answers = await operator.find(writer.experiment)
        assert {answer.state for answer in answers} == {SourceState.ALIVE}
        assert writer.lives


# -- Processes -------------------------------------------------------------------------------------------------------------


def test_a_pid_is_not_enough_to_be_held() -> None:
    """Another start is another process; one that has ended is none; what is held is never its successor."""
    child = subprocess.Popen(["sleep", "600"])
    start = machine.process_start(child.pid)
    assert Held.of(child.pid, start + 1) is None
    held = Held.of(child.pid, start)
    assert held is not None
    assert not held.gone()
    child.kill()
    child.wait()
    assert held.gone()
    assert not held.send(signal.SIGTERM)
    held.close()
    assert Held.of(child.pid, start) is None


def test_another_users_process_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor one that was ours when it began and runs as somebody else now."""
    child = subprocess.Popen(["sleep", "600"])
    start = machine.process_start(child.pid)
    held = Held.of(child.pid, start)
    assert held is not None
    held.close()
    monkeypatch.setattr(os, "geteuid", lambda: os.stat("/proc/self").st_uid + 1)
    assert Held.of(child.pid, start) is None
    child.kill()
    child.wait()


def test_a_process_of_a_container_is_found_by_what_it_is_called_there(tmp_path: Path) -> None:
    """Its namespace, its pid in that, and its start must fit: another container's process 1 is not it."""
    ours = os.getpid()
    start = machine.process_start(ours)

    def appears(name: int, called: str) -> int:
        folder = tmp_path / str(name)
        (folder / "ns").mkdir(parents=True)
        (folder / "ns" / "pid").touch()
        (folder / "status").write_text(f"Name:\tpython\nNSpid:\t{name}\t{called}\n")
        return (folder / "ns" / "pid").stat().st_ino

    (tmp_path / "uptime").touch()
    (tmp_path / "31").mkdir()
    appears(30, "17")
    namespace = appears(ours, "17")
    assert pid_here(17, start, namespace, str(tmp_path)) == ours
    assert pid_here(18, start, namespace, str(tmp_path)) is None
    assert pid_here(17, start + 1, namespace, str(tmp_path)) is None
    assert pid_here(17, start, namespace + 1000, str(tmp_path)) is None
    assert pid_here(17, start, namespace, str(tmp_path / "nowhere")) is None
    assert pid_here(17, start, machine.pid_namespace(), str(tmp_path)) == 17


def test_without_pidfds_the_pid_is_proven_again_before_each_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """An old kernel, or a container that forbids them."""

    def refused(*_: object) -> int:
        raise PermissionError(1, "seccomp")

    monkeypatch.setattr(os, "pidfd_open", refused)
    child = subprocess.Popen(["sleep", "600"])
    held = Held.of(child.pid, machine.process_start(child.pid))
    assert held is not None
    assert not held.gone()
    assert held.send(signal.SIGTERM)
    assert child.wait(30) == -signal.SIGTERM
    assert held.gone()
    assert not held.send(signal.SIGTERM)
    assert Held.of(child.pid, 1) is None


async def test_what_started_this_agent_may_be_ended_and_the_agent_is_spared() -> None:
    """A program that runs its own agent as a child: the program and its other children go, the agent stays."""
    agent = (
        "import asyncio, os, subprocess\n"
        "from headrace_agent.processes import Held, Program\n"
        "from headrace_proto.journal import machine\n"
        "beside = subprocess.Popen(['sleep', '600'])\n"
        "parent = os.getppid()\n"
        "held = Held.of(parent, machine.process_start(parent))\n"
        "ended = asyncio.run(Program(held).end(30))\n"
        "print(ended.children, beside.poll(), flush=True)\n"
        "beside.kill()\n"
    )
    program = (
        f"import subprocess, sys; subprocess.Popen(['sleep', '600']); subprocess.run([sys.executable, '-c', {agent!r}])"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    said, _ = await asyncio.to_thread(process.communicate)
    assert process.returncode == -signal.SIGTERM
    assert said.split() == ["1", "None"]


async def test_spared_children_live_with_what_they_have_started() -> None:
    """Those that have a callback of their own are left to it."""
    inner = "import subprocess; child = subprocess.Popen(['sleep', '600']); print(child.pid, flush=True); child.wait()"
    outer = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {inner!r}], stdout=subprocess.PIPE, text=True)\n"
        "print(child.pid, child.stdout.readline().strip(), flush=True)\n"
        "time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", outer], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    spared, below = map(int, process.stdout.readline().split())
    try:
        held = Held.of(process.pid, machine.process_start(process.pid))
        assert held is not None
        ended = await Program(held, {spared}).end(30)
        assert (ended.children, ended.left, process.wait(30)) == (0, 0, -signal.SIGTERM)
        assert is_alive(spared)
        assert is_alive(below)
    finally:
        for pid in (spared, below):
            os.kill(pid, signal.SIGKILL)
        process.stdout.close()
    wait_until(lambda: not is_alive(spared), "they are gone")
