"""What killed processes leave behind is removed, and nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.service.nats_server import NatsServer
from headrace_agent.leftovers import REST_NS, Leftovers, clear_spool
from headrace_agent.metrics import Metrics
from headrace_proto.events import Outcome
from headrace_proto.home import GONE, Home
from headrace_proto.ids import random_id
from headrace_proto.journal import JournalReader
from headrace_proto.journal.layout import LOCK_NAME
from tests.agent.conftest import Serve, log_points, new_writer, spool
from tests.agent.far_end import FarEnd
from tests.waiting import until

KILLED_AT = """
import fcntl, os, signal, sys
from headrace_proto.home import Home
from headrace_proto.journal import JournalWriter

def run(home, nth):
    calls = 0
    def killing(function):
        def wrapped(*arguments, **named):
            nonlocal calls
            calls += 1
            if calls == nth:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)
        return wrapped
    for name in ("mkdir", "open", "posix_fallocate", "pwrite", "rename", "unlink", "close"):
        setattr(os, name, killing(getattr(os, name)))
    fcntl.lockf = killing(fcntl.lockf)
    writer = JournalWriter(Home(home), "a/b", "0" * 32)
    for i in range(25):
        writer.event(14, i, "large", "x" * 100_000)
    writer.close("succeeded")

nth = 0
while True:
    nth += 1
    if (pid := os.fork()) == 0:
        run(f"{sys.argv[1]}/{nth}", nth)
        os._exit(0)
    if os.waitpid(pid, 0)[1] == 0:
        break
print(nth)
"""
"""A writer that is killed at its nth call of the system, for every n: while it opens, rolls over, or closes."""


@pytest.fixture
def leftovers(home: Home) -> Leftovers:
    return Leftovers(home, Metrics())


def sweep(leftovers: Leftovers) -> None:
    """Two looks, far enough apart."""
    leftovers.sweep(frozenset(), 0)
    leftovers.sweep(frozenset(), REST_NS)


def names(folder: str) -> list[str]:
    return sorted(os.listdir(folder))


def test_a_writer_killed_anywhere_leaves_a_whole_journal_or_nothing_for_long(tmp_path: Path) -> None:
    """Killed at its nth system call, for every n: its journal can be read, or it never had a name and is swept away."""
    done = subprocess.run([sys.executable, "-c", KILLED_AT, tmp_path], capture_output=True, text=True, check=True)
    hidden = opened = 0
    for nth in range(1, int(done.stdout) + 1):
        home = Home(tmp_path / str(nth))
        if not os.path.isdir(home.journals):
            continue
        hidden += any(name.startswith(".") for name in names(home.journals))
        sweep(Leftovers(home, Metrics()))
        for name in names(home.journals):
            JournalReader(home.journal(name)).close()
            opened += 1
    assert hidden > 3
    assert opened > 5


def test_a_writer_that_is_opening_is_left_in_peace(home: Home, leftovers: Leftovers) -> None:
    """As long as its lock is held; and a folder whose lock nobody has yet gets time to be locked."""
    writer = new_writer(home)
    hidden = os.path.join(home.journals, f".{writer.source}")
    os.rename(writer.folder, hidden)
    unlocked = os.path.join(home.journals, f".{random_id()}")
    os.mkdir(unlocked)
    script = "import sys; from headrace_agent.leftovers import Leftovers; from headrace_agent.metrics import Metrics\n"
    script += "from headrace_proto.home import Home; l = Leftovers(Home(sys.argv[1]), Metrics())\n"
    script += f"l.sweep(frozenset(), 0); l.sweep(frozenset(), {REST_NS} - 1)\n"
    script += f"import os; assert len(os.listdir(sys.argv[1] + '/journal')) == 2; l.sweep(frozenset(), {REST_NS})\n"
    subprocess.run([sys.executable, "-c", script, home.named], check=True)  # asked by another process, as ever
    assert names(home.journals) == [os.path.basename(hidden)]
    os.rename(hidden, writer.folder)
    writer.close(Outcome.SUCCEEDED)


def test_only_what_holds_no_event_is_swept(home: Home, leftovers: Leftovers) -> None:
    """A journal with a segment, one being copied here, one that is shipped, and whatever is not ours to judge stay."""
    writer = new_writer(home)
    log_points(writer, 10)
    writer.close(Outcome.SUCCEEDED)
    empty, copied, shipped = random_id(), random_id(), random_id()
    for source in (empty, copied, shipped):
        os.mkdir(home.journal(source))
        Path(home.journal(source), LOCK_NAME).touch()
        Path(home.journal(source), ".000001.seg").touch()
    Path(home.journal(copied), ".000000.seg.x1Y2z3").touch()  # as rsync names what it is writing
    Path(home.journals, "notes.txt").touch()
    Path(home.journals, f"{GONE}{random_id()}").mkdir()
    for looks in (0, REST_NS, 2 * REST_NS):
        leftovers.sweep({shipped}, looks)
    assert names(home.journals) == sorted([writer.source, copied, shipped, "notes.txt"])


def test_what_changes_is_looked_at_again(home: Home, leftovers: Leftovers) -> None:
    """Rest counts from the last change."""
    source = random_id()
    os.mkdir(home.journal(source))
    leftovers.sweep(frozenset(), 0)
    Path(home.journal(source), LOCK_NAME).touch()
    leftovers.sweep(frozenset(), REST_NS)
    assert names(home.journals) == [source]
    leftovers.sweep(frozenset(), 2 * REST_NS)
    assert names(home.journals) == []


def test_a_spool_loses_what_belongs_to_no_file_and_keeps_what_does(home: Home) -> None:
    """Half-written payloads and companions alone go; whole files, and what was set aside for people, stay."""
    source = random_id()
    kept = spool(home, source, 1, b"whole")
    folder = Path(home.spool(source))
    refused = f"{kept[:-1]}x.refused"
    for name in (".000002-0a0b0c0d", "000003-0a0b0c0d.json", refused):
        (folder / name).touch()
    clear_spool(str(folder))
    assert names(str(folder)) == sorted([kept, f"{kept}.json", refused])
    for path in folder.iterdir():
        path.unlink()
    clear_spool(str(folder))
    assert not folder.exists()
    clear_spool(str(folder))


def test_a_spool_without_a_journal_is_swept_unless_it_holds_a_file(home: Home, leftovers: Leftovers) -> None:
    """A file there may be somebody's only copy."""
    empty, full = random_id(), random_id()
    os.mkdir(home.spool(empty))
    Path(home.spool(empty), ".000001-0a0b0c0d").touch()
    spool(home, full, 1, b"x")
    sweep(leftovers)
    assert names(home.spools) == [full]


async def test_an_agent_sweeps_when_it_starts(home: Home, nats_server: NatsServer, serve: Serve) -> None:
    """What the agent before it was deleting goes at once, and it counts."""
    os.mkdir(os.path.join(home.journals, f"{GONE}{random_id()}"))
    async with FarEnd(nats_server.url), serve() as agent:
        await until(lambda: names(home.journals) == [], "the leftover is gone")
        await until(
            lambda: (
                agent.metrics.registry.get_sample_value("headrace_agent_leftovers_total", {"what": "deleted"}) == 1.0
            ),
            "it is counted",
        )
