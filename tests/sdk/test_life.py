"""Life: ids and receipts by the agent's word, reads that do not hold training up, and nothing that waits for nobody."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest

import headrace as hr
from headrace.errors import InvalidValue, SaveError
from headrace.live import life
from headrace.waiting import agent_serves
from headrace_proto.home import Home
from headrace_proto.journal import lock
from headrace_proto.status import SourceStatus, Status, write_status
from tests.waiting import wait_until

Create = Callable[..., hr.Experiment]


@pytest.fixture(autouse=True)
def _no_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(life, "_short_ids", {})


def _hold(path: str, held: Event, release: Event) -> None:
    assert lock.take(path) is not None
    held.set()
    release.wait(60)


@pytest.fixture
def agent_lock(home: Home) -> Iterator[None]:
    """Another process holds the agent's lock."""
    context = get_context("spawn")
    held, release = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(home.agent_lock, held, release))
    holder.start()
    assert held.wait(30)
    yield
    release.set()
    holder.join()


def say(experiment: hr.Experiment, short_id: str = "DIG-1", **positions: int) -> None:
    """What the agent would write."""
    home = experiment.origin.home
    sources = {experiment._writer.source: SourceStatus(**positions)}
    write_status(home.status(experiment.internal_id), Status(short_id, os.getpid(), time.time(), sources))


def later(work: Callable[[], None], when: Callable[[], bool]) -> threading.Thread:
    """Do `work` as soon as `when` says so."""

    def wait() -> None:
        wait_until(when, "it is time")
        work()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


# -- Ids -----------------------------------------------------------------------------------------------------------------


def test_offline_the_id_is_the_internal_one_at_once(experiment: hr.Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody serves the home, so nobody is waited for."""
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("waited"))
    assert experiment.id == experiment.internal_id
    assert repr(experiment) == f"Experiment({experiment.internal_id})"


def test_the_id_is_what_the_agent_heard(experiment: hr.Experiment) -> None:
    """And `repr` uses it once it is known."""
    say(experiment, "DIG-7")
    assert repr(experiment) == f"Experiment({experiment.internal_id})"
    assert experiment.id == "DIG-7"
    assert repr(experiment) == "Experiment(DIG-7)"


def test_the_id_is_waited_for_while_an_agent_serves(experiment: hr.Experiment, home: Home, agent_lock: None) -> None:
    """And the agent is asked to hurry."""
    assert agent_serves(home)
    thread = later(lambda: say(experiment, "DIG-7"), lambda: os.path.exists(home.flush_request(experiment.internal_id)))
    assert experiment.id == "DIG-7"
    thread.join()


def test_an_answer_never_changes_within_a_process(create: Create) -> None:
    """A path made of the id stays one path, also for another handle."""
    experiment = create(key="a")
    assert experiment.id == experiment.internal_id
    say(experiment, "DIG-7")
    assert experiment.id == experiment.internal_id
    assert experiment.wait_id(timeout=1) == "DIG-7"
    assert experiment.id == experiment.internal_id
    experiment.stop()
    assert create(key="a").id == experiment.internal_id


def test_an_id_can_be_insisted_on(experiment: hr.Experiment) -> None:
    """Also when no agent serves the home yet; for as long as one likes."""
    with pytest.raises(SaveError, match="no short id"):
        experiment.wait_id(timeout=0)
    thread = later(lambda: say(experiment, "DIG-7"), lambda: True)
    assert experiment.wait_id() == "DIG-7"
    thread.join()
    assert experiment.id == "DIG-7"


# -- Receipts ------------------------------------------------------------------------------------------------------------


def test_journaled_is_reached_when_a_call_returns(experiment: hr.Experiment) -> None:
    """The receipt has positions of this process's journal."""
    before = experiment.wait("journaled").journaled
    experiment.log_metric("loss", 1, 0.5)
    receipt = experiment.wait("journaled", timeout=0)
    assert receipt == hr.Receipt(receipt.journaled, 0, 0, 0, reached=True)
    assert receipt.journaled > before


@pytest.mark.parametrize("stage", ["streamed", "stored"])
def test_a_stage_is_waited_for_and_the_agent_asked(experiment: hr.Experiment, home: Home, stage: Any) -> None:
    """Until the agent's word covers all that was logged before the call."""
    experiment.log_metric("loss", 0.5)
    position = experiment.wait("journaled").journaled
    say(experiment, streamed=position - 1, stored=position - 1)
    assert not experiment.wait(stage, timeout=0).reached
    thread = later(
        lambda: say(experiment, "DIG-1", **{"streamed": position, stage: position}),
        lambda: os.path.exists(home.flush_request(experiment.internal_id)),
    )
    receipt = experiment.wait(stage, timeout=None)
    thread.join()
    assert receipt.reached
    assert getattr(receipt, stage) == position


def test_stored_includes_the_files(experiment: hr.Experiment, home: Home) -> None:
    """An agent that has not seen a file yet cannot vouch for it: what lies in the spool counts."""
    experiment.log_text("notes", "x" * 100_000)
    position = experiment.wait("journaled").journaled
    say(experiment, streamed=position, stored=position)
    receipt = experiment.wait("stored", timeout=0)
    assert (receipt.reached, receipt.stored, receipt.files) == (False, position, 1)
    for path in Path(home.spool(experiment._writer.source)).iterdir():
        path.unlink()
    assert experiment.wait("stored", timeout=0).reached


def test_saving_in_time_or_saying_how_far_it_came(experiment: hr.Experiment) -> None:
    """The error has the positions."""
    position = experiment.wait("journaled").journaled
    say(experiment, stored=position - 1)
    with pytest.raises(SaveError, match=f"{position - 1} of {position} bytes"):
        experiment.save(timeout=0)
    say(experiment, stored=position)
    assert experiment.save(timeout=0).reached


def test_an_unknown_stage_is_refused(experiment: hr.Experiment) -> None:
    """With the names of those that exist."""
    with pytest.raises(InvalidValue, match="'streamed'"):
        experiment.wait("saved")  # type: ignore[arg-type]


def test_flushing_asks_and_a_durable_one_syncs(
    experiment: hr.Experiment, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither waits for an agent."""
    experiment.log_metric("loss", 0.5)
    synced: list[str] = []
    fsync = os.fsync

    def noting(descriptor: int) -> None:
        synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    experiment.flush()
    assert os.path.exists(home.flush_request(experiment.internal_id))
    assert synced == []
    experiment.flush(durable=True)
    assert synced.count("000000.seg") == 1


def test_a_damaged_status_is_no_status(experiment: hr.Experiment, home: Home) -> None:
    """Whatever lies there, waiting goes on and ids are the internal ones."""
    Path(home.status(experiment.internal_id)).write_text("{")
    assert not experiment.wait("stored", timeout=0).reached
    assert experiment.id == experiment.internal_id
