"""Fixtures of the SDK's live side."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import headrace as hr
from headrace.experiment import alive
from headrace_proto.home import Home
from tests.quiet import QUIET

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def project(home: Home) -> Iterator[hr.Project]:
    """A project whose experiments are all stopped at the test's end."""
    yield hr.init("vision/digits", home=home.root)
    for experiment in alive():
        experiment.stop()


@pytest.fixture
def create(project: hr.Project) -> Callable[..., hr.Experiment]:
    """Creates experiments that capture nothing but what a test asks for."""
    return lambda **given: project.create_experiment(**{**QUIET, "hostname": "node-7", **given})


@pytest.fixture
def experiment(create: Callable[..., hr.Experiment]) -> hr.Experiment:
    """A live experiment."""
    return create(name="mlp")


@pytest.fixture
def run_script(tmp_path: Path, home: Home) -> Run:
    """Runs a script in a process of its own, with `project` and `exp` made, as a user would write them."""
    beginning = (
        "import headrace as hr, os, sys\n"
        "project = hr.init('vision/digits')\n"
        "exp = project.create_experiment({options})\n"
    )

    def run(body: str, options: str = "upload_source_files=[], git_info=False", **environment: str) -> Any:
        script = tmp_path / "train.py"
        script.write_text((beginning.format(options=options) if options != "none" else "") + body)
        return subprocess.run(
            [sys.executable, str(script)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "HEADRACE_HOME": home.root, **environment},
        )

    return run
