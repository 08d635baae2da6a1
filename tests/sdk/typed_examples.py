"""What users write, as the type checker sees it: checked by `make lint`, run by `test_examples`."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

import numpy as np

import headrace as hr


def readme(folder: Path) -> hr.Receipt:
    """The ten lines of the README."""
    project = hr.init("vision/digits", home=folder)
    exp = project.create_experiment(name="mlp", params={"lr": 1e-3}, tags=["baseline"])
    exp.log_metric("loss", 0.5)
    exp.log_metric("loss", 3, 0.5)
    exp.log_metrics({"loss": 0.5, "acc": 0.9}, step=3)
    exp.log_text("notes", "hello")
    exp.log_image("samples", np.zeros((8, 8)))
    exp.log_artifact(__file__)
    exp.set_property("model", "mlp")
    exp.append_tag("best")
    receipt = exp.wait("journaled", timeout=30)
    exp.stop()
    return receipt


def every_form(folder: Path) -> None:
    """Each overload, and what the answers are."""
    with hr.init("vision/digits", home=folder).create_experiment(
        upload_source_files=["*.py"], key="auto", resume="allow", on_error="warn", git_info=False
    ) as exp:
        assert_type(exp, hr.Experiment)
        exp.log_metric("loss", np.float32(0.5), step=np.int64(3), timestamp=1.7e9)
        exp.log_metric("loss", x=3, y=0.5)
        exp.log_metric("loss", None, True)
        exp.log_text("notes", 3, "hello")
        exp.log_text("notes", "hello", step=3)
        exp.log_image("samples", 3, Path(__file__).read_bytes()[:0] or np.zeros((2, 2, 3)), "name", "description")
        exp.log_image("samples", np.zeros((2, 2)), image_name="name", step=3)
        exp.append_tag("a", "b")
        exp.append_tag(["a", "b"])
        exp.log_parameters({"adam": {"lr": 1e-3}}, flatten="/")
        assert_type(exp.id, str)
        assert_type(exp.get_tags(), list[str])
        assert_type(exp.metrics, dict[str, float])
        assert_type(exp.get_logs(), dict[str, float | str | None])
        with hr.attach(exp.internal_id, label="loader") as loader:
            assert_type(loader, hr.Experiment)
