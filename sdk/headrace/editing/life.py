"""The end of a stored experiment, said afterwards."""

from __future__ import annotations

import os
from time import time_ns
from typing import TYPE_CHECKING, Self

from headrace import ends
from headrace.editing.changes import Changes
from headrace_proto import events
from headrace_proto.events import Kind, Outcome, Role
from headrace_proto.ids import random_id
from headrace_proto.journal import machine
from headrace_proto.limits import TRACEBACK_BYTES_MAX
from headrace_proto.store.chain import Batch
from headrace_proto.store.times import us_of

if TYPE_CHECKING:
    from types import TracebackType


class LifeEdits(Changes):
    """The calls about a stored experiment as a whole."""

    def stop(self, exc_tb: str | None = None) -> None:
        """Mark a running experiment as succeeded, or as failed when `exc_tb` says why. One that has ended stays as it is.

        No process is ended by it: what still logs goes on logging, and is shown. A later restart decides the state again.
        """
        self._end(ends.Ending() if exc_tb is None else ends.Ending(Outcome.FAILED, str(exc_tb)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(ends.ending_of(error))

    def _end(self, ending: ends.Ending) -> None:
        """Be, for a moment, one more owner: the one that opened last decides."""
        document = self._snapshot.newest().document
        if document.state != "running":
            return
        deciding = [one for one in document.sources.values() if one.role in (Role.OWNER, Role.RANK)]
        attempt = max((one.attempt for one in deciding), default=0)
        ranks = any(one.role == Role.RANK and one.state == "open" and one.attempt == attempt for one in deciding)
        now_ns = max([time_ns(), *(1000 * (us_of(one.opened_at) + 1) for one in deciding if one.opened_at)])
        facts = {
            "role": Role.OWNER,
            "attempt": attempt + ranks,  # an open rank of the same attempt would keep it running
            "label": "stop",
            "host": machine.host_name(),
            "pid": os.getpid(),
            "user": machine.user_name(),
        }
        detail = None if ending.detail is None else ending.detail[-TRACEBACK_BYTES_MAX:]
        raw = events.pack(Kind.OPEN, now_ns, facts) + events.pack(Kind.CLOSED, now_ns, ending.outcome, detail)
        self._commit_batch(Batch(random_id(), 0, len(raw), raw))
