"""Many processes, many threads, signals: each process is a source of its own, and nobody ends or tears another's."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import headrace as hr
from headrace import ends, inheritance
from headrace.errors import ExperimentNotFound
from headrace_proto.events import Kind, Role
from headrace_proto.home import Home
from headrace_proto.status import Status, write_status
from tests.processes import in_forked_child, in_threads
from tests.sdk.conftest import Run
from tests.sdk.journals import journal_of, journals, of_role
from tests.waiting import wait_until

Create = Callable[..., hr.Experiment]
LARGE = "x" * 100_000


# -- Forks ---------------------------------------------------------------------------------------------------------------


def test_a_forked_child_is_a_source_of_its_own(create: Create, home: Home) -> None:
    """The parent's journal has the parent's events and no others; the child's names its parent."""
    experiment = create()
    experiment.log_metric("loss", 1, 0.5)
    assert in_forked_child(lambda: experiment.log_metric("loss", 2, 0.25)) == 0
    experiment.log_metric("loss", 3, 0.125)
    experiment.stop()
    [owner], [worker] = of_role(home, Role.OWNER), of_role(home, Role.WORKER)
    assert owner.series("loss") == [(1.0, 0.5), (3.0, 0.125)]
    assert worker.series("loss") == [(2.0, 0.25)]
    assert worker.header.parent == owner.header.source
    assert worker.of(Kind.CREATE) == []
    assert (owner.outcome, worker.outcome) == ("succeeded", None)


def test_a_forked_childs_large_payloads_lie_with_their_events(create: Create, home: Home) -> None:
    """Even when such a payload is the first thing that the child logs."""
    experiment = create()
    assert in_forked_child(lambda: experiment.log_text("notes", LARGE)) == 0
    [worker] = of_role(home, Role.WORKER)
    [(_, payload)] = worker.series("notes")
    assert os.path.exists(os.path.join(home.spool(worker.header.source), payload["file"]))
    assert not os.path.exists(home.spool(experiment._writer.source))


def test_a_child_that_logs_nothing_leaves_nothing(create: Create, home: Home) -> None:
    """Neither its exit nor its `stop()` touches the parent's experiment, or makes a journal; nor does it speak of the code."""
    experiment = create(git_info=None)
    wait_until(lambda: experiment._inquiry is None or experiment._inquiry.answer(), "git has answered")
    assert in_forked_child(lambda: None) == 0
    assert in_forked_child(experiment.stop) == 0
    experiment.log_metric("loss", 0.5)
    assert len(journals(home)) == 1
    assert journal_of(experiment).outcome is None


def test_a_stopped_handle_in_a_child_takes_no_more(create: Create, home: Home) -> None:
    """As in any process."""
    experiment = create()

    def work() -> None:
        experiment.stop()
        with pytest.raises(hr.errors.ExperimentStopped):
            experiment.log_metric("loss", 0.5)

    assert in_forked_child(work) == 0
    assert len(journals(home)) == 1


def test_a_child_that_exits_by_pythons_rules_closes_its_own_source(run_script: Run, home: Home) -> None:
    """Its failure is its own: the parent's experiment succeeds."""
    done = run_script(
        "if os.fork() == 0:\n    exp.log_metric('child', 1)\n    1 / 0\nos.wait()\nexp.log_metric('parent', 1)\n"
    )
    assert done.returncode == 0
    [owner], [worker] = of_role(home, Role.OWNER), of_role(home, Role.WORKER)
    assert (owner.outcome, worker.outcome) == ("succeeded", "failed")
    assert "ZeroDivisionError" in worker.detail
    assert owner.texts("exceptions") == []


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_log_and_close(run_script: Run, home: Home, method: str) -> None:
    """By every method, with the handle as an argument: one source each, closed at the child's end as what it was."""
    done = run_script(
        "import headrace as hr, multiprocessing, sys\n"
        "def work(exp, number):\n"
        "    exp.log_metric('child', number, number)\n"
        "    if number == 1:\n"
        "        raise ValueError('only this child')\n"
        "    if number == 2:\n"
        "        sys.exit(3)\n"
        "if __name__ == '__main__':\n"
        "    exp = hr.init('vision/digits').create_experiment(upload_source_files=[], git_info=False)\n"
        f"    context = multiprocessing.get_context({method!r})\n"
        "    children = [context.Process(target=work, args=(exp, number)) for number in range(3)]\n"
        "    [child.start() for child in children]\n"
        "    [child.join() for child in children]\n"
        "    print([child.exitcode for child in children])\n",
        "none",
    )
    assert done.stdout == "[0, 1, 3]\n"
    [owner], workers = of_role(home, Role.OWNER), of_role(home, Role.WORKER)
    assert owner.outcome == "succeeded"
    ends_of = {journal.series("child")[0][1]: journal.outcome for journal in workers}
    assert ends_of == {0.0: "succeeded", 1.0: "failed", 2.0: "failed"}
    assert {journal.header.parent for journal in workers} == {owner.header.source}


def test_an_experiment_created_in_a_child_of_multiprocessing_ends_with_it(run_script: Run, home: Home) -> None:
    """A forked child of multiprocessing skips atexit; a sweep in such children is closed all the same."""
    run_script(
        "import headrace as hr, multiprocessing\n"
        "def trial(number):\n"
        "    exp = hr.init('vision/digits').create_experiment(upload_source_files=[], git_info=False)\n"
        "    exp.log_metric('loss', number)\n"
        "    assert number != 1\n"
        "context = multiprocessing.get_context('fork')\n"
        "for number in range(2):\n"
        "    child = context.Process(target=trial, args=(number,))\n"
        "    child.start()\n"
        "    child.join()\n",
        "none",
    )
    assert [journal.outcome for journal in of_role(home, Role.OWNER)] == ["succeeded", "failed"]


# -- Attaching -----------------------------------------------------------------------------------------------------------


def test_a_child_process_attaches_to_what_it_inherits(create: Create, home: Home, run_script: Run) -> None:
    """Knowing the experiment's facts from the first moment, as a worker that ends only itself."""
    experiment = create(name="mlp", params={"lr": 0.1}, tags=["a"], send_hardware_metrics=False)
    done = run_script(
        "import headrace as hr\n"
        "exp = hr.attach(label='loader')\n"
        "print(exp.internal_id, exp.project, exp.name, exp.params, exp.tags)\n"
        "exp.log_metric('from_child', 1)\n",
        "none",
        HEADRACE_HOME="/nowhere",
    )
    assert done.stdout == f"{experiment.internal_id} vision/digits mlp {{'lr': 0.1}} ['a']\n"
    [worker] = of_role(home, Role.WORKER)
    assert worker.series("from_child") == [(None, 1.0)]
    assert (worker.header.label, worker.header.parent) == ("loader", experiment._writer.source)
    assert not worker.header.hardware
    assert worker.outcome == "succeeded"
    assert journal_of(experiment).outcome is None


def test_a_child_process_may_name_what_it_inherits(create: Create, home: Home, run_script: Run) -> None:
    """By any of its ids: where its journals lie comes with the inheritance."""
    experiment = create(key="night-7")
    write_status(home.status(experiment.internal_id), Status("DIG-7", os.getpid(), time.time(), {}))
    for called in ("DIG-7", "night-7", experiment.internal_id):
        done = run_script(
            f"import headrace as hr\nprint(hr.attach({called!r}).internal_id)", "none", HEADRACE_HOME="/nowhere"
        )
        assert done.stdout == f"{experiment.internal_id}\n", done.stderr


def test_an_inheritance_says_everything(tmp_path: Path) -> None:
    """Home, store and mode, whatever characters are in them."""
    home = Home(tmp_path / "100%|home")
    project = hr.init("a/b", home=home.root, store=f"{tmp_path}/st%7Core", direct=True)
    with project.create_experiment(upload_source_files=[], git_info=False) as experiment:
        given = inheritance.inherited()
        assert given == inheritance.Inherited.of(experiment.origin, experiment._writer.source)
        assert given is not None
        assert (given.home, given.store, given.direct) == (home.root, f"{tmp_path}/st%7Core", "direct")


def test_creating_never_attaches_by_accident(create: Create, home: Home, run_script: Run) -> None:
    """An inherited variable means nothing to `create_experiment`: an unrelated child has an experiment of its own."""
    experiment = create()
    run_script("")
    assert {journal.header.experiment for journal in journals(home)} > {experiment.internal_id}
    assert len(of_role(home, Role.OWNER)) == 2


def test_the_variable_lives_as_long_as_the_experiment(create: Create) -> None:
    """And gives way to the one before it."""
    assert inheritance.VARIABLE not in os.environ
    first = create()
    second = create()
    assert os.environ[inheritance.VARIABLE].startswith(second.internal_id)
    second.stop()
    assert os.environ[inheritance.VARIABLE].startswith(first.internal_id)
    first.stop()
    assert inheritance.VARIABLE not in os.environ


def test_attaching_by_id(create: Create, project: hr.Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the same process it is the same handle; elsewhere the home's journals, or the project, know where it belongs."""
    experiment = create(name="mlp")
    assert hr.attach(experiment.internal_id) is experiment
    assert hr.attach() is experiment
    assert project.attach(experiment.internal_id) is experiment
    monkeypatch.delenv(inheritance.VARIABLE)
    monkeypatch.setenv("HEADRACE_HOME", project.home.root)
    ranked = hr.attach(experiment.internal_id, rank=3)
    assert ranked is not experiment
    assert (ranked.project, ranked.name) == ("vision/digits", "mlp")
    header = journal_of(ranked).header
    assert (header.role, header.rank) == (Role.RANK, 3)
    ranked.stop()
    assert hr.attach(experiment.internal_id) is experiment


def test_attaching_by_short_id_and_by_key(create: Create, project: hr.Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the agent was told them: the same handle in this process, else the same experiment. Ids of other projects are not ours."""
    experiment = create(name="mlp", key="night-7")
    told = Status("DIG-7", os.getpid(), time.time(), {})
    write_status(project.home.status(experiment.internal_id), told)
    monkeypatch.delenv(inheritance.VARIABLE)
    monkeypatch.setenv("HEADRACE_HOME", project.home.root)
    for called in ("DIG-7", "night-7"):
        assert hr.attach(called) is experiment
        assert project.attach(called) is experiment
    experiment.stop()
    for called in ("DIG-7", "night-7"):
        for joined in (hr.attach(called), project.attach(called)):
            assert (joined.internal_id, joined.project, joined.name) == (experiment.internal_id, "vision/digits", "mlp")
            joined.stop()
        with pytest.raises(ExperimentNotFound, match=called):
            hr.init("vision/other", home=project.home.root).attach(called)


def test_what_only_the_store_knows_is_attached_by_any_of_its_ids(home: Home, store: str) -> None:
    """Another node has logged it: the project asks the store."""
    with hr.init("vision/digits", home=home.root, store=store, direct=True).create_experiment(
        "mlp", key="night-7", upload_source_files=[], git_info=False
    ) as logged:
        pass
    elsewhere = hr.init("vision/digits", home=f"{home.root}-elsewhere", store=store, direct=True)
    short = elsewhere.get_experiments()[0].id
    for called in (short, "night-7", logged.internal_id):
        with elsewhere.attach(called) as joined:
            assert joined.internal_id == logged.internal_id
    with pytest.raises(ExperimentNotFound, match="DIG-99"):
        elsewhere.attach("DIG-99")


def test_attaching_as_owner_takes_the_experiment_over(create: Create, project: hr.Project) -> None:
    """After the owner is gone, another process decides the state."""
    experiment = create(name="mlp")
    experiment.stop("killed")
    with project.attach(experiment.internal_id, owner=True) as again:
        assert journal_of(again).header.role == Role.OWNER
        assert again.name == "mlp"


@pytest.mark.parametrize("wrong", ["", "DIG-1", "0" * 31, 3], ids=repr)
def test_attaching_to_nothing_is_refused(project: hr.Project, wrong: Any) -> None:
    """With a message that says what to do."""
    with pytest.raises(ExperimentNotFound, match="no experiment to attach"):
        hr.attach()
    with pytest.raises(ExperimentNotFound):
        hr.attach(wrong)
    with pytest.raises(ExperimentNotFound, match="internal_id"):
        project.attach(wrong)
    with pytest.raises(ExperimentNotFound, match=r"init\('workspace/name'\)"):
        hr.attach("0" * 32)


def test_an_experiment_of_another_node_is_attached_through_its_project(project: hr.Project) -> None:
    """Nothing of it is on this machine; what the id means is the project's to say."""
    with project.attach("ab" * 16) as experiment:
        experiment.log_metric("loss", 0.5)
        assert journal_of(experiment).header.project == "vision/digits"
        assert (experiment.name, experiment.params) == ("", {})


def test_a_damaged_inheritance_is_none(project: hr.Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that somebody else has set is no experiment."""
    for value in ("", "x", "a|b|c|d|e|f", "|||||"):
        monkeypatch.setenv(inheritance.VARIABLE, value)
        with pytest.raises(ExperimentNotFound):
            hr.attach()


def test_handles_copy_as_themselves(create: Create) -> None:
    """A trainer that deep-copies its loggers logs on to the same journal."""
    experiment = create()
    assert copy.deepcopy({"logger": [experiment]})["logger"][0] is experiment
    assert copy.copy(experiment) is experiment
    assert pickle.loads(pickle.dumps(experiment)) is experiment


# -- Threads and signals -------------------------------------------------------------------------------------------------


def test_threads_log_side_by_side(create: Create) -> None:
    """Every call of every thread is there once, each thread's in its order."""
    experiment = create()
    together = threading.Barrier(4)

    def work(number: int) -> None:
        together.wait()
        for step in range(2000):
            experiment.log_metric(f"t{number}", step, step)
            if step % 500 == 0:
                experiment.log_metrics({"a": step, "b": step}, step=step)
                experiment.set_property(f"p{number}", step)
                experiment.append_tag(f"t{number}-{step}")
                experiment.log_text(f"n{number}", LARGE)

    in_threads(4, work)
    journal = journal_of(experiment)
    for number in range(4):
        assert journal.series(f"t{number}") == [(float(step), float(step)) for step in range(2000)]
        assert len(journal.series(f"n{number}")) == 4
    assert len(journal.series("a")) == 16
    assert len(experiment.tags) == 16
    assert experiment.properties == {f"p{number}": "1500" for number in range(4)}


def test_a_signal_handler_may_log_anything(create: Create, home: Home) -> None:
    """Also when it interrupts a call of the same kind; what it logs is in the journal of the process, or a second one."""
    experiment = create()
    handled = 0

    def handler(*_: Any) -> None:
        nonlocal handled
        handled += 1
        experiment.log_metric("signals", handled, handled)
        experiment.log_text("large", LARGE)
        experiment.set_property("handled", handled)
        signal.setitimer(signal.ITIMER_REAL, 0.0005)  # the next one only now: handlers that pile up would never end

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0005)
    try:
        step = 0
        while handled < 50:
            experiment.log_metric("loss", step, step)
            step += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    experiment.stop()
    found = journals(home)
    assert sum(len(journal.series("loss")) for journal in found) == step
    assert sum(len(journal.series("signals")) for journal in found) == handled
    for journal in found:
        for _, payload in journal.series("large"):
            assert os.path.exists(os.path.join(home.spool(journal.header.source), payload["file"]))


def test_nothing_is_imported_for_multiprocessing() -> None:
    """In a process that is no child of it, nothing is registered either."""
    assert multiprocessing.parent_process() is None
    ends.finish_with_multiprocessing()
    assert ends._finalized_in is None
