"""What a store has once: its record, its format page, its quarantine, and what killed writers left without a name."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from importlib import resources
from typing import Final

from headrace_proto.errors import Corrupt, FormatUnknown
from headrace_proto.limits import RETENTION_S
from headrace_proto.store import layout
from headrace_proto.store.backend import Store, read_store_id
from headrace_proto.store.inspection.findings import Finding, Options, error, note, warning

REASONS_READ: Final = 1000
"""Records of the quarantine that are read for their reasons; the rest are counted."""
REASONS_SHOWN: Final = 10


def inspect_identity(store: Store) -> tuple[str | None, list[Finding]]:
    """The store's id, None if it has none that can be read."""
    remedy = "restore it from a copy: with another id, agents take this for another store and free nothing"
    try:
        identity = read_store_id(store)
    except (Corrupt, FormatUnknown) as bad:
        return None, [error(layout.STORE_FILE, str(bad), remedy)]
    return identity, [] if identity else [error(layout.STORE_FILE, "it is missing", remedy)]


def inspect_root(store: Store, options: Options) -> Iterator[Finding]:
    """All that belongs to no project."""
    yield from _format_page(store, options)
    yield from _temporary(store, options)
    yield from _quarantine(store)


def _format_page(store: Store, options: Options) -> Iterator[Finding]:
    if store.size(layout.FORMAT_FILE) is not None:
        return
    finding = warning(layout.FORMAT_FILE, "it is missing", "headrace fsck --repair writes that of this release")
    if options.repair:
        text = resources.files("headrace_proto.store").joinpath(layout.FORMAT_FILE).read_bytes()
        store.create(layout.FORMAT_FILE, text)
        finding = finding._replace(mended=True)
    yield finding


def _temporary(store: Store, options: Options) -> Iterator[Finding]:
    """Files that never got their name. A writer at work writes to its own; one that rested for RETENTION_S is nobody's."""
    for folder in (layout.TEMPORARY, layout.PROBES):
        old, size = [], 0
        for name in store.names(folder):
            path = f"{folder}/{name}"
            written_ns = store.modified_ns(path)
            if written_ns is not None and written_ns < options.now_ns - RETENTION_S * 1e9:
                old.append(path)
                size += store.size(path) or 0
        if old:
            says = f"{len(old)} files of {size} bytes, left behind by writers that were killed"
            finding = warning(folder, says, "headrace fsck --repair removes them")
            if options.repair:
                store.delete(old)
                finding = finding._replace(mended=True)
            yield finding


def _quarantine(store: Store) -> Iterator[Finding]:
    """What did not decode, with the reasons."""
    reasons: Counter[str] = Counter()
    count = 0
    for token in store.names(layout.QUARANTINE):
        folder = f"{layout.QUARANTINE}/{token}"
        for name in store.names(folder):
            if not name.endswith(".json"):
                continue
            count += 1
            if count <= REASONS_READ:
                reasons[_reason(store, f"{folder}/{name}")] += 1
    if count:
        told = "; ".join(f"{times} x {reason}" for reason, times in reasons.most_common(REASONS_SHOWN))
        of = "" if count <= REASONS_READ else f" (of the first {REASONS_READ})"
        says = f"{count} frames or events are in quarantine{of}: {told}"
        yield note(layout.QUARANTINE, says, "each has its bytes (.bin) and what is known of them (.json)")


def _reason(store: Store, path: str) -> str:
    try:
        return str(json.loads(store.read(path))["reason"])
    except (ValueError, TypeError, KeyError, FileNotFoundError):
        return "unknown"
