"""Headrace: log experiments from a training loop without ever waiting, and read them as open files.

import headrace as hr

exp = hr.init("vision/digits").create_experiment(name="mlp", params={"lr": 1e-3})
exp.log_metric("loss", 0.5)
exp.stop()
"""

from __future__ import annotations

from headrace import errors
from headrace.api import init
from headrace.attaching import attach
from headrace.buffering import buffered
from headrace.experiment import Experiment
from headrace.project import Project
from headrace.waiting import Receipt

__version__ = "0.1.0"

__all__ = ["Experiment", "Project", "Receipt", "__version__", "attach", "buffered", "errors", "init"]
