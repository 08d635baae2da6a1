"""The command line itself: versions, mistakes, plug-ins, and how little it imports."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from headrace import __version__
from headrace.command import main
from headrace.command.main import COMMANDS, invoke

Headrace = Callable[..., "subprocess.CompletedProcess[str]"]


def test_the_version_loads_no_command() -> None:
    """Scripts ask for the version at every start: neither the commands nor what they need is loaded for it."""
    program = (
        "import sys; from headrace.command.main import invoke; assert invoke(['--version']) == 0; "
        "print([name for name in sys.modules if name in ('pyarrow', 'fsspec', 'pydantic', 'headrace.command.run')])"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == [f"headrace {__version__}", "[]"]


def test_version_is_said_without_a_command(said: Callable[..., str]) -> None:
    """--version says which."""
    assert said("--version") == f"headrace {__version__}\n"


def test_help_lists_ours_and_those_of_installed_parts(said: Callable[..., str]) -> None:
    """The help page has each of our commands and those of agent and collector."""
    text = said("--help")
    for name in (*COMMANDS, "agent", "collector"):
        assert f" {name} " in text


@pytest.mark.parametrize("arguments", [["lss"], ["ls", "--storr", "x"], ["show"], ["run"], ["plot", "DIG-1"]])
def test_typing_errors_are_explained(capfd: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """An unknown command or option and a missing argument end with code 2 and no traceback."""
    assert invoke(arguments) == 2
    assert "Traceback" not in capfd.readouterr().err


def test_error_is_one_line_and_debug_shows_where(headrace: Headrace) -> None:
    """An error is one line with code 2; --debug before the command shows its traceback."""
    plain = headrace("ls", "no-project")
    assert (plain.returncode, len(plain.stderr.splitlines())) == (2, 1)
    assert "Traceback" in headrace("--debug", "ls", "no-project").stderr


def test_unforeseen_error_is_one_line(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """A bug shows its type and message in one line, and how to see more."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("headrace.command.ls.open_for_reading", broken)
    assert invoke(["ls"]) == 1
    assert (
        capfd.readouterr().err == "headrace: ZeroDivisionError: division by zero (headrace --debug ... shows where)\n"
    )


@pytest.mark.parametrize("flags", ["", "--json"])
def test_reader_that_has_seen_enough_is_told_nothing(store: str, flags: str) -> None:
    """`headrace ls | head -1` complains of no broken pipe."""
    Path(store).mkdir()
    line = f"{sys.executable} -m headrace.command ls --store {store} {flags} | true"
    assert subprocess.run(["bash", "-c", line], capture_output=True, text=True).stderr == ""


def test_part_that_lacks_its_libraries_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str], said: Callable[..., str]
) -> None:
    """A part whose libraries are not installed names its extra when asked for, and does not disturb the help page."""
    point = EntryPoint("bridge", "no_such_library:bridge", main.GROUP)
    monkeypatch.setattr(main, "_plug_ins", lambda: {"bridge": point})
    assert "pip install 'headrace[bridge]'" in refused("bridge")
    assert "bridge" not in said("--help")


def test_looking_imports_no_server() -> None:
    """`headrace ls` imports neither what serves HTTP nor what talks to a broker: it has to be quick."""
    code = (
        "import sys\n"
        "from headrace.command.main import invoke\n"
        "invoke(['ls', '--store', sys.argv[1]])\n"
        "print(sorted({'aiohttp', 'nats', 'pandas', 'plotext', 'psutil', 'uvloop'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, "memory://"], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_command_starts_without_what_it_has_no_use_for() -> None:
    """No look at what else is installed, no threads for matrices; and what it starts knows nothing of that."""
    program = (
        "import gc, importlib.metadata, os, sys; from pathlib import Path; from headrace.command.main import invoke; "
        "given = dict(os.environ); importlib.metadata.distributions = None; "
        "code = invoke(['ls', '--store', '/dev/shm']); "
        "threads = [(task / 'comm').read_text() for task in Path('/proc/self/task').iterdir()]; "
        "mine = threads.count(Path('/proc/self/comm').read_text()); "  # those of Arrow's allocator have a name of their own
        "print(code, 'numpy' in sys.modules, mine, gc.isenabled(), os.environ == given)"
    )
    environment = {**os.environ, "HEADRACE_HOME": "/dev/shm/none"}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "0 True 1 True True"


def test_plain_install_is_told_what_the_command_lacks() -> None:
    """Without typer, as `pip install headrace` leaves it, the command says in one line what to install."""
    code = "import sys; sys.modules['typer'] = None; import headrace.command.main"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "headrace: the command lacks typer: pip install 'headrace[all]'\n")
