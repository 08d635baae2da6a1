"""The rights of each role are enough for its work, and end there. With a real nats-server, over TLS, with the accounts we write."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import nats.errors
import pytest
from nats.aio.msg import Msg

import headrace as hr
from headrace.command.probes import Access
from headrace.command.probes import broker as ask_broker
from headrace.reading import StoredProject
from headrace.service import rights
from headrace.service.broker import connect, ensure_streams
from headrace.service.nats_server import NatsServer
from headrace_proto import subjects
from headrace_proto.home import Home
from tests.service.guarded import SITES, Guarded
from tests.waiting import until, until_awaited, wait_until

EXPERIMENT, SOURCE, REQUEST = "0" * 32, "1" * 32, "2" * 32
OURS, OTHERS = SITES

FOREIGN_WRITES = (
    subjects.events(OTHERS, EXPERIMENT, SOURCE),
    subjects.files(OTHERS, EXPERIMENT, SOURCE),
    *(subjects.mark(site, SOURCE) for site in SITES),
    *(subjects.rewind(site, SOURCE) for site in SITES),
    *(subjects.abort(site, EXPERIMENT) for site in SITES),
    subjects.FIND,
    subjects.close_gap(EXPERIMENT),
    subjects.answer(OTHERS, REQUEST),
    subjects.sign(OTHERS),
    subjects.lease(0),
    subjects.collector("me"),
    f"_INBOX.{rights.COLLECTOR_NAME}.x",
    f"_INBOX.{rights.agent_name(OTHERS)}.x",
)
"""What an agent of OURS may not publish to."""
API = (
    *(
        f"$JS.API.{verb}.{stream}"
        for stream in subjects.STREAMS
        for verb in (
            "STREAM.INFO",
            "STREAM.DELETE",
            "STREAM.PURGE",
            "STREAM.UPDATE",
            "STREAM.MSG.GET",
            "STREAM.MSG.DELETE",
        )
    ),
    "$JS.API.INFO",
    "$JS.API.STREAM.LIST",
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.CREATE.MINE",
    f"$JS.API.CONSUMER.CREATE.{subjects.EVENTS_STREAM}.spy",
    f"$JS.API.CONSUMER.DURABLE.CREATE.{subjects.EVENTS_STREAM}.spy",
    f"$JS.API.CONSUMER.MSG.NEXT.{subjects.EVENTS_STREAM}.spy",
    f"$JS.API.CONSUMER.LIST.{subjects.EVENTS_STREAM}",
    f"$JS.API.DIRECT.GET.{subjects.MARKS_STREAM}",
    f"$JS.API.DIRECT.GET.{subjects.MARKS_STREAM}.{subjects.mark(OTHERS, SOURCE)}",
    f"$JS.API.DIRECT.GET.{subjects.LEASES_STREAM}.{subjects.lease(0)}",
    f"$JS.ACK.{subjects.EVENTS_STREAM}.spy.1.1.1.1.0",
)
FOREIGN_EARS = (
    ">",
    "*.>",
    "hr.>",
    f"{subjects.EVENTS_PREFIX}.>",
    f"{subjects.EVENTS_PREFIX}.{OTHERS}.>",
    f"{subjects.FILES_PREFIX}.{OTHERS}.>",
    f"{subjects.MARKS_PREFIX}.>",
    subjects.marks_of_site(OTHERS),
    subjects.control_of_site(OTHERS),
    subjects.abort(OTHERS, "*"),
    subjects.abort("*", "*"),
    subjects.close_gap("*"),
    f"{subjects.OPERATOR_PREFIX}.>",
    subjects.answers_of_site(OURS),
    subjects.answers_of_site(OTHERS),
    f"{subjects.ANSWERS_PREFIX}.>",
    subjects.sign(OTHERS),
    subjects.sign("*"),
    f"{subjects.LEASES_PREFIX}.>",
    "_INBOX.>",
    f"_INBOX.{rights.agent_name(OTHERS)}.>",
    f"_INBOX.{rights.COLLECTOR_NAME}.>",
    "$JS.>",
    "$SYS.>",
)
"""What an agent of OURS may not hear."""


@pytest.fixture
async def guarded(start_nats: Callable[..., NatsServer], tmp_path: Path) -> AsyncIterator[Guarded]:
    folder = tmp_path / "guarded-keys"
    folder.mkdir()
    guarded = Guarded(start_nats, folder)
    yield guarded
    await guarded.close()


async def violates(guarded: Guarded, role: str, act: Awaitable[object], what: str) -> None:
    """Do `act`, and wait until the broker calls it a violation of the role's permissions."""
    heard = guarded.heard[role]
    heard.clear()
    await act
    await until(lambda: any("permissions violation" in line.lower() for line in heard), f"{what} is refused")


# -- What each role does with its rights -----------------------------------------------------------------------------------


def test_whole_path_works_with_exactly_these_rights(
    start_nats: Callable[..., NatsServer], tmp_path: Path, home: Home, store: str
) -> None:
    """Trainer, agent and collector bring an experiment with a large file into the store, over TLS, each with its role's rights."""
    guarded = Guarded(start_nats, tmp_path)
    ours = {"HEADRACE_HOME": home.root}

    def start(part: str, role: str, *flags: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "headrace.command", part, *flags]
        with (tmp_path / f"{part}.log").open("ab") as log:
            return subprocess.Popen(command, env={**guarded.environment(role), **ours}, stdout=log, stderr=log)

    with hr.init("work/guarded", home=home.root).create_experiment() as experiment:
        experiment.log_metric("loss", 0, 0.5)
        experiment.log_text("long", "x" * 100_000)
    parts = [
        start("collector", "collector", "--store", store, "--workers", "2"),
        start("agent", OURS, "--site", OURS),
    ]
    try:
        wait_until(lambda: not os.listdir(home.journals), "the journal is stored and deleted", 60)
    finally:
        for part in parts:
            part.terminate()
        for part in parts:
            part.wait(30)
    found = StoredProject(store, "work/guarded").get_experiment(experiment.internal_id)
    assert found.metrics["loss"] == 0.5
    assert "violation" not in "".join(log.read_text().lower() for log in tmp_path.glob("*.log"))


def test_operator_sees_the_streams_and_no_event(start_nats: Callable[..., NatsServer], tmp_path: Path) -> None:
    """`headrace status` and `doctor` work with the operator's key."""
    guarded = Guarded(start_nats, tmp_path)

    async def make() -> None:
        await ensure_streams((await guarded.client("collector")).jetstream())
        await guarded.close()

    asyncio.run(make())
    asked = ask_broker(Access(guarded.url, str(guarded.key("operator")), guarded.authority.issue("operator")))
    assert asked.problem == ""
    assert [(stream.name, stream.messages, stream.problem) for stream in asked.streams] == [
        (name, 0, "") for name in subjects.STREAMS
    ]


ENDED_FROM_AFAR = """
import time
import headrace as hr
experiment = hr.init("work/guarded").create_experiment(upload_source_files=[], upload_stdout=False, git_info=False)
print(experiment.internal_id, flush=True)
time.sleep(600)
"""


def test_operator_ends_a_process_through_the_agent_of_its_site(
    start_nats: Callable[..., NatsServer], tmp_path: Path, home: Home
) -> None:
    """`headrace abort` with the operator's key reaches it, over TLS, through accounts, and hears how it ended."""
    guarded = Guarded(start_nats, tmp_path)
    ours = {"HEADRACE_HOME": home.root}
    command = [sys.executable, "-m", "headrace.command"]
    with (tmp_path / "agent.log").open("ab") as log:
        environment = {**guarded.environment(OURS), **ours, "HEADRACE_SITE": OURS}
        agent = subprocess.Popen([*command, "agent"], env=environment, stdout=log, stderr=log)
    trainer = subprocess.Popen(
        [sys.executable, "-c", ENDED_FROM_AFAR], env={**os.environ, **ours}, stdout=subprocess.PIPE, text=True
    )
    try:
        assert trainer.stdout
        experiment = trainer.stdout.readline().strip()

        def asked() -> subprocess.CompletedProcess[str] | None:  # until the agent has found it
            done = subprocess.run(
                [*command, "abort", experiment, "--json"],
                env={**guarded.environment("operator"), "HEADRACE_HOME": str(tmp_path / "elsewhere")},
                capture_output=True,
                text=True,
                timeout=60,
            )
            return done if done.returncode != 2 else None

        done = wait_until(asked, "an agent answers", 90)
        assert done.returncode == 0, done.stderr
        [answer] = json.loads(done.stdout)
        assert (answer["site"], answer["state"], answer["pid"]) == (OURS, "ended", trainer.pid)
        assert trainer.wait(30) == -signal.SIGTERM
    finally:
        trainer.kill()
        trainer.communicate()
        agent.terminate()
        agent.wait(30)
    assert "violation" not in (tmp_path / "agent.log").read_text().lower()


# -- An agent --------------------------------------------------------------------------------------------------------------


async def test_agent_writes_nothing_but_its_sites_frames(guarded: Guarded) -> None:
    """An agent's key opens no other site's subjects, no marks, no leases, no inbox, and nothing of JetStream's own."""
    client = await guarded.client(OURS)
    for subject in (*FOREIGN_WRITES, *API):
        await violates(guarded, OURS, client.publish(subject, b""), subject)


async def test_agent_hears_nothing_but_its_sites_answers(guarded: Guarded) -> None:
    """An agent's key subscribes to nobody's events, marks, requests, leases or inboxes but its own."""
    client = await guarded.client(OURS)
    for subject in FOREIGN_EARS:
        await violates(guarded, OURS, client.subscribe(subject), subject)


async def test_agent_cannot_have_its_answer_sent_to_others(guarded: Guarded) -> None:
    """The stream acknowledges to the reply that a message names: no reply of an agent overwrites a mark, a lease or an event."""
    js = (await guarded.client("collector")).jetstream()
    await ensure_streams(js)
    mark = subjects.mark(OTHERS, SOURCE)
    await js.publish(mark, b"the mark")
    client = await guarded.client(OURS)
    targets = (mark, subjects.lease(0), subjects.events(OTHERS, EXPERIMENT, SOURCE), "$JS.API.STREAM.PURGE.HR_MARKS")
    for target in targets:
        await client.publish(subjects.events(OURS, EXPERIMENT, SOURCE), b"frame", reply=target)
    await client.flush()

    async def all_there() -> bool:
        return (await js.stream_info(subjects.EVENTS_STREAM)).state.messages == len(targets)

    await until_awaited(all_there, "every frame is in the stream")
    assert (await js.get_last_msg(subjects.MARKS_STREAM, mark)).data == b"the mark"
    assert (await js.stream_info(subjects.LEASES_STREAM)).state.messages == 0


async def test_agent_may_recall_the_mark_of_its_own_source(guarded: Guarded) -> None:
    """The one thing that an agent asks of JetStream itself: the newest mark of a source of its site."""
    js = (await guarded.client("collector")).jetstream()
    await ensure_streams(js)
    await js.publish(subjects.mark(OURS, SOURCE), b"the mark")
    client = await guarded.client(OURS)
    asked = f"$JS.API.DIRECT.GET.{subjects.MARKS_STREAM}.{subjects.mark(OURS, SOURCE)}"
    assert (await client.request(asked, b"", timeout=10)).data == b"the mark"


async def test_site_hears_its_own_marks_only(guarded: Guarded) -> None:
    """Marks and requests go to the site that they are for."""
    collector = await guarded.client("collector")
    await ensure_streams(collector.jetstream())
    heard: dict[str, set[str]] = {site: set() for site in SITES}
    for site in SITES:

        async def note(message: Msg, site: str = site) -> None:
            heard[site].add(message.subject)

        client = await guarded.client(site)
        await client.subscribe(subjects.marks_of_site(site), cb=note)
        await client.subscribe(subjects.control_of_site(site), cb=note)
        await client.flush()

    async def tell() -> None:
        for site in SITES:
            await collector.publish(subjects.mark(site, SOURCE), b"mark")
            await collector.publish(subjects.rewind(site, SOURCE), b"rewind")

    telling: list[asyncio.Future[None]] = []

    def all_heard() -> bool:  # told again at each look: an import may not have reached the other account yet
        telling.append(asyncio.ensure_future(tell()))
        return all(len(each) >= 2 for each in heard.values())

    await until(all_heard, "each hears its own")
    await asyncio.gather(*telling)
    assert heard == {site: {subjects.mark(site, SOURCE), subjects.rewind(site, SOURCE)} for site in SITES}


async def test_sites_are_asked_to_find_and_only_the_one_that_is_meant_to_end(guarded: Guarded) -> None:
    """All sites hear who is looked for; a request to end is one site's; each answers under its own name."""
    operator = await guarded.client("operator")
    heard: dict[str, set[str]] = {site: set() for site in (*SITES, "operator")}

    def noting(role: str) -> Callable[[Msg], Awaitable[None]]:
        async def note(message: Msg) -> None:
            heard[role].add(message.subject)

        return note

    clients = {site: await guarded.client(site) for site in SITES}
    for site, client in clients.items():
        await client.subscribe(subjects.FIND, cb=noting(site))
        await client.subscribe(subjects.abort(site, "*"), cb=noting(site))
        await client.flush()
    await operator.subscribe(subjects.answer("*", REQUEST), cb=noting("operator"))
    await operator.flush()
    telling: list[asyncio.Future[None]] = []

    async def tell() -> None:
        await operator.publish(subjects.FIND, b"find")
        await operator.publish(subjects.abort(OURS, EXPERIMENT), b"abort")
        for site, client in clients.items():
            await client.publish(subjects.answer(site, REQUEST), b"answer")

    def all_heard() -> bool:  # told again at each look: an import may not have reached the other account yet
        telling.append(asyncio.ensure_future(tell()))
        return len(heard[OURS]) == 2 and len(heard[OTHERS]) == 1 and len(heard["operator"]) == 2

    await until(all_heard, "each hears its own")
    await asyncio.gather(*telling)
    assert heard == {
        OURS: {subjects.FIND, subjects.abort(OURS, EXPERIMENT)},
        OTHERS: {subjects.FIND},
        "operator": {subjects.answer(site, REQUEST) for site in SITES},
    }


async def test_key_of_one_role_is_not_anothers(guarded: Guarded) -> None:
    """Whoever calls itself a collector is none: rights come from the key. Its inbox is not heard with an agent's."""
    client = await guarded.client(OURS, rights.COLLECTOR_NAME)
    with pytest.raises((nats.errors.Error, TimeoutError)):
        await client.request(f"$JS.API.STREAM.INFO.{subjects.EVENTS_STREAM}", b"", timeout=0.5)


# -- The others ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["collector", "operator"])
async def test_nobody_else_writes_events(guarded: Guarded, role: str) -> None:
    """Neither a collector nor an operator can make up an event or a file, take a stream away, or hear everybody's inbox."""
    client = await guarded.client(role)
    writes = [
        subjects.events(OURS, EXPERIMENT, SOURCE),
        subjects.files(OURS, EXPERIMENT, SOURCE),
        *(f"$JS.API.STREAM.DELETE.{stream}" for stream in subjects.STREAMS),
        *(f"$JS.API.STREAM.UPDATE.{stream}" for stream in subjects.STREAMS),
        f"$JS.API.STREAM.PURGE.{subjects.EVENTS_STREAM}",
        f"$JS.API.STREAM.MSG.DELETE.{subjects.EVENTS_STREAM}",
        "$JS.API.STREAM.CREATE.OTHER",
    ]
    writes += [*(subjects.answer(site, REQUEST) for site in SITES), subjects.sign(OURS)]
    ears = [">", f"{subjects.EVENTS_PREFIX}.>", "_INBOX.>", "$JS.>", subjects.control_of_site(OURS), subjects.FIND]
    if role == "collector":
        writes += [subjects.abort(OURS, EXPERIMENT), subjects.FIND, subjects.close_gap(EXPERIMENT)]
        ears += [f"{subjects.OPERATOR_PREFIX}.>", f"{subjects.ANSWERS_PREFIX}.>"]
    if role == "operator":
        writes += [
            subjects.mark(OURS, SOURCE),
            subjects.lease(0),
            f"$JS.API.STREAM.MSG.GET.{subjects.EVENTS_STREAM}",
            f"$JS.API.CONSUMER.CREATE.{subjects.EVENTS_STREAM}.spy",
            f"$JS.ACK.{subjects.EVENTS_STREAM}.spy.1.1.1.1.0",
        ]
    for subject in writes:
        await violates(guarded, role, client.publish(subject, b""), subject)
    for subject in ears:
        await violates(guarded, role, client.subscribe(subject), subject)


async def test_stranger_is_not_let_in(guarded: Guarded) -> None:
    """Without a key nobody is anybody, certificate or not."""
    heard: list[str] = []
    tls = guarded.authority.issue("nobody")
    connecting = asyncio.create_task(connect(guarded.url, name="nobody", tls=tls, on_event=heard.append))
    await until(lambda: bool(heard), "a refusal")
    connecting.cancel()
    await asyncio.gather(connecting, return_exceptions=True)
    assert "credentials" in json.dumps(heard)
