"""What collectors tell agents, and what people ask of collectors and agents: small msgpack maps, each with its version `v`.

A message of another version, or that does not decode, is ignored: marks are published again, and an agent that hears
nothing keeps its journal. A mark frees journal bytes, so it names the store that vouches for them and the commit that holds
them; an agent keeps the highest commit per source, because two collectors may answer out of order.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar, get_origin, get_type_hints

import msgpack

MESSAGE_VERSION: Final = 1
MESSAGE_BYTES_MAX: Final = 4096
"""Ours are a few hundred. A broker's largest message, decoded, could take seventy times its size."""
UNNAMED: Final = "its writer ended before the event that names it"
"""`FileMark.bad` of a file that no event ever will name: whoever logged it was killed inside the call. It may be deleted."""


class Mark(NamedTuple):
    """The store `store` holds everything of `source` below `position`, as of the experiment's commit `commit`."""

    store: str
    experiment: str
    source: str
    position: int
    commit: int
    short_id: str = ""  # DIG-1, once it is known
    interval_s: float = 1.0  # how often this collector commits: agents batch by age of a tenth of it
    dead: bool = False  # the store has been told that the source's writer is gone, at this position
    missing: int = -1
    """Where the first range below it begins that collectors gave up: whoever has those bytes keeps and sends them."""


class FileMark(NamedTuple):
    """The store holds the bytes below `offset` of a file; when `done`, the verified file itself is in place.

    `bad` says why the far end refused the file (its digest differs): it is sent again from 0 if it can be, else given up.
    """

    store: str
    experiment: str
    source: str
    file: str
    offset: int
    done: bool = False
    bad: str = ""


class Rewind(NamedTuple):
    """Send `source` again from `position`; for a file of it, from that offset of `file`."""

    source: str
    position: int
    file: str = ""


class CloseGap(NamedTuple):
    """Do not wait any longer for what is missing of `experiment`; of one `source` only, if it is named."""

    experiment: str
    source: str = ""


class GapsClosed(NamedTuple):
    """What a collector did about a `CloseGap`: (source, first, end) of each range that it gave up."""

    collector: str
    experiment: str
    gaps: list[Any]
    stored: bool  # whether a commit says so; it will, once the store takes commits again
    waiting: int  # frames of the experiment that waited above these gaps


class Find(NamedTuple):
    """Which agents have the experiment with this id, short or internal? `digest` is `digest_of` it."""

    request: str
    digest: str


class Abort(NamedTuple):
    """End the processes of `experiment`."""

    request: str
    experiment: str
    by: str = ""
    reason: str = ""
    grace_s: float = -1.0  # between SIGTERM and SIGKILL; the agent's own setting when negative


class SourceAnswer(NamedTuple):
    """What an agent says of one source of an experiment, to a `Find` or an `Abort`. `state` is one of `SourceState`."""

    request: str
    experiment: str
    source: str
    state: str
    text: str  # for people
    short_id: str = ""
    host: str = ""
    pid: int = 0
    role: str = ""
    rank: int = -1  # of a source that has none
    wait_s: float = 0.0  # of ASKED: the next answer comes within this time


class Sign(NamedTuple):
    """An agent is there, and so are writers of these experiments on its node. One that serves more says so in several."""

    node: str  # the same for as long as it serves the same home
    host: str  # for people
    experiments: bytes  # 16 of each id, at most EXPERIMENTS_A_SIGN of them


EXPERIMENTS_A_SIGN: Final = 200


class SourceState:
    """What a source is to an agent that was asked to end it."""

    ALIVE: Final = "alive"  # the answer to a Find; its end can be asked for
    ASKED: Final = "asked"  # its process has been asked to end; another answer follows
    ENDED: Final = "ended"  # its process is gone
    KILLED: Final = "killed"  # it is gone, by SIGKILL, because it had not ended in time
    CALLED: Final = "called"  # its abort_callback was called, and the process lives on
    GONE: Final = "gone"  # it had ended before
    REFUSED: Final = "refused"  # it cannot be ended from here


def digest_of(experiment: str) -> str:
    """An experiment's id, short or internal, so that only who knows it recognises it."""
    return sha256(f"headrace:{experiment}".encode()).hexdigest()


Message: TypeAlias = Mark | FileMark | Rewind | CloseGap | GapsClosed | Find | Abort | SourceAnswer | Sign


def encode(message: Message) -> bytes:
    """The message as bytes."""
    packed: bytes = msgpack.packb({"v": MESSAGE_VERSION, **message._asdict()})
    return packed


_TYPES: Final[dict[Any, tuple[type, ...]]] = {
    kind: tuple(get_origin(hint) or hint for hint in get_type_hints(kind).values())
    for kind in (Mark, FileMark, Rewind, CloseGap, GapsClosed, Find, Abort, SourceAnswer, Sign)
}
"""Of the fields, in order: a NamedTuple's own annotations are unresolved names, and resolving them takes longer than all else."""

_Message = TypeVar("_Message", Mark, FileMark, Rewind, CloseGap, GapsClosed, Find, Abort, SourceAnswer, Sign)


def decode(kind: type[_Message], data: bytes) -> _Message | None:
    """The message of type `kind` in `data`; None when it is anything else."""
    if len(data) > MESSAGE_BYTES_MAX:
        return None
    try:
        fields: dict[str, Any] = msgpack.unpackb(data, raw=False)
        if fields.pop("v") != MESSAGE_VERSION:
            return None
        message = kind(**fields)
    except Exception:  # hostile bytes raise a handful of unrelated types, and the reaction to each is the same
        return None
    return message if tuple(map(type, message)) == _TYPES[kind] else None
