"""Waiting for the agent and the store: the only calls that may take time, and never longer than they were told."""

from __future__ import annotations

import os
import time
from contextlib import suppress

from headrace_proto.errors import InvalidValue
from headrace_proto.home import FILE_MODE
from headrace_proto.journal import lock
from headrace_proto.record import Record
from headrace_proto.spool import is_spool_file
from headrace_proto.status import SourceStatus, read_status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, Literal, TypeAlias

    from headrace_proto.home import Home

    Stage: TypeAlias = Literal["journaled", "streamed", "stored"]

_STAGES: Final[tuple[Stage, ...]] = ("journaled", "streamed", "stored")
ID_WAIT_S: Final = 2.0
"""How long `Experiment.id` waits for the collector's answer, once in a process."""
_POLL_S: Final = 0.01
_ASK_AGAIN_S: Final = 1.0
"""A request is repeated this often: an agent that restarts forgets what it was asked."""


class Receipt(Record):
    """How far what this process has logged has come. Positions count the bytes of its journal."""

    journaled: int
    """On this node's disk: survives the process."""
    streamed: int
    """Acknowledged by the broker. Not a promise: only the store's word frees the journal."""
    stored: int
    """In the store, once."""
    files: int
    """Files of this process that are not in the store yet; -1 when they cannot be counted: no descriptor is left for that."""
    reached: bool
    """Whether what was waited for was reached in time."""


def checked_stage(stage: str) -> Stage:
    """`stage`, if there is one of this name."""
    for known in _STAGES:
        if stage == known:
            return known
    raise InvalidValue(f"there is no stage {stage!r}: wait for 'journaled', 'streamed' or 'stored'")


def agent_serves(home: Home) -> bool:
    """Whether an agent holds the home's lock: without one nobody answers. Where that cannot be asked, none is counted on."""
    try:
        return lock.holder(home.agent_lock) is not None
    except OSError:  # no descriptor is left, or there are no locks
        return False


def read_bound_s() -> float:
    """How long a read may wait for what this process has logged: HEADRACE_READ_S."""
    return seconds("HEADRACE_READ_S", 5.0)


def seconds(variable: str, default: float) -> float:
    """A duration from the environment."""
    try:
        return max(0.0, float(os.environ.get(variable, default)))
    except ValueError:
        return default


def spooled(home: Home, source: str) -> list[str]:
    """The files of a source that are not in the store yet."""
    try:
        return sorted(filter(is_spool_file, os.listdir(home.spool(source))))
    except FileNotFoundError:
        return []


def wait_for_agent(
    home: Home, experiment: str, source: str, journaled: int, stage: Stage, timeout_s: float | None
) -> Receipt:
    """Ask the agent to hurry, and wait until `stage` has come to `journaled`, or the time is over."""
    began = time.monotonic()
    asked = float("-inf")
    while True:
        receipt = _receipt(home, experiment, source, journaled, stage)
        now = time.monotonic()
        if receipt.reached or (timeout_s is not None and now - began >= timeout_s):
            return receipt
        if now - asked >= _ASK_AGAIN_S:
            asked = now
            ask_agent(home, experiment)
        time.sleep(_POLL_S)


def _receipt(home: Home, experiment: str, source: str, journaled: int, stage: Stage) -> Receipt:
    try:
        files = len(spooled(home, source))
    except OSError:
        files = -1
    status = read_status(home.status(experiment))
    known = status.sources.get(source, SourceStatus()) if status else SourceStatus()
    reached = (
        stage == "journaled"
        or (stage == "streamed" and known.streamed >= journaled)
        or (stage == "stored" and known.stored >= journaled and files == 0)
    )
    return Receipt(journaled, known.streamed, known.stored, files, reached)


def ask_agent(home: Home, experiment: str) -> None:
    """Ask for everything of the experiment to be shipped now and committed soon."""
    with suppress(OSError):  # a full disk: the agent comes to it in its own time
        os.close(os.open(home.flush_request(experiment), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, FILE_MODE))


def wait_for_id(home: Home, experiment: str, timeout_s: float, serves: Callable[[], bool]) -> str | None:
    """The short id that the collector gave the experiment; None when it did not come in time, or nobody `serves`."""
    deadline = time.monotonic() + timeout_s
    asked = False
    while True:
        status = read_status(home.status(experiment))
        if status is not None and status.short_id:
            return status.short_id
        if time.monotonic() >= deadline or not serves():
            return None
        if not asked:
            asked = True
            ask_agent(home, experiment)
        time.sleep(_POLL_S)
