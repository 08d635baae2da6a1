"""Asking a process to end: three small files in its journal's folder, between the node's agent and the process.

    abort-request     the agent's: the source is asked to end, by whom and why
    abort-callback    the trainer's, empty: a thread of its process waits for that request, and nobody need send a signal
    abort-answer      the trainer's: what became of its callback

Files, because that needs no thread, socket or signal handler in a trainer that has no callback: it looks once, when it ends, and an
end that was asked for is *aborted*, however it came about. They go with the journal, and outlive a restart of the agent.
"""

from __future__ import annotations

import os
from contextlib import suppress

from headrace_proto.home import FILE_MODE, open_plain
from headrace_proto.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, TypeVar

    _File = TypeVar("_File", "Request", "Answer")

REQUEST: Final = "abort-request"
CALLBACK: Final = "abort-callback"
ANSWER: Final = "abort-answer"
REASON_CHARACTERS_MAX: Final = 500
"""Of a reason: with whoever asks, it fits the 4 KiB of a message and of a frame's header, whatever script it is written in."""
BY_CHARACTERS_MAX: Final = 100
DETAIL_CHARACTERS_MAX: Final = 300
_BYTES_MAX: Final = 64 * 1024

CALLING: Final = "calling"
RETURNED: Final = "returned"
RAISED: Final = "raised"
"""What a callback does: it has been called and is not back yet, it is back, or it has raised something."""


class Request(Record):
    """Why a source is to end."""

    id: str
    """Of the one call of `headrace abort` that this comes from."""
    by: str = ""
    reason: str = ""

    def __str__(self) -> str:
        who = f"aborted by {self.by}" if self.by else "aborted"
        return f"{who}: {self.reason}" if self.reason else who


class Answer(Record):
    """What became of the callback that request `id` had called."""

    id: str
    state: str  # CALLING, RETURNED or RAISED
    detail: str = ""


def ask(folder: str, request: Request) -> None:
    """Put a request beside the segments of the journal in `folder`. Raises `OSError`."""
    _put(os.path.join(folder, REQUEST), request._asdict())


def asked(folder: str) -> Request | None:
    """The request that the source was sent, if any."""
    return _get(os.path.join(folder, REQUEST), Request)


def answer(folder: str, given: Answer) -> None:
    """Tell the agent what became of the callback. Raises `OSError`."""
    _put(os.path.join(folder, ANSWER), given._asdict())


def answered(folder: str, request: str) -> Answer | None:
    """What became of the callback that this request had called."""
    found = _get(os.path.join(folder, ANSWER), Answer)
    return found if found is not None and found.id == request else None


def expect(folder: str) -> None:
    """Say that this process waits for requests. Raises `OSError`."""
    os.close(
        os.open(os.path.join(folder, CALLBACK), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
    )


def expect_no_more(folder: str) -> None:
    """It does so no longer."""
    with suppress(OSError):
        os.unlink(os.path.join(folder, CALLBACK))


def is_expected(folder: str) -> bool:
    """Whether the source's process has a callback that waits."""
    return os.path.lexists(os.path.join(folder, CALLBACK))


def _put(path: str, fields: dict[str, Any]) -> None:
    import json

    temporary = f"{path}.{os.getpid()}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    try:
        with open(descriptor, "w", encoding="utf-8", errors="replace") as file:
            json.dump(fields, file)
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _get(path: str, kind: type[_File]) -> _File | None:
    try:
        with open(path, "rb", opener=open_plain) as file:
            data = file.read(_BYTES_MAX)
    except OSError:  # nearly always: there is none
        return None
    try:
        import json

        found = kind(**json.loads(data))
    except (ValueError, TypeError, RecursionError):
        return None
    return found if all(isinstance(value, str) for value in found) else None
