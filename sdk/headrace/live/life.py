"""Life: identity, waiting, the end, and how a handle travels to other processes."""

from __future__ import annotations

import os
from contextlib import suppress

from headrace import ends, waiting
from headrace.live.handle import Handle
from headrace.waiting import ID_WAIT_S, Receipt
from headrace_proto import abort
from headrace_proto.errors import ExperimentStopped, SaveError
from headrace_proto.events import Outcome
from headrace_proto.limits import TRACEBACK_BYTES_MAX
from headrace_proto.warning import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, NoReturn, Self

    from headrace.direct import Direct
    from headrace.waiting import Stage

_short_ids: dict[str, str] = {}
"""What this process calls its experiments: answered once, and never changed, so that a path made of it stays one path."""


class Life(Handle):
    """The calls about the experiment as a whole."""

    _ended: ends.Ending | None = None
    _direct_drain: Direct | None = None
    _drained_by = 0

    # -- Identity --------------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The short id, such as `DIG-1`, that the collector gave; the internal id when it cannot be known within 2 s.

        It is asked for once in a process and never changes afterwards. Without an agent the answer is immediate.
        """
        known = _short_ids.get(self.internal_id)
        if known is None:
            known = self._ask_id(ID_WAIT_S) or self.internal_id
            _short_ids[self.internal_id] = known
        return known

    def wait_id(self, timeout: float | None = None) -> str:
        """Wait for the short id. Raises `SaveError` when it has not come within `timeout` seconds."""
        short = self._ask_id(float("inf") if timeout is None else timeout, insist=True)
        if short is None:
            raise SaveError(
                f"no short id for {self.internal_id} within {timeout} s: is an agent running, and a collector?"
            )
        _short_ids.setdefault(self.internal_id, short)
        return short

    def _ask_id(self, timeout_s: float, *, insist: bool = False) -> str | None:
        if self.origin.direct:
            try:
                return self._drain().short_id(self._writer.positions(), timeout_s)
            except SaveError:
                return None
        home = self.origin.home
        return waiting.wait_for_id(home, self.internal_id, timeout_s, lambda: insist or waiting.agent_serves(home))

    @property
    def ended(self) -> bool:
        """Whether this process has ended it, by `stop()`, `abort()` or the end of a `with` block."""
        return self._ended is not None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({_short_ids.get(self.internal_id, self.internal_id)})"

    # -- Waiting ---------------------------------------------------------------------------------------------------------

    def wait(self, stage: Stage = "stored", timeout: float | None = 30.0) -> Receipt:
        """Wait until what this process has logged so far has come to `stage`: "journaled", "streamed" or "stored".

        Returns after `timeout` seconds (None: no bound) in any case; `reached` of the receipt says whether it was in time.
        """
        checked = waiting.checked_stage(stage)
        writer = self._writer
        if self.origin.direct and checked != "journaled":
            return self._drain().save(writer.positions(), timeout)
        return waiting.wait_for_agent(writer.home, self.internal_id, writer.source, writer.position, checked, timeout)

    def save(self, timeout: float | None = 30.0) -> Receipt:
        """Wait until everything is stored. Raises `SaveError`, with the positions that were reached, when it is not in time."""
        receipt = self.wait("stored", timeout)
        if not receipt.reached:
            raise SaveError(
                f"{receipt.stored} of {receipt.journaled} bytes are stored, {receipt.files} file(s) are not, after {timeout} s; "
                "they are safe in the journal, and an agent will store them"
            )
        return receipt

    def flush(self, durable: bool = False) -> None:
        """Have everything shipped now. It is in the journal already; `durable` also waits until it survives a power loss.

        Where the machine refuses that (a failing disk, no descriptor left), it warns: training goes on.
        """
        if durable:
            try:
                self._writer.sync()
            except OSError as error:
                warn(
                    f"experiment {self.internal_id} is in the journal but was not synced to the disk: {error.strerror}"
                )
        waiting.ask_agent(self.origin.home, self.internal_id)

    def _drain(self) -> Direct:
        if (
            self._direct_drain is None or self._drained_by != os.getpid()
        ):  # a store's connections are their process's own
            self._drained_by = os.getpid()
            from headrace.direct import Direct

            self._direct_drain = Direct(self.origin.home, self.origin.store, self.origin.project, self.internal_id)
        return self._direct_drain

    # -- The end ---------------------------------------------------------------------------------------------------------

    def stop(self, exc_tb: str | None = None) -> None:
        """End the experiment: succeeded, or failed when `exc_tb` says why. Does nothing the second time.

        Waits for nobody: what was logged is in the journal. (With `direct=True` it is stored first, within HEADRACE_STOP_S.)
        """
        self._end(ends.Ending() if exc_tb is None else ends.Ending(Outcome.FAILED, str(exc_tb)))

    def abort(self, reason: str | None = None) -> None:
        """End the experiment as *aborted*. The process goes on. Does nothing after `stop()`."""
        self._end(ends.Ending(Outcome.ABORTED, None if reason is None else str(reason)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(ends.ending_of(error))

    def _end(self, ending: ends.Ending, *, close: bool = True) -> None:
        if self._ended is not None:
            return
        self._before_end()
        ending = self._as_asked(ending)
        self._ended = ending
        ends.leave(self)
        if not close:
            self._writer.abandon()
            return
        self._writer.close(ending.outcome, _masked(ending.detail))
        if self.origin.direct and self._writer.closed:
            self._store_the_rest()

    def _as_asked(self, ending: ends.Ending) -> ends.Ending:
        """An end that somebody asked for, by `headrace abort`, is *aborted*, in whatever way this process came to it."""
        request = abort.asked(self._writer.folder)
        if request is None:
            return ending
        return ends.Ending(Outcome.ABORTED, "\n".join(filter(None, (ending.detail, str(request)))))

    def _before_end(self) -> None:
        """What a subclass logs last."""

    def _store_the_rest(self) -> None:
        positions = self._writer.positions()
        try:
            receipt = self._drain().save(positions, waiting.seconds("HEADRACE_STOP_S", 5.0))
        except Exception as error:  # the journal still holds everything
            warn(f"experiment {self.internal_id} is not stored yet: {error}; it is safe in the journal")
            return
        if not receipt.reached:
            warn(
                f"experiment {self.internal_id} is not stored yet ({receipt.stored} of {receipt.journaled} bytes): it is safe in "
                "the journal, and save(), or an agent, will store it"
            )
            return
        for source in positions:
            self._drain().free(source)

    def finish_with_process(self, ending: ends.Ending) -> None:
        """The process ends: so does this, without telling anybody who still logs."""
        self._silent = True
        self._end(ending)

    def record_exception(self, traceback: str) -> None:
        """Keep the traceback of an exception that nobody caught, whatever comes of it."""
        with suppress(Exception):  # theirs is on its way to the user, who must see it and not ours
            self._log_line("exceptions", traceback[-TRACEBACK_BYTES_MAX:])

    def _refuse_stopped(self, *_: Any, **__: Any) -> NoReturn:
        raise ExperimentStopped(f"experiment {self.internal_id} was stopped: log before stop(), or attach to it again")

    # -- Travelling ------------------------------------------------------------------------------------------------------

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self


def _masked(detail: str | None) -> str | None:
    """A traceback without the secrets in it."""
    if not detail:
        return detail
    from headrace.secrets import masked_text

    return masked_text(detail)
