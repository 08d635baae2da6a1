"""`headrace run --capture fd`: all that a program and its children print is shown as it was, and kept, whatever ends it."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.reading import StoredExperiment, StoredProject
from headrace_proto.home import Home
from tests.command.conftest import COMMAND

Headrace = Callable[..., "subprocess.CompletedProcess[str]"]
BEGIN = (
    "import headrace as hr, os, subprocess, sys\n"
    "print('before', flush=True)\n"
    "exp = hr.init('work/run').create_experiment(upload_source_files=[], git_info=False)\n"
)


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], str]:
    """A script that begins an experiment and goes on with the given lines."""

    def write(body: str) -> str:
        script = tmp_path / "train.py"
        script.write_text(BEGIN + body)
        return str(script)

    return write


def experiment(store: str) -> StoredExperiment:
    """The only one there is."""
    [found] = StoredProject(store, "work/run").get_experiments()
    return found


def texts(found: StoredExperiment, channel: str) -> list[str]:
    """A text channel's lines."""
    return list(found.get_channel(channel)["value"])


def test_what_c_code_and_children_print_is_kept_once(
    headrace: Headrace, program: Callable[[str], str], store: str
) -> None:
    """Beside what Python prints, in order, from before the experiment on; and the program's output is as it was."""
    body = (
        "print('python', flush=True)\nos.write(1, b'past python\\n')\n"
        "subprocess.run(['sh', '-c', 'echo child; echo trouble >&2'])\n"
        "print('api_key=hunter2', flush=True)\nprint('the end', end='')\nexp.stop()\n"
    )
    done = headrace("run", "--capture", "fd", "--store", store, sys.executable, program(body))
    lines = ["before", "python", "past python", "child", "api_key=hunter2", "the end"]
    assert (done.returncode, done.stdout) == (0, "\n".join(lines))
    found = experiment(store)
    assert texts(found, "stdout") == [*lines[:4], "api_key=***", "the end"]
    assert texts(found, "stderr") == ["trouble"]
    assert found.state == "succeeded"


def test_each_experiment_keeps_the_output_of_its_time(
    headrace: Headrace, program: Callable[[str], str], store: str
) -> None:
    """From one to the next; what comes after the last one's end is the last one's."""
    seen = (
        "while not any(one.label == 'headrace run' and one.experiment == exp.internal_id for one in headers(exp.origin.home)):\n"
        "    threading.Event().wait(0.02)\n"
    )
    body = (
        f"import threading\nfrom headrace.identity import headers\n{seen}print('first', flush=True)\nexp.stop()\n"
        "exp = hr.init('work/run').create_experiment(upload_source_files=[], git_info=False)\n"
        f"{seen}print('second', flush=True)\nexp.stop()\nprint('after')\n"
    )
    done = headrace("run", "--capture", "fd", "--store", store, sys.executable, program(body))
    assert done.returncode == 0
    found = {exp.get_system_properties()["created"]: exp for exp in StoredProject(store, "work/run").get_experiments()}
    one, two = (found[at] for at in sorted(found))  # their numbers are in the order of arrival
    assert (texts(one, "stdout"), texts(two, "stdout")) == (["before", "first"], ["second", "after"])


def test_a_kill_takes_nothing_of_the_output(headrace: Headrace, program: Callable[[str], str], store: str) -> None:
    """Not even the line that nothing ended and nobody flushed: what was written was written."""
    body = "os.write(1, b'loading ...')\nos.kill(os.getpid(), 9)\n"
    done = headrace("run", "--capture", "fd", "--store", store, sys.executable, program(body))
    assert (done.returncode, done.stdout) == (128 + 9, "before\nloading ...")
    assert texts(experiment(store), "stdout") == ["before", "loading ..."]


def test_without_an_experiment_output_is_only_shown(headrace: Headrace, store: str) -> None:
    """And large output goes through whole, bytes that are no text too."""
    code = "import os\nfor _ in range(50): os.write(1, bytes(range(256)) * 256)"
    raw = subprocess.run(
        [*COMMAND, "run", "--capture", "fd", "--store", store, sys.executable, "-c", code],
        env={**os.environ, "HEADRACE_HOME": str(Path(store).parent / "home")},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert raw.returncode == 0
    assert raw.stdout == bytes(range(256)) * 256 * 50


def test_at_a_terminal_the_program_has_terminals(home: Home, program: Callable[[str], str], store: str) -> None:
    """Of the same size, with its bars; what is typed reaches it."""
    body = (
        "print(sys.stdout.isatty(), sys.stderr.isatty(), os.get_terminal_size(1).columns, flush=True)\n"
        "print('\\r50%', end='', flush=True)\nprint('\\r100%')\nprint('got', sys.stdin.readline().strip())\nexp.stop()\n"
    )
    terminal, end = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 66, 0, 0))
    with subprocess.Popen(
        [*COMMAND, "run", "--capture", "fd", "--store", store, sys.executable, program(body)],
        stdin=end,
        stdout=end,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HEADRACE_HOME": home.root},
        start_new_session=True,
    ) as running:
        os.close(end)
        output = b""
        typed = False
        while data := _read(terminal):
            output += data
            if b"100%\r\n" in output and not typed:
                typed = os.write(terminal, b"hello\n") > 0
        os.close(terminal)
    assert running.returncode == 0
    assert b"before\r\nTrue False 66\r\n\r50%\r100%\r\n" in output
    assert b"got hello\r\n" in output
    assert texts(experiment(store), "stdout") == ["before", "True False 66", "50%", "100%", "got hello"]


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # nobody has the other end any more
        return b""
