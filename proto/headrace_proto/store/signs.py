"""Signs of life: when each node was last heard, and which experiments had writers there.

One object for the whole store, replaced every few seconds, while anything runs, by the collector that has the first partition: an
experiment that logs nothing needs no commit to show that it lives. *Not responding* is never stored: whoever reads compares the
last sign, or the last event if that is later, with the clock. An experiment that no agent has ever vouched for (`direct=True`) has
no signs that could be missing.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from headrace_proto.store import layout
from headrace_proto.store.records import DOCUMENT_FORMAT, Record, parse

if TYPE_CHECKING:
    from headrace_proto.store.backend import Store

SILENT_AFTER: Final = timedelta(seconds=60)
"""Agents are heard every 10 s and what was heard is written every 20 s at most: two in a row may get lost."""
NOT_RESPONDING: Final = "not responding"
"""How a running experiment is shown whose node has gone silent."""


class NodeSigns(Record):
    """What was last heard of a node's agent."""

    site: str
    node: str
    host: str
    heard_at: datetime
    experiments: tuple[str, ...]
    """Those that had writers there then."""


class Signs(Record):
    """`_headrace/signs.json`."""

    format: int = DOCUMENT_FORMAT
    nodes: tuple[NodeSigns, ...] = ()

    def heard_at(self) -> dict[str, datetime]:
        """When each experiment was last vouched for, by any node."""
        found: dict[str, datetime] = {}
        for node in sorted(self.nodes, key=lambda one: one.heard_at):
            found.update(dict.fromkeys(node.experiments, node.heard_at))
        return found


def read_signs(store: Store) -> Signs:
    """What is known. Raises `Corrupt`, `FormatUnknown` or `OSError`."""
    try:
        data = store.read(layout.SIGNS_FILE)
    except FileNotFoundError:
        return Signs()
    return parse(Signs, data, store.url_of(layout.SIGNS_FILE))


def write_signs(store: Store, signs: Signs) -> None:
    """Replace what is known. Two that write at once both know what both heard. Raises `OSError`."""
    store.put(layout.SIGNS_FILE, signs.model_dump_json().encode())


def is_silent(heard_at: datetime | None, seen_at: datetime | None, now: datetime) -> bool:
    """Whether an experiment that is running has gone silent: it was vouched for at `heard_at`, its last event is of `seen_at`."""
    if heard_at is None:
        return False
    return now - max(heard_at, seen_at or heard_at) > SILENT_AFTER
