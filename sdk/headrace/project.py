"""A project: where experiments are created, and listed."""

from __future__ import annotations

import os
from time import time_ns

from headrace import attaching
from headrace.definition import checked_callback, checked_git, define
from headrace.experiment import Capture, Experiment, alive
from headrace.identity import check_resume, identify
from headrace.live.handle import Origin
from headrace.live.known import Known
from headrace.values import optional_text
from headrace_proto.errors import InvalidValue
from headrace_proto.events import Role
from headrace_proto.ids import project_id
from headrace_proto.names import project_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from logging import Logger
    from typing import Any, Final, Literal

    import pandas as pd

    from headrace.git import GitInfo
    from headrace.identity import Resume
    from headrace.notebook import Notebook
    from headrace.reading import StoredExperiment, StoredProject
    from headrace.reading.criteria import Several
    from headrace_proto.home import Home

    OnError = Literal["raise", "warn"]


class Project:
    """`workspace/name`. Creating experiments in it needs no network; listing them reads the store. Made by `headrace.init`."""

    def __init__(self, name: str, home: Home, store: str, *, direct: bool = False, author: str | None = None) -> None:
        self.name: Final = project_name(name)
        self.home: Final = home
        self.store: Final = store
        self.direct: Final = direct
        self.author: Final = optional_text("the author", author)
        self._stored: StoredProject | None = None

    @property
    def full_id(self) -> str:
        """`workspace/name`, as Neptune calls it."""
        return self.name

    @property
    def namespace(self) -> str:
        """The workspace."""
        return self.name.partition("/")[0]

    @property
    def internal_id(self) -> str:
        """The project's id, 32 hexadecimal digits: made of its name, and so known without any network."""
        return project_id(self.name)

    def __repr__(self) -> str:
        return f"Project({self.name})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Project):
            return NotImplemented
        return (self.name, self.store) == (other.name, other.store)

    def __hash__(self) -> int:
        return hash((self.name, self.store))

    def create_experiment(
        self,
        name: str | None = None,
        description: str | None = None,
        params: Mapping[str, Any] | None = None,
        properties: Mapping[str, Any] | None = None,
        tags: Iterable[str] | None = None,
        upload_source_files: str | Iterable[str] | None = None,
        abort_callback: Callable[[], Any] | None = None,
        logger: Logger | None = None,
        upload_stdout: bool = True,
        upload_stderr: bool = True,
        send_hardware_metrics: bool = True,
        run_monitoring_thread: bool = True,
        handle_uncaught_exceptions: bool = True,
        git_info: GitInfo | bool | None = None,
        hostname: str | None = None,
        notebook_id: str | None = None,
        notebook_path: str | None = None,
        *,
        key: str | None = None,
        resume: Resume = "allow",
        rank: int | None = None,
        label: str | None = None,
        on_error: OnError = "raise",
        author: str | None = None,
    ) -> Experiment:
        """Begin an experiment, and set HEADRACE_EXPERIMENT so that child processes can `headrace.attach()` to it.

        It ends with `stop()`, with a `with` block, or with the process: *succeeded*, or *failed* with the traceback of an exception
        that nobody caught, or *aborted* by Ctrl-C.

        Args:
            name: What people call it; "Untitled" by default.
            description: A longer text.
            params: Numbers, texts, lists and mappings by name; fixed from now on. Secrets are masked (`headrace.secrets`).
            properties: Texts by name; they may change.
            tags: Words of letters, digits and '-'.
            upload_source_files: Names and patterns of source files to keep; by default the script (or notebook) that runs, none for
                `[]`. More than 100 MB are warned about.
            abort_callback: Called without arguments, in a thread of its own, when somebody runs `headrace abort` on the experiment;
                then no signal is sent, and the process ends when it does. Without it the agent sends SIGTERM to the process and its
                children, and SIGKILL to what is left after a while. Either way an end that was asked for is *aborted*.
            logger: A logger whose records become the text channel `logger`.
            upload_stdout: Keep what Python code prints, as the text channel `stdout`. Not in notebooks.
            upload_stderr: Likewise `stderr`.
            send_hardware_metrics: Have the node's agent sample CPU, memory, disk, network and GPUs while this process lives.
            run_monitoring_thread: Without, no thread waits for `headrace abort`: an `abort_callback` is never called, and signals
                are sent as if there were none.
            handle_uncaught_exceptions: Keep the traceback of an exception that ends the process. Without, such an experiment
                is *failed* without one, as soon as the agent sees that its process is gone.
            git_info: What to say of the repository; by default what is found above the script, or the current
                folder; nothing for False.
            hostname: This machine's name, if another one is to be shown.
            notebook_id: The notebook that this experiment is run from; see `create_notebook`. In a store on this machine (or any,
                with `direct=True`) a checkpoint of its file is made; where that fails, a warning says so.
            notebook_path: Where that notebook lies.
            key: The same key in a project is the same experiment, from any rank or restart. "auto" takes the launcher's: torchrun's
                run id, or Slurm's job and step; without a launcher the experiment is a new one.
            resume: With a key: "never" refuses to go on with an experiment that exists, "must" to begin one. Known is what this
                node has seen, and what a store on this machine (or any, with `direct=True`) holds.
            rank: With a key: this process's number, by default RANK (torchrun) or SLURM_PROCID. 0 owns the experiment.
            label: A name by which readers tell this process's points from others'.
            on_error: "warn" to have wrong calls on the experiment warn instead of raise.
            author: Whose experiment it is; by default the project's author.

        Raises:
            InvalidName, InvalidValue: an argument is wrong.
            HomeUnusable: there is no place for a journal.
            ExperimentExists, ExperimentNotFound: `resume` forbids it.
            ArtifactNotFound: a named source file does not exist.
        """
        if on_error not in ("raise", "warn"):
            raise InvalidValue(f"on_error must be 'raise' or 'warn', not {on_error!r:.80}")
        callback, git_info = checked_callback(abort_callback), checked_git(git_info)
        identity = identify(self.name, key, rank, label, hardware=send_hardware_metrics)
        definition = define(
            name,
            description,
            params,
            properties,
            tags,
            author=author if author is not None else self.author,
            hostname=optional_text("hostname", hostname) or os.uname().nodename,
            key=identity.key,
            created_ns=time_ns(),
            notebook_id=notebook_id,
            notebook_path=notebook_path,
        )
        check_resume(resume, self.home, self.name, identity, self.store, direct=self.direct)
        origin = Origin(self.home, self.name, identity.experiment, identity.facts, self.store, self.direct, on_error)
        owns = identity.facts.role == Role.OWNER
        experiment = Experiment(
            origin,
            Known(definition._asdict()),
            definition.events() if owns else (),
            Capture(upload_stdout, upload_stderr, logger, handle_uncaught_exceptions),
        )
        experiment.let_inherit()
        if callback is not None and run_monitoring_thread:
            experiment.watch_for_abort(callback)
        if owns:
            try:
                experiment.note_sources(upload_source_files, notebook_path)
                experiment.note_git(git_info)
                if notebook_id and notebook_path:
                    experiment.note_notebook(notebook_id, notebook_path)
            except BaseException as error:
                experiment.stop(f"not begun: {error}")
                raise
        return experiment

    def attach(
        self, internal_id: str, *, owner: bool = False, rank: int | None = None, label: str | None = None
    ) -> Experiment:
        """Join an experiment of this project, by its internal id, short id or key; see `headrace.attach`.

        One that this node has never seen is joined by its internal id without asking anybody; else the store is asked.
        """
        return attaching.attach_to(
            self.home,
            self.name,
            internal_id,
            owner=owner,
            rank=rank,
            label=label,
            store=self.store,
            direct=self.direct,
        )

    # -- Reading ---------------------------------------------------------------------------------------------------------

    def stored(self) -> StoredProject:
        """The project as the store has it. With `direct=True` what this process logged is stored first.

        Raises `MissingExtra` when the `read` extra is not installed.
        """
        from headrace.reading import StoredProject

        for experiment in alive():
            if self.direct and experiment.project == self.name:
                experiment.save()
        if self._stored is None:
            self._stored = StoredProject(self.store, self.name)
        return self._stored

    def get_members(self) -> list[str]:
        """Who has experiments in the store, sorted: the names that were given or found at creation. Nobody has verified them."""
        return self.stored().get_members()

    def get_experiments(
        self,
        id: Several = None,
        state: Several = None,
        owner: Several = None,
        tag: Several = None,
        min_running_time: float | None = None,
    ) -> list[StoredExperiment]:
        """The experiments in the store that meet every criterion given, in the order of their numbers.

        Args:
            id: A short or internal id, or several, of which any will do.
            state: `running`, `succeeded`, `failed` or `aborted`, or several.
            owner: Who ran it, or several.
            tag: A tag, or several, of which an experiment must have all.
            min_running_time: In seconds.
        """
        return self.stored().get_experiments(id, state, owner, tag, min_running_time)

    def get_leaderboard(
        self,
        id: Several = None,
        state: Several = None,
        owner: Several = None,
        tag: Several = None,
        min_running_time: float | None = None,
    ) -> pd.DataFrame:
        """The same experiments as a DataFrame, one row each: facts, last values, parameters, properties."""
        return self.stored().get_leaderboard(id, state, owner, tag, min_running_time)

    def get_experiment(self, id: str) -> StoredExperiment:
        """The stored experiment with this id, or key, or the beginning of its internal id. Raises `ExperimentNotFound`."""
        return self.stored().get_experiment(id)

    # -- Notebooks -------------------------------------------------------------------------------------------------------

    def create_notebook(self) -> Notebook:
        """A new notebook of this project, in the store. Give its id to `create_experiment(notebook_id=...)`.

        Raises `OSError` where the store cannot be written from here, `MissingExtra` without the `read` extra.
        """
        from headrace import notebook

        return notebook.create(self.store, self.name, self.author)

    def get_notebook(self, notebook_id: str) -> Notebook:
        """The notebook with this id. Raises `NotebookNotFound`."""
        from headrace import notebook

        return notebook.get(self.store, self.name, notebook_id)
