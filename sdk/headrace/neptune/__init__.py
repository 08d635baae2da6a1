"""The old client's names: `import headrace.neptune as neptune` runs a script that was written for `neptune-client` 0.4.

Nothing is decided here but names, the order of arguments, old exceptions and old rules; the README's table of deviations has the
rest. For scripts and libraries that say `import neptune` themselves: `python -m headrace.neptune train.py`, or, first of all in
the program, `import headrace.neptune; headrace.neptune.install()`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from headrace import __version__
from headrace.neptune import api_exceptions, exceptions, experiments, git_info, notebook, projects, sessions, utils
from headrace.neptune.backend import Backend, HostedNeptuneBackend, OfflineBackend
from headrace.neptune.backend import backend_of as _backend_of
from headrace.neptune.exceptions import (
    NeptuneMissingProjectQualifiedNameException,
    NeptuneUninitializedException,
)
from headrace.neptune.installing import install
from headrace.neptune.projects import Project
from headrace.neptune.sessions import Session
from headrace.session import PROJECT_VARIABLE as _HEADRACE_PROJECT

if TYPE_CHECKING:
    from headrace.neptune.experiments import Experiment

__all__ = [
    "ANONYMOUS",
    "ANONYMOUS_API_TOKEN",
    "Backend",
    "HostedNeptuneBackend",
    "OfflineBackend",
    "Project",
    "Session",
    "__version__",
    "api_exceptions",
    "append_tag",
    "append_tags",
    "create_experiment",
    "delete_artifacts",
    "exceptions",
    "experiments",
    "get_experiment",
    "git_info",
    "init",
    "install",
    "log_artifact",
    "log_image",
    "log_metric",
    "log_text",
    "notebook",
    "project",
    "projects",
    "remove_property",
    "remove_tag",
    "send_artifact",
    "send_image",
    "send_metric",
    "send_text",
    "session",
    "sessions",
    "set_project",
    "set_property",
    "stop",
    "utils",
]

ANONYMOUS: Final = "ANONYMOUS"
"""What scripts pass as a token to use the old server as nobody in particular."""
ANONYMOUS_API_TOKEN: Final = ANONYMOUS
_PROJECT_VARIABLE: Final = "NEPTUNE_PROJECT"

session: Session | None = None
"""What `init` made."""
project: Project | None = None
"""The project opened last."""


def init(
    project_qualified_name: str | None = None, api_token: str | None = None, proxies: Any = None, backend: Any = None
) -> Project:
    """Open a project, the current one from now on. Connects to nothing.

    Args:
        project_qualified_name: `WORKSPACE/PROJECT`; by default what NEPTUNE_PROJECT or HEADRACE_PROJECT says.
        api_token: Not needed, not kept.
        proxies: Likewise.
        backend: Likewise: HEADRACE_HOME and HEADRACE_STORE say where experiments are.

    Raises:
        NeptuneMissingProjectQualifiedNameException: no project is named.
        NeptuneIncorrectProjectQualifiedNameException: the name is not of that form.
        InvalidNeptuneBackend: NEPTUNE_BACKEND names a backend that there never was.
    """
    global session, project
    name = project_qualified_name or os.environ.get(_PROJECT_VARIABLE) or os.environ.get(_HEADRACE_PROJECT)
    opened = Session(backend=_backend_of(backend, api_token, proxies))
    if name is None:
        raise NeptuneMissingProjectQualifiedNameException
    session, project = opened, opened.get_project(name)
    return project


def set_project(project_qualified_name: str) -> Project:
    """Make another project the current one. Raises what `init` raises."""
    global project
    if session is None:
        return init(project_qualified_name)
    project = session.get_project(project_qualified_name)
    return project


def create_experiment(*args: Any, **kwargs: Any) -> Experiment:
    """Begin an experiment of the current project; see `Project.create_experiment`."""
    return _current_project().create_experiment(*args, **kwargs)


def _current_project() -> Project:
    if project is None:
        raise NeptuneUninitializedException
    return project


def get_experiment() -> Experiment:
    """The experiment of the current project that began last and has not been stopped.

    Raises `NeptuneUninitializedException`, `NeptuneNoExperimentContextException`.
    """
    return _current_project()._get_current_experiment()


# -- The current experiment's calls ----------------------------------------------------------------------------------------


def append_tag(tag: str | list[str], *tags: str) -> None:
    """See `Experiment.append_tag`."""
    get_experiment().append_tag(tag, *tags)


def append_tags(tag: str | list[str], *tags: str) -> None:
    """See `Experiment.append_tag`."""
    get_experiment().append_tag(tag, *tags)


def remove_tag(tag: str) -> None:
    """See `Experiment.remove_tag`."""
    get_experiment().remove_tag(tag)


def set_property(key: str, value: Any) -> None:
    """See `Experiment.set_property`."""
    get_experiment().set_property(key, value)


def remove_property(key: str) -> None:
    """See `Experiment.remove_property`."""
    get_experiment().remove_property(key)


def log_metric(log_name: str, x: Any, y: Any = None, timestamp: float | None = None) -> None:
    """See `Experiment.log_metric`."""
    get_experiment().log_metric(log_name, x, y, timestamp)


def send_metric(channel_name: str, x: Any, y: Any = None, timestamp: float | None = None) -> None:
    """See `Experiment.log_metric`."""
    get_experiment().log_metric(channel_name, x, y, timestamp)


def log_text(log_name: str, x: Any, y: Any = None, timestamp: float | None = None) -> None:
    """See `Experiment.log_text`."""
    get_experiment().log_text(log_name, x, y, timestamp)


def send_text(channel_name: str, x: Any, y: Any = None, timestamp: float | None = None) -> None:
    """See `Experiment.log_text`."""
    get_experiment().log_text(channel_name, x, y, timestamp)


def log_image(
    log_name: str,
    x: Any,
    y: Any = None,
    image_name: str | None = None,
    description: str | None = None,
    timestamp: float | None = None,
) -> None:
    """See `Experiment.log_image`."""
    get_experiment().log_image(log_name, x, y, image_name, description, timestamp)


def send_image(
    channel_name: str,
    x: Any,
    y: Any = None,
    name: str | None = None,
    description: str | None = None,
    timestamp: float | None = None,
) -> None:
    """See `Experiment.log_image`."""
    get_experiment().log_image(channel_name, x, y, name, description, timestamp)


def log_artifact(artifact: Any, destination: str | None = None) -> None:
    """See `Experiment.log_artifact`."""
    get_experiment().log_artifact(artifact, destination)


def send_artifact(artifact: Any, destination: str | None = None) -> None:
    """See `Experiment.log_artifact`."""
    get_experiment().log_artifact(artifact, destination)


def delete_artifacts(path: str | list[str]) -> None:
    """See `Experiment.delete_artifacts`."""
    get_experiment().delete_artifacts(path)


def stop(traceback: str | None = None) -> None:
    """See `Experiment.stop`."""
    get_experiment().stop(traceback)
