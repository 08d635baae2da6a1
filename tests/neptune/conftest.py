"""Fixtures of the old names. The old script is run by tests, never collected: it says `import neptune`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import headrace as hr
from headrace import neptune
from headrace.experiment import alive
from headrace_proto.home import Home

collect_ignore = ["old_script.py"]


@pytest.fixture
def project(home: Home, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[neptune.Project]:
    """What `neptune.init` gives, over a store that answers at once; in an empty working folder."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(neptune, "session", None)
    monkeypatch.setattr(neptune, "project", None)
    backend = neptune.Backend(session=hr.Session(home.root, store, direct=True))
    yield neptune.init("neptune-ai/sandbox", backend=backend)
    for experiment in alive():
        experiment.stop()


@pytest.fixture
def experiment(project: neptune.Project) -> neptune.experiments.Experiment:
    """One that runs, and captures nothing."""
    return project.create_experiment(
        "mlp", params={"lr": 0.5}, upload_source_files=[], upload_stdout=False, upload_stderr=False
    )


def native(experiment: neptune.experiments.Experiment) -> hr.Experiment:
    """What stands behind an experiment that runs."""
    assert isinstance(experiment._handle, hr.Experiment)
    return experiment._handle
