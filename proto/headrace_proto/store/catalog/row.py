"""A row of the catalog: what lists and leaderboards show of one experiment."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict

from headrace_proto.limits import TEXT_CHARACTERS_SHOWN
from headrace_proto.names import SYSTEM_CHANNELS
from headrace_proto.store.plain import unplain

if TYPE_CHECKING:
    from headrace_proto.store.commits import Commit

CAPTURED_CHANNELS: Final = frozenset({"stdout", "stderr", "logger", "exceptions"})
"""Captured output is no result: its last line stands in no leaderboard (Neptune keeps it in a namespace of its own)."""


class CatalogRow(BaseModel):
    """What lists and leaderboards show of an experiment, as of its commit `commit`. Each field is a column of the catalog."""

    # A last value may be NaN or infinite, and JSON has neither: "NaN" and "Infinity" are read back as numbers.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    experiment: str
    commit: int
    id: str
    name: str
    state: str
    created_at: datetime | None = None
    finished_at: datetime | None = None
    seen_at: datetime | None = None
    """When an event of it was last stored: readers tell from it whether a running one still responds."""
    owner: str = ""
    description: str = ""
    hostname: str = ""
    size: int = 0
    """Bytes of its channels and artifacts in the store."""
    tags: list[str] = []
    params: dict[str, Any] = {}
    properties: dict[str, str] = {}
    metrics: dict[str, float] = {}
    """The last value of each numeric channel."""
    texts: dict[str, str] = {}
    """The last value of each text channel, at most TEXT_CHARACTERS_SHOWN characters of it."""


def row_of(commit: Commit) -> CatalogRow:
    """What the catalog shows of an experiment as of this commit. Hardware and what stands in no list stay out."""
    from headrace_proto.store.commits import (  # whoever has a commit has its module; whoever only lists has not
        CURATION_SOURCE,
        PART_KINDS,
    )

    document, channels = commit.document, commit.document.channels
    seen = [  # an edit by hand is no sign of life
        source.last_seen_at
        for name, source in document.sources.items()
        if source.last_seen_at is not None and name != CURATION_SOURCE
    ]
    files = [*document.artifacts.values(), *document.source_files.values()]
    return CatalogRow(
        experiment=document.internal_id,
        commit=commit.number,
        id=document.id,
        name=document.name,
        state=document.state,
        created_at=document.created_at,
        finished_at=document.finished_at,
        seen_at=max(seen, default=None),
        owner=document.owner,
        description=document.description,
        hostname=document.hostname,
        size=sum(part.bytes for kind in PART_KINDS for part in commit.parts.of(kind))
        + sum(file.size for file in files),
        tags=list(document.tags),
        params=document.params,
        properties=document.properties,
        metrics={
            name: unplain(channel.last.value)
            for name, channel in channels.numeric.items()
            if channel.last is not None and not name.startswith(SYSTEM_CHANNELS)
        },
        texts={
            name: str(channel.last.value)[:TEXT_CHARACTERS_SHOWN]
            for name, channel in channels.text.items()
            if channel.last is not None and name not in CAPTURED_CHANNELS
        },
    )
