"""Projects: where experiments are created and found, and the stack of those that run."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from glob import glob, has_magic
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from headrace.neptune import git_info as git
from headrace.neptune import notebook
from headrace.neptune.exceptions import NeptuneNoExperimentContextException
from headrace.neptune.experiments import Experiment
from headrace.neptune.translation import old_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from logging import Logger

    import pandas as pd

    from headrace.neptune.backend import Backend
    from headrace.project import Project as Native
    from headrace.reading import StoredExperiment

    Several: TypeAlias = str | list[str] | None

NOTEBOOK_ID_VARIABLE: Final = "NEPTUNE_NOTEBOOK_ID"
NOTEBOOK_PATH_VARIABLE: Final = "NEPTUNE_NOTEBOOK_PATH"
_logger = logging.getLogger("neptune.projects")


class Project:
    """A project. Made by `neptune.init`, `Session.get_project` and `Session.get_projects`."""

    def __init__(self, backend: Backend, internal_id: str, namespace: str, name: str) -> None:
        self._backend: Final = backend
        self.internal_id: Final = internal_id
        self.namespace: Final = namespace
        self.name: Final = name
        self._native: Final[Native] = backend.session.get_project(self.full_id)
        self._experiments_stack: list[Experiment] = []
        self._unlisted: list[Experiment] = []  # of this process, which lists may not show as they are now

    @property
    def full_id(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"

    def __repr__(self) -> str:
        return f"Project({self.full_id})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Project):
            return NotImplemented
        return self._native == other._native

    def __hash__(self) -> int:
        return hash(self._native)

    # -- Reading ---------------------------------------------------------------------------------------------------------

    @old_errors()
    def get_members(self) -> list[str]:
        """Who has experiments here."""
        self._catch_up()
        return self._native.get_members()

    @old_errors()
    def get_experiments(
        self,
        id: Several = None,
        state: Several = None,
        owner: Several = None,
        tag: Several = None,
        min_running_time: float | None = None,
    ) -> list[Experiment]:
        """The stored experiments that meet every criterion: any of several ids, states, owners; all of several tags; seconds."""
        self._catch_up()
        return [self._found(one) for one in self._native.get_experiments(id, state, owner, tag, min_running_time)]

    def _found(self, stored: StoredExperiment) -> Experiment:
        return Experiment(self._backend, self, None, stored.internal_id, handle=stored)

    @old_errors()
    def get_leaderboard(
        self,
        id: Several = None,
        state: Several = None,
        owner: Several = None,
        tag: Several = None,
        min_running_time: float | None = None,
    ) -> pd.DataFrame:
        """The same experiments as a DataFrame: system properties, `channel_...`, `parameter_...` (as text), `property_...`."""
        self._catch_up()
        board = self._native.get_leaderboard(id, state, owner, tag, min_running_time)
        for column in board.columns:
            if column.startswith("parameter_"):
                board[column] = _as_text(board[column])
        return board

    def _catch_up(self) -> None:
        """Wait until the store, and with it its lists, has what this process has logged, at most HEADRACE_READ_S (5 s) each.

        The old client's `stop` returned when the server had everything: scripts list what they have just stopped.
        """
        for experiment in tuple(self._unlisted):
            if experiment.settle():
                _remove(self._unlisted, experiment)

    def _expect(self, experiment: Experiment) -> None:
        """This process logs to it: lists wait for that."""
        if not any(one is experiment for one in self._unlisted):
            self._unlisted.append(experiment)

    # -- Creating --------------------------------------------------------------------------------------------------------

    @old_errors()
    def create_experiment(
        self,
        name: str | None = None,
        description: str | None = None,
        params: Mapping[str, Any] | None = None,
        properties: Mapping[str, Any] | None = None,
        tags: list[str] | None = None,
        upload_source_files: str | list[str] | None = None,
        abort_callback: Callable[[], Any] | None = None,
        logger: Logger | None = None,
        upload_stdout: bool = True,
        upload_stderr: bool = True,
        send_hardware_metrics: bool = True,
        run_monitoring_thread: bool = True,
        handle_uncaught_exceptions: bool = True,
        git_info: git.GitInfo | None = None,
        hostname: str | None = None,
        notebook_id: str | None = None,
        notebook_path: str | None = None,
    ) -> Experiment:
        """Begin an experiment; it is the current one until it stops. The arguments are those of `headrace.Project`'s.

        Raises `ExperimentValidationError`. A source file that does not exist is left out, with a warning.
        """
        handle = self._native.create_experiment(
            name,
            description,
            params,
            properties,
            tags,
            _existing(upload_source_files),
            abort_callback,
            logger,
            upload_stdout,
            upload_stderr,
            send_hardware_metrics,
            run_monitoring_thread,
            handle_uncaught_exceptions,
            git.known(git_info) if isinstance(git_info, git.GitInfo) else git_info,
            hostname,
            notebook_id if notebook_id is not None else os.environ.get(NOTEBOOK_ID_VARIABLE),
            notebook_path if notebook_path is not None else os.environ.get(NOTEBOOK_PATH_VARIABLE),
        )
        experiment = Experiment(self._backend, self, None, handle.internal_id, handle=handle)
        self._push_new_experiment(experiment)
        self._expect(experiment)
        print(self._get_experiment_link(experiment))  # noqa: T201 - where the old client printed its link
        return experiment

    def _get_experiment_link(self, experiment: Experiment) -> str:
        return f"headrace show {experiment.internal_id} --project {self.full_id}"

    @old_errors()
    def create_notebook(self) -> notebook.Notebook:
        """A new notebook of this project."""
        return notebook.of(self._backend, self, self._native.create_notebook())

    @old_errors()
    def get_notebook(self, notebook_id: str) -> notebook.Notebook:
        """The notebook with this id. Raises `NotebookNotFound`."""
        return notebook.of(self._backend, self, self._native.get_notebook(notebook_id))

    # -- The current experiment ------------------------------------------------------------------------------------------

    def _get_current_experiment(self) -> Experiment:
        try:
            return self._experiments_stack[-1]
        except IndexError:
            raise NeptuneNoExperimentContextException from None

    def _push_new_experiment(self, experiment: Experiment) -> Experiment:
        self._experiments_stack.append(experiment)
        return experiment

    def _remove_stopped_experiment(self, experiment: Experiment) -> None:
        _remove(self._experiments_stack, experiment)


def _remove(experiments: list[Experiment], experiment: Experiment) -> None:
    """In place: another thread may be adding one."""
    with suppress(ValueError):
        experiments.remove(experiment)


def _existing(given: str | list[str] | None) -> str | list[str] | None:
    """What is there of the source files that were named: the old client looked for all of them as for patterns."""
    if given is None:
        return None
    wanted = [given] if isinstance(given, str) else given
    there = [one for one in wanted if has_magic(one) or glob(os.path.expanduser(one))]
    missing = [one for one in wanted if one not in there]
    if missing:
        _logger.warning("source files that do not exist were left out: %s", ", ".join(map(str, missing)))
    return there


def _as_text(column: pd.Series[Any]) -> pd.Series[Any]:
    """Values as the old leaderboard had them: their text. Whole numbers stand as such where others' absence made them floats."""
    padded = column.dtype.kind == "f" and bool(column.isna().any())

    def text(value: Any) -> str:
        return str(int(value)) if padded and float(value).is_integer() else str(value)

    return column.map(text, na_action="ignore").astype(object)
