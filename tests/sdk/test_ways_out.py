"""Every way in which processes begin and end beside a live experiment: what had returned is there, once, in its order."""

from __future__ import annotations

import os
import signal
from collections import Counter

import pytest

from headrace_proto.events import Role
from headrace_proto.home import Home
from headrace_proto.journal import lock
from headrace_proto.journal.layout import LOCK_NAME
from tests.sdk.conftest import Run
from tests.sdk.journals import Journal, journals, of_role

COUNTING = (
    "import mmap, signal, threading, time\n"
    "shared = memoryview(mmap.mmap(os.open('counts', os.O_RDWR), 4096)).cast('Q')\n"
    "def log(number):\n"
    "    for i in range(1 << 40):\n"
    "        exp.log_metric(f't{number}', i, i)\n"
    "        shared[number] = i + 1  # after the call has returned\n"
    "def enough():\n"
    "    while min(shared[number] for number in range(1, 4)) < 2000: time.sleep(0.001)\n"
    "for number in range(1, 4): threading.Thread(target=log, args=(number,), daemon=True).start()\n"
)
"""Three threads log and count what has returned."""


def steps(found: list[Journal], channel: str) -> list[float | None]:
    return [step for journal in found for step, _ in journal.series(channel)]


@pytest.mark.parametrize(
    ("way_out", "code", "outcome"),
    [
        ("enough()\n", 0, "succeeded"),
        ("enough(); sys.exit(3)\n", 3, "failed"),
        ("enough(); 1 / 0\n", 1, "failed"),
        ("enough(); os._exit(4)\n", 4, None),
        ("enough(); os.kill(os.getpid(), signal.SIGTERM)\n", -signal.SIGTERM, None),
        ("enough(); os.kill(os.getpid(), signal.SIGKILL)\n", -signal.SIGKILL, None),
        ("enough(); os.abort()\n", -signal.SIGABRT, None),
        ("enough(); os.execv('/bin/true', ['true'])\n", 0, None),
        ("import atexit\natexit.register(enough)\n", 0, "succeeded"),
        (
            (
                "signal.signal(signal.SIGALRM, lambda *_: (exp.log_metric('last', 1), os._exit(5)))\n"
                "enough(); signal.setitimer(signal.ITIMER_REAL, 0.01); log(0)\n"
            ),
            5,
            None,
        ),
        (
            "signal.signal(signal.SIGTERM, lambda *_: sys.exit(6))\nenough(); os.kill(os.getpid(), signal.SIGTERM)\n",
            6,
            "failed",
        ),
    ],
    ids=lambda case: repr(case)[:40],
)
def test_a_process_that_ends_while_its_threads_log_keeps_what_had_returned(
    run_script: Run,
    home: Home,
    tmp_path: object,
    monkeypatch: pytest.MonkeyPatch,
    way_out: str,
    code: int,
    outcome: str,
) -> None:
    """Whatever ends it, in the middle of a roll or not: each counted event is there, once, in its thread's order."""
    monkeypatch.chdir(str(tmp_path))
    with open("counts", "wb") as file:
        file.truncate(4096)
    done = run_script(
        COUNTING + way_out, "upload_source_files=[], git_info=False, upload_stdout=False, upload_stderr=False"
    )
    assert done.returncode == code, done.stderr
    with open("counts", "rb") as file:
        counts = memoryview(file.read()).cast("Q").tolist()
    found = journals(home)
    for number in range(4):
        seen = steps(found, f"t{number}")
        assert seen == [float(i) for i in range(len(seen))]
        assert counts[number] <= len(seen) <= counts[number] + 1
    if code == 5:
        assert steps(found, "last") == [None]
    [owner] = of_role(home, Role.OWNER)
    assert owner.outcome == outcome
    assert lock.holder(os.path.join(home.journal(owner.header.source), LOCK_NAME)) is None


# -- Fault 8: each process is a source; all of it once, in order; the agent's memory and descriptors are bounded -----


def test_64_processes_with_4_threads_each_log_to_one_experiment(run_script: Run, home: Home) -> None:
    """Each process is a source; each thread's points are all there, once, in order."""
    done = run_script(
        "import threading\n"
        "def work(name):\n"
        "    for i in range(100): exp.log_metric(name, i, i)\n"
        "children = []\n"
        "for process in range(64):\n"
        "    if (child := os.fork()) == 0:\n"
        "        threads = [threading.Thread(target=work, args=(f'{process}/{t}',)) for t in range(4)]\n"
        "        [t.start() for t in threads]; [t.join() for t in threads]\n"
        "        os._exit(0)\n"
        "    children.append(child)\n"
        "assert {os.waitpid(child, 0)[1] for child in children} == {0}\n"
    )
    assert done.returncode == 0, done.stderr
    workers = of_role(home, Role.WORKER)
    assert len(workers) == 64
    named: Counter[str] = Counter()
    for worker in workers:
        for name in worker.types():
            named[name] += 1
            assert worker.series(name) == [(float(i), float(i)) for i in range(100)]
    assert named == Counter({f"{process}/{t}": 1 for process in range(64) for t in range(4)})


# -- Workers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_of_an_executor_log_each_task_once(run_script: Run, home: Home, method: str) -> None:
    """As a DataLoader's do: one source a worker, closed when the pool is, whatever number of tasks it ran."""
    done = run_script(
        "import headrace as hr, multiprocessing, os\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "def begin(handle):\n"
        "    global exp\n"
        "    exp = handle\n"
        "def task(number):\n"
        "    exp.log_metric('task', number, number)\n"
        "    return os.getpid()\n"
        "if __name__ == '__main__':\n"
        "    exp = hr.init('vision/digits').create_experiment(upload_source_files=[], git_info=False)\n"
        f"    context = multiprocessing.get_context({method!r})\n"
        "    with ProcessPoolExecutor(3, context, initializer=begin, initargs=(exp,)) as pool:\n"
        "        print(len(set(pool.map(task, range(60)))))\n",
        "none",
    )
    assert done.returncode == 0, done.stderr
    workers = [journal for journal in journals(home) if journal.series("task")]
    assert len(workers) == int(done.stdout)
    assert sorted(step for step in steps(workers, "task") if step is not None) == [float(i) for i in range(60)]
    assert {worker.outcome for worker in workers} == {"succeeded"}


def test_workers_that_are_terminated_keep_what_had_returned(run_script: Run, home: Home) -> None:
    """A pool's terminate() is a SIGTERM: its sources may stay open for the agent to see, and the run they belong to succeeds."""
    done = run_script(
        "import multiprocessing\n"
        "def task(number):\n"
        "    exp.log_metric('task', number, number)\n"
        "with multiprocessing.get_context('fork').Pool(3) as pool:\n"  # which terminates it at its end
        "    pool.map(task, range(60), chunksize=1)\n"
    )
    assert done.returncode == 0, done.stderr
    [owner] = of_role(home, Role.OWNER)
    workers = of_role(home, Role.WORKER)
    assert owner.outcome == "succeeded"
    assert {worker.outcome for worker in workers} <= {None, "succeeded"}  # one that had nothing to do may end by itself
    assert sorted(step for step in steps(workers, "task") if step is not None) == [float(i) for i in range(60)]


def test_a_childs_child_is_a_source_too(run_script: Run, home: Home) -> None:
    """Each names the source that it came from, or that of the nearest ancestor that logged."""
    run_script(
        "if os.fork() == 0:\n"
        "    exp.log_metric('generation', 1)\n"
        "    if os.fork() == 0:\n"
        "        exp.log_metric('generation', 2)\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
        "    os._exit(0)\n"
        "os.wait()\n"
    )
    by_generation = {value: journal for journal in journals(home) for _, value in journal.series("generation")}
    [owner] = of_role(home, Role.OWNER)
    assert by_generation[1.0].header.parent == owner.header.source
    assert by_generation[2.0].header.parent == by_generation[1.0].header.source
