"""`experiment.json`: the newest document, put beside the commits for people and other tools."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Final

from headrace_proto.store.backend import Store
from headrace_proto.store.commits import PART_KINDS, Commit
from headrace_proto.store.documents import ExperimentDocument, PublicDocument

INTERVAL_NS: Final = 60 * 10**9
"""Between two refreshes in a remote store, where each costs a request."""
_COMMIT_FIELD: Final = re.compile(rb'"commit":\s*([0-9]+)')


class DocumentFile:
    """The file of one experiment, as one writer keeps it."""

    def __init__(self, store: Store, path: str) -> None:
        self._store = store
        self._path = path
        self._refreshed_ns: int | None = None
        self._state = ""

    def refresh(self, head: Commit, now_ns: int, *, anyway: bool = False) -> None:
        """Show `head`: in a local store always, in a remote one at changes of state and once a minute, or `anyway`.

        Never replaces a newer document: a writer may have slept between its commit and this. When it fails, the next commit
        tries again; the commit itself is made, and our readers use nothing else.
        """
        due = self._refreshed_ns is None or now_ns - self._refreshed_ns >= INTERVAL_NS
        if not (self._store.local or due or anyway or self._state != head.document.state):
            return
        with suppress(OSError):
            if self._shown() < head.number:
                self._store.put(self._path, public_document(head).encode())
            self._refreshed_ns, self._state = now_ns, head.document.state

    def _shown(self) -> int:
        try:
            found = _COMMIT_FIELD.search(self._store.read(self._path), 0, 256)
        except FileNotFoundError:
            return 0
        return int(found[1]) if found else 0


def public_document(head: Commit) -> PublicDocument:
    """The document of a commit, and where its data is."""
    live: dict[str, tuple[str, ...]] = {kind: tuple(part.path for part in head.parts.of(kind)) for kind in PART_KINDS}
    fields = {name: getattr(head.document, name) for name in ExperimentDocument.model_fields}
    return PublicDocument(commit=head.number, parts=live, side=head.side, **fields)
