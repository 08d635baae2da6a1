"""`headrace verify`: a proof that people read, machines parse, and a job's exit code rests on."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

import headrace as hr
from headrace.command.main import invoke


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A store with one experiment that has ended and one that runs."""
    project = hr.init("vision/digits", home=str(tmp_path / "home"), store=str(tmp_path / "store"), direct=True)
    with project.create_experiment(name="done", params={"lr": 0.1}) as experiment:
        for step in range(50):
            experiment.log_metric("loss", step, 1 / (step + 1))
        experiment.log_artifact(io.BytesIO(b"weights"), "model.bin")
    running = project.create_experiment(name="runs")
    running.log_metric("loss", 0, 1.0)
    running.save()
    return str(tmp_path / "store")


def test_a_complete_experiment_is_proved(store: str, said: Callable[..., str]) -> None:
    """The table shows positions of each source and the digest; JSON has all of it; the exit code is 0."""
    text = said("verify", "DIG-1", "--store", store)
    for words in ("owner", "closed, succeeded", "[0, ", "loss", "50", "digest ", "complete"):
        assert words in text
    found = json.loads(said("verify", "DIG-1", "--store", store, "--json"))
    assert (found["verdict"], found["reasons"], found["gaps"]) == ("complete", [], {})
    assert found["digest"] in text
    [source] = found["sources"].values()
    assert source["stored"] == [0, source["bytes"]]
    fast = json.loads(said("verify", "DIG-1", "--store", store, "--json", "--fast"))
    assert (fast["verdict"], fast["digest"]) == ("complete", None)


def test_what_runs_and_what_is_damaged_exits_with_1(store: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A job that deletes its local data after `verify` is stopped by the exit code; the reasons say by what."""
    assert invoke(["verify", "DIG-2", "--store", store]) == 1
    assert "running" in capfd.readouterr().out
    [model] = Path(store).rglob("artifacts/model.bin")
    model.write_bytes(b"Weights")
    assert invoke(["verify", "DIG-1", "--store", store, "--fast"]) == 0
    capfd.readouterr()
    assert invoke(["verify", "DIG-1", "--store", store]) == 1
    out = capfd.readouterr().out
    assert "incomplete" in out
    assert "model.bin" in out
    assert not any(line.startswith("digest ") for line in out.splitlines())
