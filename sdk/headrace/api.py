"""The module's own functions: the way in, and the calls of the current project and experiment.

The current project is the one that was opened last. The current experiment is the one that began last and has not ended: they
are a stack, so that an experiment within another one gives back what was current before it.
"""

from __future__ import annotations

from headrace import ends
from headrace.experiment import Experiment
from headrace.sending import ABSENT
from headrace.session import Session, project_of_environment
from headrace_proto.errors import NoExperiment, NoProject

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping
    from typing import Any

    from headrace.project import Project
    from headrace.reading import StoredExperiment

_session: Session | None = None
_project: Project | None = None


def init(
    name: str | None = None,
    home: str | os.PathLike[str] | None = None,
    store: str | os.PathLike[str] | None = None,
    direct: bool = False,
    *,
    author: str | None = None,
) -> Project:
    """Open the project `workspace/name`, and make it the current one. Creates nothing and connects to nothing.

    Args:
        name: Two parts of letters, digits, '.', '_' and '-', for example "vision/digits"; HEADRACE_PROJECT by default.
        home: The folder for journals, shared with the node's agent; HEADRACE_HOME, or ~/.headrace, by default. On a local disk.
        store: Where experiments are read from: a folder or an fsspec URL; HEADRACE_STORE, or the home's own store, by default.
        direct: Store without an agent: `wait`, `save`, reads and `stop` bring what this process logged into the store themselves.
        author: Whose experiments are created, unless they say otherwise.

    Raises:
        InvalidName: `name` is not of that form, or there is none.
        UnknownStore: with `direct`, `store` has a protocol that is not known. (Otherwise the first read says so.)
    """
    global _session, _project
    session = Session(home, store, direct, author=author)
    project = session.get_project(project_of_environment() if name is None else name)
    _session, _project = session, project
    return project


def set_project(name: str) -> Project:
    """Make `workspace/name` the current project, with the home and store of the one before; see `init`."""
    global _project
    _project = _current_session().get_project(name)
    return _project


def get_project(name: str) -> Project:
    """The project `workspace/name`, with the home and store of the current one, which stays current."""
    return _current_session().get_project(name)


def get_projects(namespace: str | None = None) -> dict[str, Project]:
    """The projects that the store has, by their full ids; of one workspace, if it is named."""
    return _current_session().get_projects(namespace)


def _current_session() -> Session:
    global _session
    if _session is None:
        _session = Session()
    return _session


def current_project() -> Project:
    """The project opened last; the one of HEADRACE_PROJECT when none was. Raises `NoProject`."""
    if _project is not None:
        return _project
    try:
        name = project_of_environment()
    except ValueError as error:
        raise NoProject(f"no project is open: {error}") from None
    return set_project(name)


# -- The current experiment ------------------------------------------------------------------------------------------------


def create_experiment(*args: Any, **kwargs: Any) -> Experiment:
    """Begin an experiment of the current project; see `Project.create_experiment`. It is the current one until it ends.

    Raises `NoProject` when no project was opened, else what that raises.
    """
    return current_project().create_experiment(*args, **kwargs)


def get_experiment(id: str | None = None) -> Experiment | StoredExperiment:
    """The current experiment; or the stored one of the current project with this id. Raises `NoExperiment`."""
    return current() if id is None else current_project().get_experiment(id)


def current() -> Experiment:
    """The experiment that began last and has not ended. Raises `NoExperiment` when there is none in this process."""
    for experiment in reversed(tuple(ends.live.values())):
        if isinstance(experiment, Experiment):
            return experiment
    raise NoExperiment("no experiment runs in this process: call create_experiment(), or attach() to one")


def log_metric(log_name: str, x: Any, y: Any = ABSENT, timestamp: float | None = None, *, step: Any = None) -> None:
    """Log a number to the current experiment; see `Experiment.log_metric`."""
    # each overload takes some of the arguments; which were given is found out there
    current().log_metric(log_name, x, y, timestamp, step=step)  # type: ignore[call-overload]


def send_metric(channel_name: str, x: Any, y: Any = ABSENT, timestamp: float | None = None) -> None:
    """`log_metric`, as Neptune also called it."""
    current().send_metric(channel_name, x, y, timestamp)


def log_metrics(values: Mapping[str, Any], step: Any = None, timestamp: float | None = None) -> None:
    """Log several numbers to the current experiment; see `Experiment.log_metrics`."""
    current().log_metrics(values, step, timestamp)


def log_text(log_name: str, x: Any, y: Any = ABSENT, timestamp: float | None = None, *, step: Any = None) -> None:
    """Log a text to the current experiment; see `Experiment.log_text`."""
    current().log_text(log_name, x, y, timestamp, step=step)  # type: ignore[call-overload]  # as above


def send_text(channel_name: str, x: Any, y: Any = ABSENT, timestamp: float | None = None) -> None:
    """`log_text`, as Neptune also called it."""
    current().send_text(channel_name, x, y, timestamp)


def log_image(
    log_name: str,
    x: Any,
    y: Any = ABSENT,
    image_name: str | None = None,
    description: str | None = None,
    timestamp: float | None = None,
    *,
    step: Any = None,
) -> None:
    """Log an image to the current experiment; see `Experiment.log_image`."""
    # as above
    current().log_image(log_name, x, y, image_name, description, timestamp, step=step)  # type: ignore[call-overload]


def send_image(
    channel_name: str,
    x: Any,
    y: Any = ABSENT,
    name: str | None = None,
    description: str | None = None,
    timestamp: float | None = None,
) -> None:
    """`log_image`, as Neptune also called it."""
    current().send_image(channel_name, x, y, name, description, timestamp)


def reset_log(log_name: str) -> None:
    """Hide what a channel of the current experiment holds; see `Experiment.reset_log`."""
    current().reset_log(log_name)


def log_artifact(artifact: Any, destination: str | None = None) -> None:
    """Log a file to the current experiment; see `Experiment.log_artifact`."""
    current().log_artifact(artifact, destination)


def send_artifact(artifact: Any, destination: str | None = None) -> None:
    """`log_artifact`, as Neptune also called it."""
    current().log_artifact(artifact, destination)


def delete_artifacts(path: str | Iterable[str]) -> None:
    """Delete artifacts of the current experiment; see `Experiment.delete_artifacts`."""
    current().delete_artifacts(path)


def set_property(key: str, value: Any) -> None:
    """Set a property of the current experiment to the text of `value`."""
    current().set_property(key, value)


def remove_property(key: str) -> None:
    """Remove a property of the current experiment."""
    current().remove_property(key)


def append_tag(tag: str | Iterable[str], *tags: str) -> None:
    """Add tags to the current experiment; see `Experiment.append_tag`."""
    current().append_tag(tag, *tags)


def append_tags(tag: str | Iterable[str], *tags: str) -> None:
    """`append_tag`, as Neptune also calls it."""
    current().append_tag(tag, *tags)


def remove_tag(tag: str) -> None:
    """Remove a tag from the current experiment."""
    current().remove_tag(tag)


def stop(exc_tb: str | None = None) -> None:
    """End the current experiment, so that the one before it is current again; see `Experiment.stop`."""
    current().stop(exc_tb)
