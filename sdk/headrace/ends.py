"""How a process ends, and what that means for the experiments that it logs to.

| the process                                    | its source ends as                                                    |
|------------------------------------------------|-----------------------------------------------------------------------|
| runs to its end, or `sys.exit(0)`              | succeeded                                                             |
| an exception that nobody caught                | failed, with the traceback                                            |
| KeyboardInterrupt that nobody caught           | aborted                                                               |
| `sys.exit(3)`, `sys.exit("message")`           | failed                                                                |
| a child of multiprocessing ends                | by the same rules (it skips atexit)                                   |
| `os._exit`, a signal, a crash                  | not by us: the agent sees that the lock is free, and reports a death  |
| any of these, after `headrace abort`           | aborted, with the reason (`Life`, or the agent when nothing of us ran)|

Nothing here ends an experiment while the process lives: threads that go on after the main one has failed may still log. A bare
`raise SystemExit(3)` cannot be seen by any hook of CPython: outside of `with` it counts as a success.
"""

from __future__ import annotations

import atexit
import os
import sys
from _thread import get_ident

from headrace_proto.events import Outcome
from headrace_proto.record import Record
from headrace_proto.warning import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType, TracebackType
    from typing import Any, Final, NoReturn, Protocol

    class Endable(Protocol):
        """A handle, as far as its end is concerned."""

        @property
        def internal_id(self) -> str:
            """The experiment."""
            ...

        def finish_with_process(self, ending: Ending) -> None:
            """The process ends: close the source."""
            ...

        def record_exception(self, traceback: str) -> None:
            """An exception that nobody caught goes through the process, which may live on."""
            ...


class Ending(Record):
    """How something ended: an outcome of `headrace_proto.events.Outcome`, and what to say about it."""

    outcome: str = Outcome.SUCCEEDED
    detail: str | None = None


live: Final[dict[int, Endable]] = {}
"""The handles by which this process logs, in the order of their beginning, by their identity: two of one experiment are equal."""

_uncaught: Ending | None = None
_hooked = False
_finalized_in: int | None = None
_child: FrameType | None = None
"""In which this process runs, if it is a child of multiprocessing."""


def ending_of(error: BaseException | None) -> Ending:
    """What an exception that ends a block or a process means."""
    if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        return Ending()
    import traceback

    text = "".join(traceback.format_exception(error))
    return Ending(Outcome.ABORTED if isinstance(error, KeyboardInterrupt) else Outcome.FAILED, text)


def enter(experiment: Endable) -> None:
    """Take care of the experiment's end from now on."""
    live[id(experiment)] = experiment
    _hook()
    finish_with_multiprocessing()


def leave(experiment: Endable) -> None:
    """It has ended."""
    live.pop(id(experiment), None)


def _hook() -> None:
    global _hooked
    if _hooked:
        return
    _hooked = True
    import threading
    import tokenize  # noqa: F401 - now: imported in the hook, its namedtuples would make Ctrl-C's exit code 1 (they call eval),
    import traceback  # noqa: F401 - and so would those of what this imports

    atexit.register(_at_exit)
    os.register_at_fork(after_in_child=_forget_uncaught)
    hook, thread_hook = sys.excepthook, threading.excepthook

    def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        _note(error)
        hook(kind, error, trace)

    def thread_excepthook(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
            _record(ending_of(args.exc_value).detail or "")
        thread_hook(args)

    sys.excepthook, threading.excepthook = excepthook, thread_excepthook
    sys.exit = _exit


def _note(error: BaseException) -> None:
    """An exception is on its way out of the program (or, at a prompt, only out of a line of it)."""
    global _uncaught
    from headrace.capture.notebook import is_interactive

    ending = ending_of(error)
    _record(ending.detail or "")
    if not is_interactive():
        _uncaught = ending


def _record(traceback: str) -> None:
    for experiment in tuple(live.values()):
        experiment.record_exception(traceback)


def _forget_uncaught() -> None:
    global _uncaught
    _uncaught = None


# -- sys.exit -----------------------------------------------------------------------------------------------------------


class _Witness:
    """Rides on a SystemExit, and is freed with it: below no Python frame only when the interpreter itself handled it."""

    def __init__(self, status: Any) -> None:
        self._status: Final = status
        self._process: Final = os.getpid()
        self._thread: Final = get_ident()

    def __del__(self) -> None:
        global _uncaught
        try:
            sys._getframe(1)  # whether anybody is there is the question
        except ValueError:
            if self._process == os.getpid() and self._thread == _main_thread():
                _uncaught = Ending(Outcome.FAILED, f"SystemExit: {self._status}")


def _main_thread() -> int | None:
    import threading

    return threading.main_thread().ident


def _system_exit(status: Any) -> SystemExit:
    leaving = SystemExit() if status is None else SystemExit(status)
    if status not in (None, 0):
        leaving._headrace = _Witness(status)  # type: ignore[attr-defined] # noqa: SLF001
    return leaving


def _exit(status: Any = None, /) -> NoReturn:
    """Exit the interpreter by raising SystemExit(status)."""
    raise _system_exit(status)  # in no variable: the traceback would keep it alive


# -- The end -------------------------------------------------------------------------------------------------------------


def _at_exit() -> None:
    _finish(_ending())


def _ending() -> Ending:
    """How this process ends, as far as can be known by now."""
    passing = sys.exc_info()[1]  # through a child of multiprocessing, before Python 3.13
    if passing is not None:
        return ending_of(passing)
    status = _child.f_locals.get("exitcode") if _child is not None else None
    return _uncaught or (Ending(Outcome.FAILED, f"SystemExit: {status}") if status else Ending())


def _finish(ending: Ending) -> None:
    for experiment in reversed(tuple(live.values())):
        try:
            experiment.finish_with_process(ending)
        except Exception as error:  # the exit, and the other experiments' ends, must go on
            warn(f"experiment {experiment.internal_id} was not ended: {error}")


# -- Children of multiprocessing -----------------------------------------------------------------------------------------
#
# They end by os._exit, after multiprocessing's own finalizers. Until Python 3.12 these run while the child's exception passes. From
# 3.13 on they come after it was printed and forgotten: then the frame that ran the child knows its exit code, and what
# prints the traceback is asked for the exception.


def finish_with_multiprocessing() -> None:
    """In a child of multiprocessing, end with it. Nothing is imported: without multiprocessing there is no such child."""
    global _finalized_in
    process, util = sys.modules.get("multiprocessing.process"), sys.modules.get("multiprocessing.util")
    if process is None or util is None or _finalized_in == os.getpid():
        return
    arriving = getattr(
        process.current_process(), "_inheriting", False
    )  # a handle is unpickled before its child has begun
    if arriving or process.parent_process() is not None:
        _finalized_in = os.getpid()
        _finalize(util)
        util.register_after_fork(util, _finalize)  # a child that begins forgets the finalizers registered before


def _finalize(util: Any) -> None:
    global _child
    util.Finalize(None, _at_exit, exitpriority=100)
    running = _running_child()
    if running is not _child:
        _child = running
        if running is not None and sys.version_info >= (3, 13):
            _watch(running)


def _running_child() -> FrameType | None:
    """The frame of multiprocessing in which this child runs."""
    code = sys.modules["multiprocessing.process"].BaseProcess._bootstrap.__code__  # noqa: SLF001 - nothing else tells how it ended
    frame = sys._current_frames().get(_main_thread() or 0)
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame


def _watch(child: FrameType) -> None:
    import traceback

    print_exc = traceback.print_exc

    def noting(*args: Any, **kwargs: Any) -> None:
        passing = sys.exc_info()[1]
        if passing is not None and sys._getframe(1) is child:
            _note(passing)
        print_exc(*args, **kwargs)

    traceback.print_exc = noting
