"""A notebook: what experiments can be said to come from, and the states of its file that were kept."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from headrace_proto.errors import ArtifactNotFound, InvalidValue, MissingExtra
from headrace_proto.journal import machine

try:
    from headrace_proto.store import layout, notebooks
    from headrace_proto.store.backend import open_store
except ImportError as error:
    raise MissingExtra.named("notebooks", "read") from error

if TYPE_CHECKING:
    from headrace_proto.store.backend import Store
    from headrace_proto.store.notebooks import CheckpointRecord, NotebookRecord


class Checkpoint(NamedTuple):
    """One state of a notebook's file."""

    id: str
    name: str
    path: str


class Notebook:
    """A notebook of a project. Made by `Project.create_notebook` and `Project.get_notebook`.

    Its `id` is what `create_experiment(notebook_id=...)` takes.
    """

    def __init__(self, store: Store, project: str, record: NotebookRecord) -> None:
        self._store: Final = store
        self._record: Final = record
        self.project: Final = project

    @property
    def id(self) -> str:
        """Such as `d1c1b494-0620-4e54-93d5-29f4e848a51a`."""
        return self._record.id

    @property
    def owner(self) -> str:
        """Who created it."""
        return self._record.owner

    def __repr__(self) -> str:
        return f"Notebook({self.id})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Notebook):
            return NotImplemented
        return (self._store.url, self.project, self.id) == (other._store.url, other.project, other.id)

    def __hash__(self) -> int:
        return hash((self._store.url, self.project, self.id))

    def add_checkpoint(self, jupyter_path: str | os.PathLike[str]) -> Checkpoint:
        """Keep the notebook's file as it is now, in the store. Raises `ArtifactNotFound` if there is none at that path."""
        path = os.fspath(jupyter_path)
        try:
            with open(path, "rb") as file:
                content = file.read()
        except FileNotFoundError:
            raise ArtifactNotFound(f"no notebook at {path!r}: check the path, relative to {os.getcwd()!r}") from None
        except OSError as error:
            raise InvalidValue(f"the notebook {path!r} cannot be read: {error.strerror}") from error
        return _checkpoint(notebooks.add_checkpoint(open_store(self._store.url), self.project, self.id, path, content))

    def get_path(self) -> str | None:
        """Where the file of the newest checkpoint lay; None when there is no checkpoint."""
        newest = self._checkpoints()[-1:]
        return newest[0].path if newest else None

    def get_name(self) -> str | None:
        """The name of that file."""
        path = self.get_path()
        return path and os.path.basename(path)

    def checkpoint_urls(self) -> list[str]:
        """The addresses of the files that were kept, the oldest first."""
        folder = layout.notebook_folder(self.project, self.id)
        return [self._store.url_of(f"{folder}/{record.file}") for record in self._checkpoints()]

    def _checkpoints(self) -> list[CheckpointRecord]:
        return notebooks.checkpoints(self._store, self.project, self.id)


def _checkpoint(record: CheckpointRecord) -> Checkpoint:
    return Checkpoint(record.id, os.path.basename(record.path), record.path)


def create(url: str, project: str, author: str | None) -> Notebook:
    """A new notebook in the store at `url`."""
    store = open_store(url)
    return Notebook(store, project, notebooks.create_notebook(store, project, author or machine.user_name()))


def get(url: str, project: str, notebook: Any) -> Notebook:
    """The notebook with this id. Raises `NotebookNotFound`."""
    if not isinstance(notebook, str):
        raise InvalidValue(f"notebook_id must be a str, not {notebook!r:.80}")
    store = open_store(url, writable=False)
    return Notebook(store, project, notebooks.read_notebook(store, project, notebook))
