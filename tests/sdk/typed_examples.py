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


def the_surface(folder: Path) -> None:
    """The module's own functions, and a stored experiment's edits."""
    assert_type(hr.init("vision/digits", home=folder / "home", store=folder / "store", direct=True), hr.Project)
    exp = hr.create_experiment(name="mlp", upload_source_files=[], git_info=False)
    assert_type(exp, hr.Experiment)
    hr.log_metric("loss", 3, 0.5)
    hr.log_text(log_name="notes", x="hello", timestamp=1_560_430_912)
    hr.append_tag("a", "b")
    hr.stop()
    projects = hr.get_projects("vision")
    assert_type(projects, dict[str, hr.Project])
    [stored] = projects["vision/digits"].get_experiments(tag=["a", "b"])
    with hr.buffered():
        stored.set_property("best", True)
        stored.remove_tag("b")
        stored.log_artifact(__file__, "code/example.py")
    assert_type(stored.get_properties(), dict[str, str])
    assert_type(stored.get_logs(), dict[str, float | str | None])
    assert_type(stored.download_artifacts("code", str(folder), progress=False), str)
    assert_type(projects["vision/digits"].get_members(), list[str])
