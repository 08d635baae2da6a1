"""The live experiment: what a training loop holds."""

from __future__ import annotations

import os

from headrace import ends
from headrace.identity import store_at_hand
from headrace.live.facts import Facts
from headrace.live.files import Files
from headrace.live.life import Life
from headrace.live.reads import Reads
from headrace.live.series import Series
from headrace_proto.errors import HeadraceError, InvalidValue
from headrace_proto.events import Kind, Outcome, Role
from headrace_proto.names import artifact_path
from headrace_proto.record import Record
from headrace_proto.warning import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Final

    from headrace.aborting import AbortWatch
    from headrace.git import GitInfo, Inquiry
    from headrace.live.handle import Origin
    from headrace.live.known import Known
    from headrace_proto.journal import SourceFacts


class Capture(Record):
    """What is recorded of a process without being asked for."""

    stdout: bool = False
    stderr: bool = False
    logger: Any = None
    exceptions: bool = True


class Experiment(Series, Facts, Files, Reads, Life):
    """One experiment, being logged to by this process. Made by `Project.create_experiment` and `headrace.attach`.

    Every call writes to this process's own journal and returns: it needs no network, no server and no thread. What it has written
    survives the process. All calls may be made from any thread and from signal handlers; a forked child, or a process that a
    handle is pickled to, logs to the same experiment as a source of its own.
    """

    def __init__(
        self,
        origin: Origin,
        known: Known,
        definition: Iterable[tuple[Any, ...]] = (),
        capture: Capture = Capture(),  # noqa: B008 - immutable
    ) -> None:
        if capture.logger is not None and not hasattr(capture.logger, "addHandler"):
            raise InvalidValue(
                f"logger must be a logging.Logger, not {capture.logger!r:.80}: logging.getLogger(name) gives one"
            )
        events: Final = tuple(definition)

        def first_events(facts: SourceFacts) -> Iterable[tuple[Any, ...]]:
            if facts.role == Role.OWNER:
                return events
            ends.finish_with_multiprocessing()  # a forked child has logged for the first time
            return ()

        super().__init__(origin, known, first_events)
        self._handle_exceptions: Final = capture.exceptions
        self._process: Final = os.getpid()  # a forked child has nothing to say of the code
        self._inquiry: Inquiry | None = None
        self._git: dict[str, Any] = {}
        self._releases: list[Callable[[], None]] = []
        self._abort_watch: AbortWatch | None = None
        self._inherited: str | None = None
        self._inherited_before: str | None = None
        ends.enter(self)
        self._capture(capture)

    def _capture(self, capture: Capture) -> None:
        from functools import partial

        from headrace.capture import CAPTURE_VARIABLE
        from headrace.capture.notebook import in_notebook

        kept_already = os.environ.get(CAPTURE_VARIABLE) == "fd"
        for name in ("stdout", "stderr"):
            if getattr(capture, name) and not kept_already and not in_notebook():
                from headrace.capture import streams

                self._releases.append(streams.capture(name, partial(self._log_line, name)))
        if capture.logger is not None:
            from headrace.capture.logs import capture_logger

            self._releases.append(capture_logger(capture.logger, partial(self._log_line, "logger")))

    def let_inherit(self) -> None:
        """Name this experiment to the processes that this one starts, until it ends."""
        from headrace.inheritance import VARIABLE, Inherited

        self._inherited = str(Inherited.of(self.origin, self.source))
        self._inherited_before = os.environ.get(VARIABLE)
        os.environ[VARIABLE] = self._inherited

    def _let_inherit_no_more(self) -> None:
        from headrace.inheritance import VARIABLE

        if self._inherited is None or os.environ.get(VARIABLE) != self._inherited:
            return
        if self._inherited_before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = self._inherited_before

    def watch_for_abort(self, callback: Callable[[], Any]) -> None:
        """Have `callback` called, in a thread of its own, when somebody aborts the experiment."""
        from headrace.aborting import AbortWatch

        self._abort_watch = AbortWatch(self._writer, callback)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Experiment):
            return NotImplemented
        return (self.project, self.internal_id) == (other.project, other.internal_id)

    def __hash__(self) -> int:
        return hash((self.project, self.internal_id))

    # -- What is known of the code -----------------------------------------------------------------------------------------

    def note_sources(self, patterns: str | Iterable[str] | None, notebook_path: str | None = None) -> None:
        """Keep the run's source files, and which script it is; without one, the notebook that it is run from."""
        from headrace.sources import Keeping, entry_point, source_files

        script = entry_point()
        if script:
            self._event(Kind.FACTS, {"entrypoint": os.path.basename(script)})
        files = source_files(patterns, [self.origin.home.named, self.origin.store], notebook_path)
        keeping = Keeping(files)
        for file in files:
            self._keep_path(file.path, artifact_path(file.name), "source")
            keeping.kept(file)

    def note_notebook(self, notebook_id: str, path: str) -> None:
        """Make a checkpoint of the notebook's file as it is now, and keep its id. Only in a store that asks for no network.

        Where there can be none it says why: an experiment does not fail for that.
        """
        if not store_at_hand(self.origin.store, direct=self.origin.direct):
            return
        try:
            from headrace import notebook

            kept = notebook.get(self.origin.store, self.project, notebook_id).add_checkpoint(path)
        except (HeadraceError, OSError) as error:
            warn(f"no checkpoint of the notebook {path!r} was made: {error}")
            return
        self._event(Kind.FACTS, {"checkpoint_id": kept.id})

    def note_git(self, given: GitInfo | bool | None) -> None:
        """Keep what is known of the repository: what is `given`, else, unless that is False, what lies above the script."""
        if given is False:
            return
        from headrace import git

        info, self._inquiry = git.look(given if isinstance(given, git.GitInfo) else None)
        self._git = {name: value for name, value in info._asdict().items() if value is not None}
        if self._git:
            self._event(Kind.FACTS, {"git": self._git})

    def _before_end(self) -> None:
        self._let_inherit_no_more()
        for release in self._releases:
            release()
        self._releases = []
        if self._inquiry is not None and self._process == os.getpid():
            answer = self._inquiry.answer()
            self._inquiry.close()
            self._inquiry = None
            if answer:
                self._event(Kind.FACTS, {"git": {**self._git, **answer}})

    # -- The end -----------------------------------------------------------------------------------------------------------

    def finish_with_process(self, ending: ends.Ending) -> None:
        """As `Life`, but when exceptions are not to be handled, one leaves the source unclosed, as a kill would."""
        if ending.outcome == Outcome.SUCCEEDED or self._handle_exceptions:
            super().finish_with_process(ending)
        else:
            self._silent = True
            self._end(ending, close=False)

    def record_exception(self, traceback: str) -> None:
        """As `Life`, when exceptions are to be handled."""
        if self._handle_exceptions:
            super().record_exception(traceback)

    def _end(self, ending: ends.Ending, *, close: bool = True) -> None:
        super()._end(ending, close=close)
        if self._abort_watch is not None:
            self._abort_watch.stop()
            self._abort_watch = None
        self._point = self._row = self._point_at = self._refuse_stopped


def running(internal_id: str | None) -> Experiment | None:
    """The first handle of this process on the experiment, if it has one."""
    return next((experiment for experiment in alive() if experiment.internal_id == internal_id), None)


def alive() -> list[Experiment]:
    """The handles by which this process logs, in the order of their beginning."""
    return [experiment for experiment in tuple(ends.live.values()) if isinstance(experiment, Experiment)]
