"""Abort, as the process sees it: an end that somebody asked for is *aborted*, and a callback is called where one was given."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

import headrace as hr
from headrace.experiment import alive
from headrace_proto import abort
from headrace_proto.errors import InvalidValue, TelemetryWarning
from headrace_proto.home import Home
from tests.sdk.conftest import Run
from tests.sdk.journals import journal_of, journals
from tests.waiting import wait_until

Create = Callable[..., hr.Experiment]
REQUEST = abort.Request("1" * 32, "ann@desk", "the loss diverged")
ASKED = """
from headrace_proto import abort
abort.ask(project.home.journal(exp.source), abort.Request("1" * 32, "ann@desk", "the loss diverged"))
"""


def ask(experiment: hr.Experiment, request: abort.Request = REQUEST) -> str:
    """What the agent does; the journal's folder."""
    folder = experiment.origin.home.journal(experiment.source)
    abort.ask(folder, request)
    return folder


# -- Ends that were asked for ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("way_out", "code"),
    [
        ("", 0),
        ("exp.stop()\n", 0),
        ("exp.stop('gave up')\n", 0),
        ("sys.exit(143)\n", 143),
        ("import signal\nsignal.signal(15, lambda *_: sys.exit(143))\nos.kill(os.getpid(), 15)\n", 143),
        ("with exp:\n    raise SystemExit(3)\n", 3),
        ("raise ValueError('a peer has gone')\n", 1),
    ],
    ids=repr,
)
def test_an_end_that_was_asked_for_is_aborted(run_script: Run, home: Home, way_out: str, code: int) -> None:
    """Whether the program ends in peace, by its own handler of SIGTERM, or because its peers have gone: aborted, and by whom."""
    done = run_script(ASKED + way_out)
    assert done.returncode == code, done.stderr
    [journal] = journals(home)
    assert journal.outcome == "aborted"
    assert journal.detail.splitlines()[-1] == "aborted by ann@desk: the loss diverged"


def test_an_end_that_was_asked_for_keeps_its_traceback(run_script: Run, home: Home) -> None:
    """What a program stumbled over while it ended is not lost."""
    run_script(ASKED + "raise ValueError('a peer has gone')\n")
    [journal] = journals(home)
    assert "ValueError: a peer has gone" in journal.detail


def test_a_request_to_another_source_changes_no_end(create: Create, home: Home) -> None:
    """It is one source that is asked, and its end."""
    other, experiment = create(), create()
    ask(other)
    experiment.stop()
    assert (experiment.state, journal_of(experiment).outcome) == ("succeeded", "succeeded")
    other.stop()
    assert (other.state, journal_of(other).outcome) == ("aborted", "aborted")


def test_abort_of_a_live_experiment_ends_it_with_a_reason(create: Create) -> None:
    """`Experiment.abort` is the program's own word; the second end says nothing."""
    experiment = create()
    experiment.abort("the loss diverged")
    experiment.stop()
    assert experiment.state == "aborted"
    assert (journal_of(experiment).outcome, journal_of(experiment).detail) == ("aborted", "the loss diverged")


def test_abort_needs_no_reason(create: Create) -> None:
    """As a Ctrl-C has none."""
    experiment = create()
    experiment.abort()
    assert (journal_of(experiment).outcome, journal_of(experiment).detail) == ("aborted", "")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"7", b'{"id": 3}', b'{"id": "1", "else": 2}', b"\xff" * 100_000]
)
def test_a_request_that_cannot_be_read_changes_no_end(create: Create, content: bytes) -> None:
    """A half-written or foreign file asks for nothing."""
    experiment = create()
    with open(os.path.join(experiment.origin.home.journal(experiment.source), abort.REQUEST), "wb") as file:
        file.write(content)
    experiment.stop()
    assert experiment.state == "succeeded"


# -- The callback ----------------------------------------------------------------------------------------------------------


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "headrace-abort"]


def test_without_a_callback_there_is_no_thread(create: Create) -> None:
    """Whoever just logs gets no thread, whatever `run_monitoring_thread` says."""
    create()
    create(run_monitoring_thread=True)
    assert not threads()


def test_a_callback_is_called_once_for_each_request_and_its_return_is_told(create: Create) -> None:
    """In a thread of its own; the experiment goes on until the program ends it, and is then aborted."""
    called: list[str] = []
    experiment = create(abort_callback=lambda: called.append(threading.current_thread().name))
    folder = experiment.origin.home.journal(experiment.source)
    assert abort.is_expected(folder)
    ask(experiment)
    answer = wait_until(lambda: abort.answered(folder, REQUEST.id), "an answer")
    wait_until(lambda: (given := abort.answered(folder, REQUEST.id)) and given.state == abort.RETURNED, "it is back")
    assert answer.state in (abort.CALLING, abort.RETURNED)
    assert abort.answered(folder, "2" * 32) is None
    experiment.log_metric("loss", 1)
    ask(experiment, REQUEST._replace(id="2" * 32))
    wait_until(lambda: len(called) == 2, "the second call")
    assert called == ["headrace-abort"] * 2
    experiment.stop()
    assert experiment.state == "aborted"
    assert not abort.is_expected(folder)
    wait_until(lambda: not threads(), "the thread ends with the experiment")


def test_a_callback_that_raises_is_told_and_ends_nothing(create: Create) -> None:
    """`sys.exit()` in a thread ends nobody: both sides hear of it."""
    import sys

    experiment = create(abort_callback=sys.exit)
    folder = experiment.origin.home.journal(experiment.source)
    with pytest.warns(TelemetryWarning, match="raised SystemExit"):
        ask(experiment)
        wait_until(lambda: (given := abort.answered(folder, REQUEST.id)) and given.state == abort.RAISED, "it is told")
    answer = abort.answered(folder, REQUEST.id)
    assert answer is not None
    assert answer.detail.startswith("SystemExit")
    assert experiment.state == "running"


def test_a_callback_may_end_its_experiment(create: Create) -> None:
    """`exp.stop` is a callback as good as any."""
    created: list[Any] = []
    created.append(create(abort_callback=lambda: created[0].stop()))
    ask(created[0])
    wait_until(lambda: created[0].state == "aborted", "it has ended")
    assert journal_of(created[0]).outcome == "aborted"


def test_without_the_monitoring_thread_nobody_waits_for_a_request(create: Create) -> None:
    """The agent is not told of a callback, and sends its signals."""
    experiment = create(abort_callback=lambda: None, run_monitoring_thread=False)
    assert not threads()
    assert not abort.is_expected(experiment.origin.home.journal(experiment.source))


@pytest.mark.parametrize("callback", ["stop", 3, ()], ids=repr)
def test_a_callback_must_be_callable(create: Create, callback: Any) -> None:
    """Said at once, before anything has begun."""
    with pytest.raises(InvalidValue, match=r"abort_callback must be callable"):
        create(abort_callback=callback)
    assert not alive()


def test_a_callback_is_not_the_forked_childs(run_script: Run, home: Home) -> None:
    """A child that logs is a source of its own, without the thread: its parent is asked for both."""
    body = (
        "import time\nfrom headrace_proto import abort\n"
        "if os.fork() == 0:\n"
        "    exp.log_metric('child', 1)\n"
        "    print(abort.is_expected(project.home.journal(exp.source)), flush=True)\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "print(abort.is_expected(project.home.journal(exp.source)))\n"
    )
    options = "abort_callback=print, upload_source_files=[], git_info=False, upload_stdout=False"
    done = run_script(body, options, PYTHONWARNINGS="ignore::DeprecationWarning")
    assert (done.stdout.split(), done.stderr) == (["False", "True"], "")
