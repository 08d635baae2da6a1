"""Ends: each way out of a process leaves the right record, and the process itself as it was: exit code, output, traceback."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import headrace as hr
from headrace import ends
from headrace_proto.home import Home
from tests.sdk.conftest import Run
from tests.sdk.journals import journal_of, journals

Create = Callable[..., hr.Experiment]


@pytest.mark.parametrize(
    ("body", "code", "outcome"),
    [
        ("exp.log_metric('loss', 0.5)\n", 0, "succeeded"),
        ("sys.exit()\n", 0, "succeeded"),
        ("sys.exit(0)\n", 0, "succeeded"),
        ("raise SystemExit\n", 0, "succeeded"),
        ("sys.exit(3)\n", 3, "failed"),
        ("sys.exit('no data')\n", 1, "failed"),
        ("raise ValueError('diverged')\n", 1, "failed"),
        ("raise KeyboardInterrupt\n", -signal.SIGINT, "aborted"),
        ("try:\n    sys.exit(3)\nexcept SystemExit:\n    pass\n", 0, "succeeded"),
        ("try:\n    sys.exit(3)\nfinally:\n    exp.log_metric('a', 1)\n", 3, "failed"),
        ("import threading\nt = threading.Thread(target=sys.exit, args=(3,))\nt.start(); t.join()\n", 0, "succeeded"),
        ("exp.stop('gave up')\nsys.exit(0)\n", 0, "failed"),
        ("exp.stop()\nraise ValueError('later')\n", 1, "succeeded"),
        ("with exp:\n    raise SystemExit(3)\n", 3, "failed"),
        ("with exp:\n    raise SystemExit(0)\n", 0, "succeeded"),
        ("with exp:\n    raise KeyboardInterrupt\n", -signal.SIGINT, "aborted"),
        ("with exp:\n    1 / 0\n", 1, "failed"),
        ("with exp:\n    pass\nsys.exit(3)\n", 3, "succeeded"),
        ("os._exit(0)\n", 0, None),
        ("os.kill(os.getpid(), 9)\n", -signal.SIGKILL, None),
        ("os.kill(os.getpid(), 15)\n", -signal.SIGTERM, None),
        ("import atexit\natexit.register(lambda: exp.log_metric('loss', 1))\n", 0, "succeeded"),
    ],
    ids=lambda case: repr(case)[:48],
)
def test_every_way_out_is_recorded_and_left_as_it_is(
    run_script: Run, home: Home, body: str, code: int, outcome: str
) -> None:
    """Whatever ends the process: its exit code is its own, and the source is closed as what it was, or not at all."""
    done = run_script(body)
    assert (done.returncode, done.stderr if code == 0 else "") == (code, "")
    [journal] = journals(home)
    assert journal.outcome == outcome


def test_a_program_that_closes_all_descriptors_still_ends_well(run_script: Run, home: Home) -> None:
    """As daemons do: the map needs none of ours to be written, and an end that finds them closed is no error."""
    done = run_script("os.closerange(3, 256)\nfor i in range(1000): exp.log_metric('loss', i)\n", options="")
    assert (done.returncode, done.stderr) == (0, "")
    [journal] = journals(home)
    assert (journal.outcome, len(journal.points())) == ("succeeded", 1000)


@pytest.mark.parametrize("statement", ["1 / 0", "raise ValueError('diverged')", "raise KeyboardInterrupt"])
def test_a_traceback_is_printed_as_without_us_and_kept(run_script: Run, home: Home, statement: str) -> None:
    """The closing record and the channel `exceptions` hold what the terminal showed."""
    done = run_script(f"def train():\n    {statement}\n\n\ntrain()\n")
    plain = run_script(f"\n\n\ndef train():\n    {statement}\n\n\ntrain()\n", "none")
    assert done.stderr == plain.stderr
    [journal] = journals(home)
    assert journal.detail.endswith(done.stderr)
    assert journal.texts("exceptions") == [done.stderr]
    assert "\n".join(journal.texts("stderr")) + "\n" == done.stderr


def test_a_hook_of_the_program_is_still_called(run_script: Run, home: Home) -> None:
    """Ours stands before it, and is gone from nobody's way."""
    body = "sys.excepthook = lambda kind, error, trace, h=sys.excepthook: (print('mine:', error), h(kind, error, trace))\n1 / 0\n"
    done = run_script(body)
    assert done.stdout == "mine: division by zero\n"
    [journal] = journals(home)
    assert journal.outcome == "failed"


def test_an_exception_in_a_thread_is_recorded_and_ends_nothing(run_script: Run, home: Home) -> None:
    """The program goes on, and so does the experiment."""
    body = (
        "import threading\n"
        "t = threading.Thread(target=lambda: 1 / 0)\n"
        "t.start(); t.join()\n"
        "exp.log_metric('after', 1)\n"
    )
    done = run_script(body)
    assert "ZeroDivisionError" in done.stderr
    [journal] = journals(home)
    assert journal.outcome == "succeeded"
    assert "ZeroDivisionError" in journal.texts("exceptions")[0]
    assert journal.series("after") == [(None, 1.0)]


def test_exceptions_that_are_not_to_be_handled_leave_it_to_the_agent(run_script: Run, home: Home) -> None:
    """Without a closing record, as after a kill: the agent will report a death."""
    run_script("1 / 0\n", "upload_source_files=[], git_info=False, handle_uncaught_exceptions=False")
    [journal] = journals(home)
    assert journal.outcome is None
    assert journal.texts("exceptions") == []


def test_threads_may_log_after_the_main_one_has_failed(run_script: Run, home: Home) -> None:
    """The experiment ends with the process, not with the main thread."""
    body = (
        "import threading\n"
        "gate = threading.Event()\n"
        "def work():\n"
        "    gate.wait()\n"
        "    exp.log_metric('late', 1)\n"
        "threading.Thread(target=work).start()\n"
        "sys.excepthook = lambda *a, h=sys.excepthook: (h(*a), gate.set())\n"
        "1 / 0\n"
    )
    run_script(body)
    [journal] = journals(home)
    assert journal.outcome == "failed"
    assert journal.series("late") == [(None, 1.0)]


def test_who_logs_at_the_very_end_is_not_told_off(run_script: Run) -> None:
    """A daemon thread, or an exit handler that runs after ours, finds a handle that takes no more and says nothing."""
    body = (
        "import atexit\n"
        "from headrace import ends\n"
        "before = ends._at_exit\n"
        "atexit.unregister(before)\n"
        "atexit.register(lambda: (exp.log_metric('loss', 1), exp.set_property('a', 'b')))\n"
        "atexit.register(before)\n"
    )
    done = run_script(body)
    assert (done.returncode, done.stderr) == (0, "")


def test_several_experiments_end_each_for_itself(run_script: Run, home: Home) -> None:
    """One was stopped, two are live when the process fails."""
    run_script(
        "other = project.create_experiment(upload_source_files=[], git_info=False)\n"
        "third = project.create_experiment(upload_source_files=[], git_info=False)\n"
        "exp.stop()\n"
        "1 / 0\n"
    )
    assert [journal.outcome for journal in journals(home)] == ["succeeded", "failed", "failed"]


def test_a_prompt_goes_on_after_an_exception(run_script: Run, home: Home) -> None:
    """An exception at a prompt is recorded and ends nothing."""
    done = run_script("sys.ps1 = '>>> '\nsys.excepthook(*[(type(e), e, None) for e in [ValueError('typo')]][0])\n")
    assert done.returncode == 0
    [journal] = journals(home)
    assert journal.outcome == "succeeded"
    assert "typo" in journal.texts("exceptions")[0]


def test_stop_is_done_once(create: Create) -> None:
    """The first call says how it ended."""
    experiment = create()
    assert experiment.state == "running"
    experiment.stop()
    experiment.stop("too late")
    assert experiment.state == journal_of(experiment).outcome == "succeeded"


def test_stop_with_a_traceback_is_a_failure(create: Create) -> None:
    """Neptune's argument: the text is kept."""
    experiment = create()
    experiment.stop(exc_tb="it diverged")
    assert experiment.state == "failed"
    assert journal_of(experiment).detail == "it diverged"


def test_with_ends_what_it_began(create: Create) -> None:
    """Normally, or with the exception, which goes on its way."""
    with create() as good:
        good.log_metric("loss", 0.5)
    assert journal_of(good).outcome == "succeeded"
    with pytest.raises(ZeroDivisionError), create() as bad:
        1 / 0  # noqa: B018
    assert journal_of(bad).outcome == "failed"
    assert "ZeroDivisionError" in journal_of(bad).detail


def test_a_creation_that_fails_half_way_ends_as_failed(
    create: Create, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its journal is not left open for ever."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd#name.py").touch()
    with pytest.raises(hr.errors.InvalidName, match="odd#name"):
        create(upload_source_files="*.py")
    [journal] = journals(home)
    assert journal.outcome == "failed"
    assert ends.live == {}
