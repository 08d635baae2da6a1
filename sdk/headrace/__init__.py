"""Headrace: log experiments from a training loop without ever waiting, and read them as open files.

import headrace as hr

exp = hr.init("vision/digits").create_experiment(name="mlp", params={"lr": 1e-3})
exp.log_metric("loss", 0.5)
exp.stop()
"""

from __future__ import annotations

from headrace import errors
from headrace.api import (
    append_tag,
    append_tags,
    create_experiment,
    delete_artifacts,
    get_experiment,
    get_project,
    get_projects,
    init,
    log_artifact,
    log_image,
    log_metric,
    log_metrics,
    log_text,
    remove_property,
    remove_tag,
    reset_log,
    send_artifact,
    send_image,
    send_metric,
    send_text,
    set_project,
    set_property,
    stop,
)
from headrace.attaching import attach
from headrace.buffering import buffered
from headrace.experiment import Experiment
from headrace.project import Project
from headrace.session import Session
from headrace.waiting import Receipt

__version__ = "0.1.0"

__all__ = [
    "Experiment",
    "Project",
    "Receipt",
    "Session",
    "__version__",
    "append_tag",
    "append_tags",
    "attach",
    "buffered",
    "create_experiment",
    "delete_artifacts",
    "errors",
    "get_experiment",
    "get_project",
    "get_projects",
    "init",
    "log_artifact",
    "log_image",
    "log_metric",
    "log_metrics",
    "log_text",
    "remove_property",
    "remove_tag",
    "reset_log",
    "send_artifact",
    "send_image",
    "send_metric",
    "send_text",
    "set_project",
    "set_property",
    "stop",
]
