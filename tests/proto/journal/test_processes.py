"""What a journal survives: kills, forks of every kind, signals, and the death of its writer."""

from __future__ import annotations

import ctypes
import mmap
import multiprocessing
import os
import random
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from headrace_proto import ids
from headrace_proto.errors import HomeUnusable, TelemetryWarning
from headrace_proto.events import Kind, Outcome
from headrace_proto.home import Home
from headrace_proto.journal import JournalReader, JournalWriter, lock, machine
from tests.processes import in_forked_child, in_threads
from tests.proto.journal.reading import Clock, events_of, points_of, script_on, settle, sources

EXPERIMENT = ids.derived_id("a/b", "process tests")
pytestmark = pytest.mark.usefixtures("kind")

TRAINER = """
import mmap, struct, sys
from headrace_proto.home import Home
from headrace_proto.journal import JournalWriter

home, experiment, counter = sys.argv[1:]
with open(counter, "r+b") as file:
    shared = memoryview(mmap.mmap(file.fileno(), 4096)).cast("Q")
writer = JournalWriter(Home(home), "a/b", experiment)
i = 0
while True:
    writer.point("v", i, i * 0.5, i)
    i += 1
    shared[0] = i  # after the call has returned
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


# -- Fault 1: every returned call is there; at most one torn tail ----------------------------------------------------


def test_every_returned_call_survives_sigkill(home: Home, tmp_path: Path, kind: str) -> None:
    """Killed at full speed at a random moment, twelve times: each event whose call had returned is read back, once, in order."""
    counter = tmp_path / "counter"
    random_bytes = random.Random(20261121)
    for _ in range(12):
        counter.write_bytes(b"\0" * mmap.PAGESIZE)
        trainer = subprocess.Popen(
            [sys.executable, "-c", script_on(kind, TRAINER), home.root, EXPERIMENT, str(counter)]
        )
        wanted = random_bytes.randrange(1, 120_000)
        while (returned := struct.unpack_from("<Q", counter.read_bytes())[0]) < wanted:
            assert trainer.poll() is None
        trainer.kill()
        trainer.wait()
        returned = struct.unpack_from("<Q", counter.read_bytes())[0]
        (source,) = sources(home)
        found = points_of(home, source)
        assert found == [(float(i), i * 0.5) for i in range(len(found))]
        assert returned <= len(found) <= returned + 1
        os.rename(home.journal(source), tmp_path / source)


def test_a_drop_that_a_call_has_told_survives_sigkill(home: Home, kind: str) -> None:
    """A step that is not finite is counted in the journal before the call returns, not when the next events are checked."""
    script = """
import os, signal, sys
from headrace_proto.home import Home
from headrace_proto.journal import JournalWriter
writer = JournalWriter(Home(sys.argv[1]), "tests/journal", sys.argv[2])
for i in range(300):
    writer.point("v", i, 0.5, i)
    writer.point("v", float("nan"), 0.5, i)
writer.row({"v": 1.0, "w": 2.0}, float("inf"), 1)
writer.lose(3, "step not finite")
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", script_on(kind, script), home.root, EXPERIMENT], check=False)
    (source,) = sources(home)
    assert len(points_of(home, source)) == 300
    assert sum(event[2] for event in events_of(home, source) if event[0] == Kind.GAP) == 300 + 2 + 3


def check_family(home: Home, writer: JournalWriter, parent_points: int) -> None:
    """The parent's journal has its own points only; every other source is a worker that names its parent."""
    own = points_of(home, writer.source)
    assert own == [(float(i), 1.0) for i in range(parent_points)]
    children = [source for source in sources(home) if source != writer.source]
    assert children
    for child in children:
        assert points_of(home, child)
        opened = events_of(home, child)[0][2]
        assert opened["role"] == "worker"
        assert opened["parent"] == writer.source


# -- Fault 7: the child is a source of its own; the parent's bytes stay as they were ---------------------------------


def test_a_forked_child_becomes_a_source_of_its_own(home: Home) -> None:
    """After os.fork both go on logging: not a byte of the parent's journal is touched by the child."""
    writer = JournalWriter(home, "a/b", EXPERIMENT)
    for i in range(100):
        writer.point("v", i, 1.0, 1)

    def work() -> None:
        for i in range(1000):
            writer.point("v", i, 2.0, 1)
        writer.close(Outcome.SUCCEEDED)

    assert in_forked_child(work) == 0
    for i in range(100, 1100):
        writer.point("v", i, 1.0, 1)
    writer.close(Outcome.SUCCEEDED)
    check_family(home, writer, 1100)


def test_threads_of_a_forked_child_begin_one_source_together(home: Home) -> None:
    """Whoever finds the lock taken by the thread that opens the child's journal waits for it."""
    writer = JournalWriter(home, "a/b", EXPERIMENT)

    def work() -> None:
        def log(number: int) -> None:
            for i in range(50):
                writer.point(f"t{number}", i, 2.0, 1)

        in_threads(8, log)

    assert [in_forked_child(work) for _ in range(8)] == [0] * 8
    writer.close(Outcome.SUCCEEDED)
    children = [source for source in sources(home) if source != writer.source]
    assert [len(points_of(home, child)) for child in children] == [400] * 8


def test_a_fork_made_in_c_is_noticed(home: Home) -> None:
    """libc's fork runs no hook of Python's; the wiped page tells the child all the same."""
    writer = JournalWriter(home, "a/b", EXPERIMENT)
    writer.point("v", 0, 1.0, 1)
    libc = ctypes.PyDLL(None)
    pid = libc.fork()
    if pid == 0:
        for i in range(500):
            writer.point("v", i, 2.0, 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    for i in range(1, 500):
        writer.point("v", i, 1.0, 1)
    writer.close(Outcome.SUCCEEDED)
    check_family(home, writer, 500)


def test_a_fork_while_threads_log_splits_no_event(home: Home) -> None:
    """Children forked out of a storm of calls find a free lock, and log to sources of their own."""
    writer = JournalWriter(home, "a/b", EXPERIMENT)
    stop = threading.Event()

    def storm() -> None:
        while not stop.is_set():
            writer.point("storm", 1, 1.0, 1)

    threads = [threading.Thread(target=storm) for _ in range(3)]
    for thread in threads:
        thread.start()
    statuses = [in_forked_child(lambda: writer.point("child", 1, 2.0, 1)) for _ in range(10)]
    stop.set()
    for thread in threads:
        thread.join()
    writer.close(Outcome.SUCCEEDED)
    assert statuses == [0] * 10
    assert len(sources(home)) == 11
    for source in sources(home):
        events_of(home, source)


def _pool_task(number: int) -> int:
    assert _shared is not None
    _shared.point("pool", number, 1.0, 1)
    return os.getpid()


_shared: JournalWriter | None = None


def test_a_multiprocessing_pool_logs_to_one_source_a_process(home: Home) -> None:
    """Workers forked by multiprocessing each get one source, whatever number of tasks they run."""
    global _shared
    _shared = JournalWriter(home, "a/b", EXPERIMENT)
    with multiprocessing.get_context("fork").Pool(3) as pool:
        pids = set(pool.map(_pool_task, range(60), chunksize=1))
    _shared.close(Outcome.SUCCEEDED)
    children = [source for source in sources(home) if source != _shared.source]
    assert len(children) == len(pids)
    assert sorted(step for child in children for step, _ in points_of(home, child)) == [float(i) for i in range(60)]


def test_a_closed_parent_stays_closed_in_its_children(home: Home) -> None:
    """A child of a stopped experiment does not open it again."""
    writer = JournalWriter(home, "a/b", EXPERIMENT)
    writer.close(Outcome.SUCCEEDED)
    assert in_forked_child(lambda: writer.point("v", 1, 1.0, 1)) == 1
    assert sources(home) == [writer.source]


# -- Signals, and what must never reach training ---------------------------------------------------------------------


def test_a_signal_handler_that_logs_never_deadlocks_nor_interleaves(home: Home) -> None:
    """Handlers that interrupt a call log to a second source; every event of both is whole, none is missing."""
    writer = JournalWriter(home, "a/b", EXPERIMENT)
    handled = 0

    def handler(*_: object) -> None:
        nonlocal handled
        writer.point("signal", handled, 1.0, 1)
        handled += 1
        signal.setitimer(signal.ITIMER_REAL, 0.0002)  # the next one only now: handlers that pile up would never end

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0002)
    try:
        logged = 0
        while handled < 2000:
            writer.row({"a": 1.0, "b": 2.0}, logged, 1)
            writer.point("main", logged, 1.0, 1)
            logged += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    writer.close(Outcome.SUCCEEDED)
    events = [event for source in sources(home) for event in events_of(home, source)]
    assert sum(event[0] == Kind.ROW for event in events) == logged
    assert sum(event[0] == Kind.POINT for event in events) == logged + handled


def test_a_full_file_system_never_raises_and_never_kills(home: Home, kind: str) -> None:
    """Under RLIMIT_FSIZE (EFBIG, as ENOSPC) calls return, count what they drop, and the gap is in the journal."""
    script = """
import resource, sys, warnings
from headrace_proto.home import Home
from headrace_proto.journal import JournalWriter
writer = JournalWriter(Home(sys.argv[1]), "a/b", sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, ((1 << 20) - 1, resource.RLIM_INFINITY))  # no second segment
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for i in range(100_000):
        writer.point("v", i, 1.0, 1)
assert len(caught) == 1, caught
writer.close("succeeded")
print(writer.dropped)
"""
    done = subprocess.run(
        [sys.executable, "-c", script_on(kind, script), home.root, EXPERIMENT],
        check=True,
        capture_output=True,
        text=True,
    )
    (source,) = sources(home)
    events = events_of(home, source)
    assert [event[2] for event in events if event[0] == Kind.GAP] == [int(done.stdout)]
    assert sum(event[0] == Kind.POINT for event in events) == 100_000 - int(done.stdout)


def test_warnings_as_errors_do_not_reach_training(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    """Under -W error a dropped event is a line on stderr, not an exception."""
    writer = JournalWriter(home, "a/b", EXPERIMENT)
    writer.point("v", float("nan"), 1.0, 1)  # this suite runs with warnings as errors
    writer.close(Outcome.SUCCEEDED)
    assert "gap" in capsys.readouterr().err
    assert issubclass(TelemetryWarning, UserWarning)


# -- Who lives -------------------------------------------------------------------------------------------------------


def test_the_lock_says_whether_the_writer_lives(home: Home, kind: str) -> None:
    """It is held while the trainer runs, free after SIGKILL even with a forked child alive, and reading frees nothing."""
    script = """
import os, signal, sys, time
from headrace_proto.home import Home
from headrace_proto.journal import JournalReader, JournalWriter
home = Home(sys.argv[1])
writer = JournalWriter(home, "a/b", sys.argv[2])
JournalReader(home.journal(writer.source)).close()
if os.fork() == 0:
    os.close(1)
    signal.pause()
print(os.getpid(), flush=True)
signal.pause()
"""
    trainer = subprocess.Popen(
        [sys.executable, "-c", script_on(kind, script), home.root, EXPERIMENT],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert trainer.stdout is not None
    try:
        assert int(trainer.stdout.readline()) == trainer.pid
        (source,) = sources(home)
        reader, clock = JournalReader(home.journal(source)), Clock()
        settle(reader, clock)
        path = os.path.join(home.journal(source), "lock")
        assert lock.holder(path) == trainer.pid
        assert not reader.writer_gone(machine.host_name(), machine.boot_id())
        trainer.kill()
        trainer.wait()
        assert lock.holder(path) is None
        settle(reader, clock)
        assert reader.writer_gone(machine.host_name(), machine.boot_id())
        assert reader.writer_gone(machine.host_name(), "a later boot")
        assert reader.writer_gone("another container", machine.boot_id())
        assert not reader.writer_gone("another host", "its boot")
        reader.close()
    finally:
        os.killpg(trainer.pid, signal.SIGKILL)
        trainer.stdout.close()


def test_a_process_never_declares_its_own_sources_dead(home: Home) -> None:
    """A record lock does not conflict with its own process: there, only the header can tell."""
    writer = JournalWriter(home, "a/b", EXPERIMENT)
    reader = JournalReader(home.journal(writer.source))
    settle(reader)
    assert not reader.writer_gone(machine.host_name(), machine.boot_id())
    reader.close()
    writer.close(Outcome.SUCCEEDED)


def test_a_second_source_that_cannot_be_opened_drops_counts_and_is_tried_again(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler that logs on a full disk gets no exception; its event is in the gap, and the next one finds room again."""
    writer = JournalWriter(home, "a/b", EXPERIMENT)
    with monkeypatch.context() as full:
        full.setattr(Home, "make", _no_room)
        with pytest.warns(TelemetryWarning, match="no space"):
            writer._elsewhere("point", "signal", 1, 1.0, 1)
    writer._elsewhere("point", "signal", 2, 1.0, 1)
    assert writer.dropped == 1
    writer.close(Outcome.SUCCEEDED)
    (second,) = (source for source in sources(home) if source != writer.source)
    assert points_of(home, second) == [(2.0, 1.0)]
    assert [event[2] for event in events_of(home, writer.source) if event[0] == Kind.GAP] == [1]


def _no_room(home: Home) -> None:
    raise HomeUnusable(f"no space in {home.root}")
