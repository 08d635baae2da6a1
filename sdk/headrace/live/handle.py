"""The ground of a live experiment: its journal, and how a call that could not be logged says so."""

from __future__ import annotations

from functools import wraps
from time import time_ns

from headrace.live.stamps import stamp_ns
from headrace.spool import Spool
from headrace_proto.errors import ExperimentStopped
from headrace_proto.events import ChannelType, Kind
from headrace_proto.journal import JournalWriter, SourceFacts
from headrace_proto.record import Record
from headrace_proto.warning import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Concatenate, Final, ParamSpec, TypeVar

    from headrace.live.known import Known
    from headrace.reading import StoredExperiment
    from headrace_proto.home import Home
    from headrace_proto.journal.tape import FirstEvents

    _P = ParamSpec("_P")
    _H = TypeVar("_H", bound="Handle")


class Origin(Record):
    """Where a handle's events go, and whose they are."""

    home: Home
    project: str
    experiment: str
    facts: SourceFacts
    store: str
    direct: bool = False
    on_error: str = "raise"


class Handle:
    """What the groups of an experiment's calls share. Opens the journal, so it raises `HomeUnusable` when there can be none."""

    def __init__(self, origin: Origin, known: Known, first_events: FirstEvents | None = None) -> None:
        self.origin: Final = origin
        self._known: Final = known
        self._writer: Final = JournalWriter(origin.home, origin.project, origin.experiment, origin.facts, first_events)
        self._spool: Final = Spool(origin.home)
        self._stop_told = False
        self._silent = False  # the process is ending: nobody is there to be told anything

    @property
    def source(self) -> str:
        """The id of this process's source, under which the store and `headrace status` list it."""
        return self._writer.source

    @property
    def internal_id(self) -> str:
        """The experiment's id, known from the first moment and without any network: 32 hexadecimal digits."""
        return self.origin.experiment

    @property
    def project(self) -> str:
        """The `workspace/name` of its project."""
        return self.origin.project

    def _refuse(self, error: Exception) -> None:
        """A call could not be logged: raise `error`, or warn where that was asked for.

        A call after `stop()` raises once, so that the mistake is seen, and then only warns, so that a loop's end survives it.
        """
        if isinstance(error, ExperimentStopped):
            if self._silent:
                return
            told, self._stop_told = self._stop_told, True
            if not told and self.origin.on_error == "raise":
                raise error
            warn(str(error))
        elif self.origin.on_error == "raise":
            raise error
        else:
            warn(str(error))

    def _event(self, kind: Kind, *fields: Any) -> None:
        """Log an event of now."""
        self._writer.event(kind, stamp_ns(), *fields)

    def _settled(self) -> StoredExperiment | None:
        """The experiment as the store has it, with all that this process has logged; None where nobody can say in time."""
        return None

    def _log_line(self, channel: str, line: str) -> None:
        """Log a captured line, whose bytes may be anything, and in which secrets may be."""
        from headrace.secrets import masked_text

        text = masked_text(line if line.isascii() else line.encode("utf-8", "replace").decode())
        self._writer.channel_event(Kind.TEXT, channel, ChannelType.TEXT, None, time_ns(), text)


def reported(call: Callable[Concatenate[_H, _P], None]) -> Callable[Concatenate[_H, _P], None]:
    """A method of a handle whose errors go through `_refuse`."""

    @wraps(call)
    def checked(self: _H, /, *args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            call(self, *args, **kwargs)
        except Exception as error:
            self._refuse(error)

    return checked
