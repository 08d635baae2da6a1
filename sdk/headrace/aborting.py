"""The thread that calls a user's `abort_callback`. It exists only where one was given: whoever just logs has no thread of ours.

It looks for the agent's request a few times a second. That needs nothing of the main thread, which may be inside a long call, and
works where no signal would arrive: with an agent in another container, on any file system.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from headrace_proto import abort
from headrace_proto.warning import warn

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace_proto.journal import JournalWriter

LOOK_S: Final = 0.25
"""Between two looks, each of one system call."""


class AbortWatch:
    """Waits for requests to end one source's process, and calls the user's callback. Made once; `stop` ends it."""

    def __init__(self, writer: JournalWriter, callback: Callable[[], Any]) -> None:
        import threading

        self._writer: Final = writer
        self._callback: Final = callback
        self._process: Final = os.getpid()
        self._folder = ""
        self._done = ""
        self._stopped: Final = threading.Event()
        self._expect()
        threading.Thread(target=self._watch, name="headrace-abort", daemon=True).start()

    def _expect(self) -> None:
        """Tell the agent that it need send no signal; again where the journal is a new one, its old one having been taken away."""
        if self._folder != self._writer.folder:
            with suppress(OSError):  # a full disk: the next look tries again
                abort.expect(self._writer.folder)
                self._folder = self._writer.folder

    def _watch(self) -> None:
        while not self._stopped.wait(LOOK_S):
            self._expect()
            request = abort.asked(self._folder) if self._folder else None
            if request is not None and request.id != self._done:
                self._done = request.id
                self._call(request)

    def _call(self, request: abort.Request) -> None:
        self._answer(request, abort.CALLING)
        try:
            self._callback()
        except BaseException as error:  # SystemExit too: in a thread it would end nothing, and say nothing
            detail = f"{type(error).__name__}: {error}"[: abort.DETAIL_CHARACTERS_MAX]
            warn(f"the abort_callback of experiment {self._writer.experiment} raised {detail}; the process goes on")
            self._answer(request, abort.RAISED, detail)
        else:
            self._answer(request, abort.RETURNED)

    def _answer(self, request: abort.Request, state: str, detail: str = "") -> None:
        with suppress(OSError):  # a full disk, or the agent has deleted the journal: it knows all that it wants to
            abort.answer(self._folder, abort.Answer(request.id, state, detail))

    def stop(self) -> None:
        """The experiment has ended: call nobody any more. A forked child has no such thread."""
        if self._process == os.getpid():
            self._stopped.set()
            abort.expect_no_more(self._folder)
