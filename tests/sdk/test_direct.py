"""Direct mode: no agent, no broker, the real store; what was logged is there when the call that asks for it returns."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import headrace as hr
from headrace import direct
from headrace.direct import Direct
from headrace.errors import SaveError, StaleRead, TelemetryWarning, UnknownStore
from headrace_proto.home import Home
from headrace_proto.store.backend import open_store
from headrace_proto.store.chain import Chain
from tests.quiet import QUIET
from tests.sdk.conftest import Run
from tests.sdk.journals import journals

Create = Callable[..., hr.Experiment]
LARGE = os.urandom(300_000)


@pytest.fixture
def project(home: Home, store: str) -> hr.Project:
    """A project in direct mode."""
    return hr.init("vision/digits", home=home.root, store=store, direct=True)


def chain_of(experiment: hr.Experiment) -> Chain:
    """The experiment as it is committed."""
    origin = experiment.origin
    return Chain(open_store(origin.store, writable=False), origin.project, experiment.internal_id).load()


def test_all_that_was_logged_is_stored_by_save(create: Create, store: str) -> None:
    """Points, texts, images, files, facts: through the same commits as a collector's."""
    experiment = create(name="mlp", params={"lr": 0.1}, tags=["baseline"])
    for step in range(100):
        experiment.log_metric("loss", step, 1 / (step + 1))
    experiment.log_metrics({"acc": 0.9, "loss": 0.5}, step=100)
    experiment.log_text("notes", "hello")
    experiment.log_text("notes", "ä" * 100_000)
    experiment.log_image("samples", np.zeros((4, 4)))
    experiment.log_artifact(io.BytesIO(LARGE), "model.bin")
    experiment.log_artifact(io.BytesIO(b"small"), "small.bin")
    experiment.set_property("data", "v3")
    receipt = experiment.save()
    assert receipt.reached
    assert receipt.journaled == receipt.stored
    assert receipt.files == 0
    chain = chain_of(experiment)
    document = chain.document
    assert (document.name, document.params, document.tags) == ("mlp", {"lr": 0.1}, ("baseline",))
    assert document.properties == {"data": "v3"}
    assert chain.read("numeric", ["loss"]).num_rows == 101
    assert chain.read("text", ["notes"]).num_rows == 2
    folder = Path(store, "vision/digits/experiments", experiment.internal_id)
    assert (folder / "artifacts/model.bin").read_bytes() == LARGE
    assert (folder / "artifacts/small.bin").read_bytes() == b"small"
    assert document.artifacts["model.bin"].state == "stored"


def test_reads_store_first_what_they_read(create: Create, project: hr.Project) -> None:
    """The next line sees what the line before logged, by the experiment and by its project."""
    experiment = create(name="mlp")
    experiment.log_metric("loss", 1, 0.5)
    frame = experiment.get_numeric_channels_values("loss")
    assert frame.to_dict("list") == {"x": [1.0], "loss": [0.5]}
    experiment.log_metric("loss", 2, 0.25)
    assert list(experiment.get_channel("loss")["value"]) == [0.5, 0.25]
    experiment.append_tag("best")
    [found] = project.get_experiments(tag="best")
    assert (found.internal_id, found.state) == (experiment.internal_id, "running")
    assert isinstance(project.get_leaderboard(), pd.DataFrame)
    assert project.get_experiment(experiment.internal_id).name == "mlp"


def test_stop_stores_the_rest_and_leaves_no_journal(create: Create, project: hr.Project, home: Home) -> None:
    """A finished experiment is in the store, whole, and nothing is left for an agent to do."""
    experiment = create(name="mlp")
    experiment.log_metric("loss", 1, 0.5)
    experiment.log_text("notes", "x" * 100_000)
    experiment.stop()
    [found] = project.get_experiments(state="succeeded")
    assert found.internal_id == experiment.internal_id
    assert os.listdir(home.journals) == os.listdir(home.spools) == []
    assert experiment.wait("stored", timeout=0).reached


def test_the_id_is_claimed(create: Create, home: Home) -> None:
    """At once, in the order of asking; a number is one experiment's for ever."""
    first, second = create(), create()
    assert second.id == "DIG-1"
    assert first.id == "DIG-2"
    second.save()
    first.save()
    assert [chain_of(experiment).document.id for experiment in (first, second)] == ["DIG-2", "DIG-1"]


def test_saving_again_stores_nothing_twice(create: Create) -> None:
    """Only what is new since the watermark."""
    experiment = create()
    experiment.log_metric("loss", 1, 0.5)
    assert experiment.wait("streamed").stored == experiment.save().stored
    number = chain_of(experiment).number
    experiment.save()
    assert chain_of(experiment).number == number
    experiment.log_metric("loss", 2, 0.25)
    experiment.save()
    assert chain_of(experiment).read("numeric").num_rows == 2


def test_a_large_backlog_is_several_commits(create: Create, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each bounded; over many segments; all there once."""
    monkeypatch.setattr(direct, "COMMIT_BYTES", 1024 * 1024)
    experiment = create()
    for step in range(100_000):
        experiment.log_metric("loss", step, step)
    experiment.save()
    chain = chain_of(experiment)
    assert chain.number >= 3
    assert chain.read("numeric")["step"].to_pylist() == [float(step) for step in range(100_000)]


def test_two_processes_store_one_experiment(run_script: Run, home: Home, store: str) -> None:
    """A forked child stores its own journal, the parent its own, over each other's commits."""
    done = run_script(
        "import headrace as hr, os, multiprocessing\n"
        f"project = hr.init('vision/digits', store={store!r}, direct=True)\n"
        "exp = project.create_experiment(upload_source_files=[], git_info=False)\n"
        "def work(number):\n"
        "    exp.log_metric('loss', number, number)\n"
        "children = [multiprocessing.get_context('fork').Process(target=work, args=(n,)) for n in range(3)]\n"
        "[child.start() for child in children]\n"
        "exp.log_metric('loss', 3, 3)\n"
        "exp.save()\n"
        "[child.join() for child in children]\n"
        "print(exp.internal_id)\n",
        "none",
    )
    assert done.stderr == ""
    chain = Chain(open_store(store), "vision/digits", done.stdout.strip()).load()
    assert chain.read("numeric")["step"].to_pylist() == [0.0, 1.0, 2.0, 3.0]
    assert chain.document.state == "succeeded"


def test_a_relative_store_stays_where_it_was_named(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that changes its working folder stores and reads where it began, and so do the children that attach."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADRACE_STORE", "runs")
    project = hr.init("vision/digits", home=home.root, direct=True)
    experiment = project.create_experiment("moved", upload_source_files=[], git_info=False)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    experiment.log_metric("loss", 0.5)
    experiment.save()
    experiment.stop()
    assert experiment.origin.store == project.store == str(tmp_path / "runs")
    assert os.listdir(tmp_path / "elsewhere") == []
    assert list(project.get_leaderboard()["channel_loss"]) == [0.5]


def test_a_store_that_fails_is_tried_again(create: Create, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the time is over; then the error says that nothing is lost, and a later save stores it."""
    experiment = create()
    experiment.log_metric("loss", 0.5)
    failures = 2
    commit = Chain.commit

    def failing(self: Chain, *arguments: Any, **options: Any) -> Any:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise OSError("the bucket is away")
        return commit(self, *arguments, **options)

    monkeypatch.setattr(Chain, "commit", failing)
    monkeypatch.setattr(direct, "_RETRY_S", 0.0)
    assert experiment.save().reached
    failures = 10**9
    experiment.log_metric("loss", 0.25)
    with pytest.raises(SaveError, match="safe in the journal"):
        experiment.save(timeout=0)
    failures = 0
    assert experiment.save().reached
    assert chain_of(experiment).read("numeric").num_rows == 2


def test_an_end_without_a_store_is_an_end(create: Create, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """`stop()` warns, returns, and leaves the journal for an agent."""
    monkeypatch.setenv("HEADRACE_STOP_S", "0")
    experiment = create()

    def failing(*_: Any, **__: Any) -> Any:
        raise OSError("the bucket is away")

    monkeypatch.setattr(Chain, "load", failing)
    with pytest.warns(TelemetryWarning, match="safe in the journal"):
        experiment.stop()
    [journal] = journals(home)
    assert journal.outcome == "succeeded"


def test_a_file_that_changed_is_said_to_have(create: Create, home: Home) -> None:
    """What lies in the spool must be what was logged."""
    experiment = create()
    experiment.log_artifact(io.BytesIO(LARGE), "model.bin")
    [path] = [path for path in Path(home.spool(experiment._writer.source)).iterdir() if path.suffix == ""]
    path.write_bytes(LARGE[:-1] + b"?")
    experiment.save()
    assert chain_of(experiment).document.artifacts["model.bin"].state == "changed"
    assert not Path(
        experiment.origin.store, "vision/digits/experiments", experiment.internal_id, "artifacts/model.bin"
    ).exists()


def test_of_a_file_logged_twice_the_last_is_kept(create: Create, home: Home, store: str) -> None:
    """And the spool holds neither any more."""
    experiment = create()
    for number in range(3):
        experiment.log_artifact(io.BytesIO(LARGE + bytes([number])), "model.bin")
    assert experiment.save().reached
    path = Path(store, "vision/digits/experiments", experiment.internal_id, "artifacts/model.bin")
    assert path.read_bytes() == LARGE + bytes([2])
    assert os.listdir(home.spool(experiment._writer.source)) == []


def test_without_an_agent_and_without_direct_reads_say_what_they_lack(home: Home, store: str) -> None:
    """At once: a warning with positions, and what the store has."""
    experiment = hr.init("vision/digits", home=home.root, store=store).create_experiment(key="a", **QUIET)
    experiment.log_metric("loss", 1, 0.5)
    Direct(home, store, "vision/digits", experiment.internal_id).save(experiment._writer.positions(), 10)
    experiment.log_metric("loss", 2, 0.25)
    with pytest.warns(StaleRead, match="no agent serves"):
        frame = experiment.get_numeric_channels_values("loss")
    assert list(frame["loss"]) == [0.5]
    experiment.stop()


def test_an_empty_store_is_the_homes_own(home: Home) -> None:
    """As a variable that is set to nothing says it."""
    assert hr.init("a/b", home=home.root, store="", direct=True).store == home.default_store


@pytest.mark.parametrize("url", ["nonsense://a", "  "], ids=repr)
def test_an_unknown_store_is_refused_at_init(home: Home, url: str) -> None:
    """By name."""
    with pytest.raises(UnknownStore):
        hr.init("a/b", home=home.root, store=url, direct=True)
