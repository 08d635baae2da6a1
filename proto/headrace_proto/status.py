"""What the agent tells trainers: one small JSON file an experiment, replaced atomically, so that no trainer needs a network.

The SDK stats it only in `id`, `wait` and `status`. Version 1; a reader ignores a file of another version, as if no agent ran.

    {"v": 1, "id": "DIG-1", "agent": 4711, "written_at": 1763692800.5,
     "sources": {"<source>": {"streamed": 4096, "stored": 4096, "files": 0}}}

`streamed` and `stored` are positions in the source's journal, `files` the number of its spooled files not yet in the store.
"""

from __future__ import annotations

import os

from headrace_proto.home import FILE_MODE
from headrace_proto.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

STATUS_VERSION: Final = 1


class SourceStatus(Record):
    """How far one source has come."""

    streamed: int = 0
    stored: int = 0
    files: int = 0


class Status(Record):
    """The agent's word on one experiment."""

    short_id: str
    agent: int
    written_at: float
    sources: dict[str, SourceStatus]


def write_status(path: str, status: Status) -> None:
    """Replace the file at `path` atomically."""
    import json

    text = json.dumps(
        {
            "v": STATUS_VERSION,
            "id": status.short_id,
            "agent": status.agent,
            "written_at": status.written_at,
            "sources": {name: source._asdict() for name, source in status.sources.items()},
        }
    )
    temporary = f"{path}.{os.getpid()}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(temporary, path)


def read_status(path: str) -> Status | None:
    """The file at `path`, or None when it is absent or of no use."""
    try:
        import json  # in here: a process without a descriptor left cannot even import

        with open(path, encoding="utf-8") as file:
            data = json.load(file)
        if data["v"] != STATUS_VERSION:
            return None
        sources = {name: SourceStatus(**fields) for name, fields in data["sources"].items()}
        return Status(str(data["id"]), int(data["agent"]), float(data["written_at"]), sources)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        return None
