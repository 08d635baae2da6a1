"""Notebooks of a project: a record each, and the checkpoints that were put there, as the files that they are.

Invariants
1. A record and a checkpoint are created once and never changed. A checkpoint's number is claimed by its description, which is
   created after the file: whoever sees the description can read the file.
2. Two processes that add checkpoints at once get numbers of their own; a file without a description is what a crash left.
"""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from headrace_proto.errors import NotebookNotFound
from headrace_proto.ids import random_id
from headrace_proto.store import layout
from headrace_proto.store.claims import claim_project
from headrace_proto.store.records import DOCUMENT_FORMAT, Record, parse

if TYPE_CHECKING:
    from headrace_proto.store.backend import Store

_SHOWN: Final = 5


class NotebookRecord(Record):
    """`notebooks/<id>/notebook.json`."""

    format: int = DOCUMENT_FORMAT
    id: str
    owner: str
    created_at: datetime


class CheckpointRecord(Record):
    """`notebooks/<id>/<20 digits>.json`: one state of a notebook's file."""

    format: int = DOCUMENT_FORMAT
    id: str
    path: str
    """Where the notebook lay when it was checkpointed."""
    file: str
    """Its copy, in the notebook's folder."""
    size: int
    sha256: str
    created_at: datetime


def create_notebook(store: Store, project: str, owner: str) -> NotebookRecord:
    """A new notebook of a project, which is made if the store does not have it."""
    claim_project(store, project)
    record = NotebookRecord(id=layout.notebook_id(random_id()), owner=owner, created_at=datetime.now(UTC))
    store.create(layout.notebook_file(project, record.id), record.model_dump_json(indent=2).encode())
    return record


def read_notebook(store: Store, project: str, notebook: str) -> NotebookRecord:
    """A notebook by its id. Raises `NotebookNotFound`."""
    if layout.is_notebook_id(notebook):
        path = layout.notebook_file(project, notebook)
        try:
            return parse(NotebookRecord, store.read(path), store.url_of(path))
        except FileNotFoundError:
            pass
    there = [name for name in store.names(layout.notebooks_folder(project)) if layout.is_notebook_id(name)]
    raise NotebookNotFound(
        f"{project} has no notebook {notebook!r:.80}; it has {', '.join(sorted(there)[:_SHOWN]) or 'none'}"
    )


def add_checkpoint(store: Store, project: str, notebook: str, path: str, content: bytes) -> CheckpointRecord:
    """Keep `content` as the newest state of the notebook, whose file lies at `path`."""
    folder, checkpoint = layout.notebook_folder(project, notebook), random_id()
    file = f"{checkpoint}.ipynb"
    store.create(f"{folder}/{file}", content)
    record = CheckpointRecord(
        id=checkpoint,
        path=path,
        file=file,
        size=len(content),
        sha256=sha256(content).hexdigest(),
        created_at=datetime.now(UTC),
    )
    data = record.model_dump_json(indent=2).encode()
    number = max(_numbers(store, folder), default=0) + 1
    while not store.create(f"{folder}/{layout.digits(number)}.json", data):
        number += 1
    return record


def checkpoints(store: Store, project: str, notebook: str) -> list[CheckpointRecord]:
    """All checkpoints of a notebook, the oldest first."""
    folder = layout.notebook_folder(project, notebook)
    paths = [f"{folder}/{layout.digits(number)}.json" for number in sorted(_numbers(store, folder))]
    return [parse(CheckpointRecord, store.read(path), store.url_of(path)) for path in paths]


def _numbers(store: Store, folder: str) -> list[int]:
    return [number for name in store.names(folder) if (number := layout.commit_number(name)) is not None]
