"""What collectors tell agents: small msgpack maps, each with its version `v`.

A message of another version, or that does not decode, is ignored: marks are published again, and an agent that hears
nothing keeps its journal. A mark frees journal bytes, so it names the store that vouches for them and the commit that holds
them; an agent keeps the highest commit per source, because two collectors may answer out of order.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, TypeVar, get_type_hints

import msgpack

MESSAGE_VERSION: Final = 1


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


def encode(message: Mark | FileMark | Rewind) -> bytes:
    """The message as bytes."""
    packed: bytes = msgpack.packb({"v": MESSAGE_VERSION, **message._asdict()})
    return packed


_Message = TypeVar("_Message", Mark, FileMark, Rewind)


def decode(kind: type[_Message], data: bytes) -> _Message | None:
    """The message of type `kind` in `data`; None when it is anything else."""
    try:
        fields: dict[str, Any] = msgpack.unpackb(data, raw=False)
        if fields.pop("v") != MESSAGE_VERSION:
            return None
        message = kind(**fields)
    except Exception:  # hostile bytes raise a handful of unrelated types, and the reaction to each is the same
        return None
    types = get_type_hints(kind)  # a NamedTuple's own annotations are unresolved names
    return message if all(type(value) is types[name] for name, value in message._asdict().items()) else None
