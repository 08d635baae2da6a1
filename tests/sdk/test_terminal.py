"""Capture at a real terminal, with the real tqdm: it shows what it always showed, and the lines that count are kept."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from headrace_proto.home import Home
from tests.sdk.conftest import Run
from tests.sdk.journals import Journal, journals

COLUMNS = 60
BAR = "bar_format='{desc} {n}/{total}', mininterval=0, miniters=1"
"""A bar whose states depend on no clock."""

Show = Callable[..., "Shown"]


class Shown(NamedTuple):
    """What a program's terminal showed, and how the program ended."""

    output: bytes
    status: int


@pytest.fixture
def show(tmp_path: Path, home: Home) -> Show:
    """Runs a program at a terminal of its own, and types what it is asked for."""

    def run(body: str, *, answers: dict[bytes, bytes] | None = None, captured: bool = True) -> Shown:
        options = f"upload_source_files=[], git_info=False, upload_stdout={captured}, upload_stderr={captured}"
        script = tmp_path / "train.py"
        script.write_text(
            "import headrace as hr, os, sys, threading\nfrom tqdm import tqdm\n"
            f"exp = hr.init('vision/digits').create_experiment({options})\n{body}"
        )
        terminal, end = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
        with subprocess.Popen(
            [sys.executable, str(script)],
            stdin=end,
            stdout=end,
            stderr=end,
            env={**os.environ, "HEADRACE_HOME": home.root, "TERM": "xterm", "NO_COLOR": "1"},
            start_new_session=True,
            preexec_fn=_take_terminal,
        ) as program:
            os.close(end)
            output = _talk(terminal, dict(answers or {}))
        return Shown(output, program.returncode)

    return run


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _talk(terminal: int, answers: dict[bytes, bytes]) -> bytes:
    output = b""
    while True:
        try:
            read = os.read(terminal, 65_536)
        except OSError:  # the program has closed its end
            read = b""
        if not read:
            os.close(terminal)
            return output
        output += read
        for question in [question for question in answers if question in output]:
            os.write(terminal, answers.pop(question))


def journal(home: Home) -> Journal:
    """Of the one program that ran."""
    [one] = journals(home)
    return one


PROGRAM = f"""
for epoch in tqdm(range(3), desc='epochs', {BAR}):
    for step in tqdm(range(4), desc='steps', leave=False, {BAR}):
        pass
    tqdm.write(f'epoch {{epoch}} done')
print('\\x1b[32mgreen\\x1b[0m', 'and', 'plain', file=sys.stderr)
print(sys.stdout.isatty(), os.get_terminal_size(sys.stdout.fileno()).columns)
os.write(1, b'past Python\\n')
name = input('who? ')
print('hello', name)
for index in tqdm(range(5), file=sys.stdout, {BAR}):
    pass
sys.stdout.write('no newline')
"""


def test_a_terminal_shows_the_same_bytes_with_capture_and_without(show: Show) -> None:
    """Bars within bars, colours, prompts, what goes past Python: nothing more, nothing less, in the same order."""
    answers = {b"who? ": b"Ada\n"}
    with_capture, without = (show(PROGRAM, answers=answers, captured=captured) for captured in (True, False))
    assert with_capture == without
    assert with_capture.status == 0
    assert b"hello Ada" in without.output


def test_of_bars_within_bars_only_what_is_final_is_kept(show: Show, home: Home) -> None:
    """And at most one state a second before; lines that are printed between them are whole."""
    show(PROGRAM, answers={b"who? ": b"Ada\n"})
    kept = journal(home)
    assert kept.texts("stdout") == [
        *(f"epoch {epoch} done" for epoch in range(3)),
        f"True {COLUMNS}",
        "hello Ada",
        " 0/5",
        " 5/5",
        "no newline",
    ]
    first, *_, last, green = kept.texts("stderr")
    assert (first, last, green) == ("epochs 0/3", "epochs 3/3", "\x1b[32mgreen\x1b[0m and plain")
    assert len(kept.texts("stderr")) <= 3 + 1  # a second may have begun meanwhile


def test_threads_print_beside_a_bar_and_every_line_is_whole(show: Show, home: Home) -> None:
    """Through `tqdm.write`, which wipes the bar and draws it again, and through `print`."""
    shown = show(
        f"bar = tqdm(total=400, {BAR})\n"
        "def work(number):\n"
        "    for index in range(50):\n"
        "        tqdm.write(f'{number}:{index}')\n"
        "        print('printed', number, index)\n"
        "        bar.update()\n"
        "threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
        "bar.close()\n"
    )
    assert shown.status == 0
    kept = journal(home).texts("stdout")
    every = [(number, index) for number in range(8) for index in range(50)]
    assert sorted(line for line in kept if ":" in line) == sorted(f"{number}:{index}" for number, index in every)
    assert sorted(line for line in kept if ":" not in line) == sorted(f"printed {n} {i}" for n, i in every)
    assert journal(home).texts("stderr")[-1] == " 400/400"


def test_what_was_flushed_before_a_kill_is_kept(show: Show, home: Home) -> None:
    """The line that says what the program was doing when it was killed, which no newline ended."""
    shown = show("print('loading the model ...', end=' ', flush=True)\nos.kill(os.getpid(), 9)\n")
    assert shown.status == -signal.SIGKILL
    assert journal(home).texts("stdout") == ["loading the model ... "]


def test_a_bar_that_a_kill_ends_has_been_kept_a_second_before_at_most(show: Show, home: Home) -> None:
    """Here at its first state."""
    show(f"for index in tqdm(range(5), {BAR}):\n    os.kill(os.getpid(), 9)\n")
    assert journal(home).texts("stderr") == [" 0/5"]


@pytest.mark.parametrize(
    "end", ["raise RuntimeError('broken')", "sys.exit(3)", "exp.stop()", "raise KeyboardInterrupt", "pass"]
)
def test_the_last_partial_line_is_kept_however_python_ends(run_script: Run, home: Home, end: str) -> None:
    """Without a newline and without a flush."""
    run_script(f"print('step 1')\nprint('step 2 ...', end='')\n{end}\n")
    assert journal(home).texts("stdout") == ["step 1", "step 2 ..."]


def test_control_c_at_the_terminal_reaches_the_program(show: Show, home: Home) -> None:
    """It is aborted, and says so where it always did."""
    shown = show("print('waiting', flush=True)\nsys.stdin.readline()\n", answers={b"waiting": b"\x03"})
    assert b"KeyboardInterrupt" in shown.output
    assert journal(home).outcome == "aborted"
    assert "KeyboardInterrupt" in journal(home).texts("stderr")


def test_a_line_that_is_flushed_in_parts_loses_nothing() -> None:
    """The first part is kept at once; what follows within the second comes with the line's end."""
    from headrace.capture.lines import LineCutter

    cutter = LineCutter()
    kept: list[str] = []
    for moment, part in enumerate(["loading", " .", " .", " done\n", "next\n"]):
        kept += cutter.feed(part, moment / 4)
        kept += cutter.flushed(moment / 4)
    assert kept == ["loading", " . . done", "next"]


def test_a_bar_on_three_rows_keeps_the_last_of_each() -> None:
    """As rich draws them: up, erase, write again."""
    from headrace.capture.lines import LineCutter

    cutter = LineCutter()
    kept: list[str] = []
    for state in range(10):
        up = "" if state == 0 else "\r\x1b[2K\x1b[1A\x1b[2K\x1b[1A\x1b[2K"
        kept += cutter.feed(f"{up}one {state}\ntwo {state}\nthree {state}", 0.0)
    kept += cutter.feed("\nafter\n", 0.0)
    assert kept[-4:] == ["one 9", "two 9", "three 9", "after"]
    assert len(kept) <= 2 + 1 + 4  # as they were first drawn, one state, and the end
