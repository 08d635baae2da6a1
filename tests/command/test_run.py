"""`headrace run -- COMMAND`: its own `up` or one that is there, exit codes, signals, and the drain."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.command.running import running
from headrace.reading import StoredProject
from headrace_proto.home import Home
from tests.command.conftest import COMMAND, Up
from tests.processes import is_alive
from tests.waiting import wait_until

TRAINER = """
import sys
import headrace as hr
waits = (30, 60) if len(sys.argv) > 2 else ()
with hr.init("work/run").create_experiment(name="mlp", params={"lr": 0.1}) as exp:
    for step in range(100):
        exp.log_metric("loss", step, 1 / (step + 1))
        if step in waits:
            exp.wait("stored", timeout=50)
    exp.log_artifact(__file__, "kept/script.py")
print("trained")
sys.exit(int(sys.argv[1]))
"""
Headrace = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def trainer(tmp_path: Path) -> str:
    script = tmp_path / "train.py"
    script.write_text(TRAINER)
    return str(script)


def test_run_stores_everything_and_says_where(headrace: Headrace, home: Home, trainer: str, store: str) -> None:
    """After `run` the store holds every point and file, standard output is the program's, the exit code too, nothing runs."""
    done = headrace("run", "--store", store, "--", sys.executable, trainer, "3", "wait")
    assert (done.returncode, done.stdout) == (3, "trained\n")
    experiment = StoredProject(store, "work/run").get_experiment("RUN-1")
    assert len(experiment.get_channel("loss")) == 100
    assert experiment.artifacts["kept/script.py"].state == "stored"
    assert experiment.state == "succeeded"
    document = json.loads(Path(experiment.url, "experiment.json").read_text())
    assert len(document["parts"]["numeric"]) == 1  # of three commits, merged although the collector was stopped at once
    assert "RUN-1 mlp  succeeded  work/run" in done.stderr
    assert experiment.url in done.stderr
    assert running(home) is None
    assert os.listdir(home.journals) == []


def test_run_uses_the_up_that_is_there(headrace: Headrace, up: Callable[..., Up], trainer: str, store: str) -> None:
    """With an `up` on the home, `run` starts none, stores where that one stores, and leaves it running; another --store is an
    error before the program starts."""
    served = up("--store", store)
    there = served.ready()
    done = headrace("run", sys.executable, trainer, "0")
    assert done.returncode == 0
    assert store in done.stderr
    assert running(served.home) == there
    refused = headrace("run", "--store", "elsewhere", sys.executable, trainer, "0")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "leave --store out" in refused.stderr


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -KILL $$"], 128 + signal.SIGKILL),
        (["no-such-program"], 127),
        (["/"], 126),
    ],
)
def test_exit_code_is_the_commands(headrace: Headrace, command: list[str], code: int) -> None:
    """The program's code; 128 + n when signal n ended it; 127 and 126 as a shell says them."""
    done = headrace("run", "--", *command)
    assert done.returncode == code
    assert "Traceback" not in done.stderr


def test_options_behind_the_program_are_the_programs(headrace: Headrace) -> None:
    """`headrace run prog --store x` hands --store to the program, with or without `--`."""
    for dashes in ([], ["--"]):
        done = headrace("run", *dashes, sys.executable, "-c", "import sys; print(sys.argv[1:])", "--store", "x", "-v")
        assert done.stdout == "['--store', 'x', '-v']\n"


def test_program_finds_home_and_store(headrace: Headrace, home: Home, store: str) -> None:
    """The program's environment names the home and the store."""
    code = "import json, os; print(json.dumps([os.environ['HEADRACE_HOME'], os.environ['HEADRACE_STORE']]))"
    done = headrace("run", "--store", store, sys.executable, "-c", code)
    assert json.loads(done.stdout) == [home.root, store]


def test_signal_reaches_the_program_once(home: Home) -> None:
    """SIGTERM sent to `run` is the program's to handle; it arrives once, and `run` ends with the program's code."""
    code = (
        "import signal, sys\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"
        "print('ready', flush=True)\n"
        "signal.sigwait([signal.SIGTERM])\n"
        "again = signal.sigtimedwait([signal.SIGTERM], 0.3)\n"
        "print('once' if again is None else 'twice'); sys.exit(5)"
    )
    child = subprocess.Popen(
        [*COMMAND, "run", "--home", home.root, sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGTERM)
    out, _ = child.communicate(timeout=60)
    assert (out, child.returncode) == ("once\n", 5)


def test_program_runs_although_nothing_can_ship(headrace: Headrace, home: Home, trainer: str) -> None:
    """With a store that no collector takes, the program runs to its end, and `run` says why nothing is stored and that nothing is
    lost; the journals have it all, and a later run with a good store stores it."""
    done = headrace("run", "--store", "nowhere://bucket", sys.executable, trainer, "4")
    assert (done.returncode, done.stdout) == (4, "trained\n")
    assert "nothing ships the events" in done.stderr
    assert "nothing is lost" in done.stderr
    assert len(os.listdir(home.journals)) == 1


def test_mistake_in_the_settings_is_told_while_the_program_runs(home: Home) -> None:
    """A key of [collector] that nobody knows stops the parts, not the program: `run` names it at once, not after the training."""
    Path(home.settings_file).write_text("[collector]\nstoer = 'x'\n")
    program = "import sys; sys.stdin.read()"
    command = [sys.executable, "-m", "headrace.command", "run", "--home", home.root, sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdin
        assert child.stderr
        try:
            said = child.stderr.readline()
        finally:
            child.stdin.close()
        said_later = child.stderr.read()
    assert "'stoer'" in said
    assert "nothing ships the events" not in said_later
    assert child.returncode == 0


def test_killed_program_is_stored_as_failed(headrace: Headrace, store: str) -> None:
    """What a program logged before SIGKILL is stored, and its experiment is failed."""
    code = (
        "import os, signal, headrace as hr\n"
        "exp = hr.init('work/run').create_experiment()\n"
        "exp.log_metric('loss', 0, 0.5)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = headrace("run", "--store", store, sys.executable, "-c", code)
    assert done.returncode == 128 + signal.SIGKILL
    experiment = StoredProject(store, "work/run").get_experiment("RUN-1")
    assert (experiment.state, experiment.metrics["loss"]) == ("failed", 0.5)


def test_killed_run_takes_its_up_along(home: Home) -> None:
    """SIGKILL of `run` leaves none of its parts behind."""
    child = subprocess.Popen([*COMMAND, "run", "--home", home.root, "sleep", "600"], start_new_session=True)
    wait_until(lambda: running(home) is not None, "its up serves")
    there = running(home)
    assert there is not None
    child.kill()
    child.wait()
    wait_until(lambda: not is_alive(there.pid), "its up has ended")
    assert not Path(home.pid_file("nats-server")).exists()
    os.killpg(child.pid, signal.SIGTERM)  # the program itself is the user's: it goes on, until now


def test_progress_is_shown_in_a_terminal(home: Home, trainer: str) -> None:
    """In a terminal the drain shows a bar for each source, with what is stored of what is journaled."""
    import pty

    controller, terminal = pty.openpty()
    child = subprocess.Popen(
        [*COMMAND, "run", "--home", home.root, sys.executable, trainer, "0"],
        stderr=terminal,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(terminal)
    shown = b""
    while b"succeeded" not in shown:
        shown += os.read(controller, 65_536)
    assert child.wait(60) == 0
    os.close(controller)
    assert re.search(r"([\d.]+ [KM]iB) of \1 stored", shown.decode())


def test_program_left_in_the_background_is_not_waited_for(headrace: Headrace, home: Home, store: str) -> None:
    """A program that goes on logging after the command has ended keeps `run` only until what it had logged by then is stored."""
    logs_on = (
        "import os, signal, sys, headrace as hr\n"
        "exp = hr.init('work/run').create_experiment()\n"
        "exp.log_metric('loss', 0, 0.5)\n"
        "print(os.getpid(), flush=True); sys.stdout = None; os.close(1); os.close(2)\n"
        "signal.sigwait([signal.SIGTERM])"
    )
    script = Path(home.root) / "on.py"
    script.write_text(logs_on)
    line = f"{sys.executable} {script} > {script}.pid & until [ -s {script}.pid ]; do :; done; cat {script}.pid"
    done = headrace("run", "--store", store, "bash", "-c", line)
    try:
        assert done.returncode == 0
        assert "running" in done.stderr
        assert StoredProject(store, "work/run").get_experiment("RUN-1").metrics == {"loss": 0.5}
    finally:
        os.kill(int(done.stdout), signal.SIGKILL)
