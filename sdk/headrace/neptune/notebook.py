"""Notebooks of a project, and the states of their files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from headrace.neptune.exceptions import FileNotFound, InvalidNotebookPath, NotAFile
from headrace.neptune.translation import old_errors

if TYPE_CHECKING:
    from headrace.neptune.backend import Backend
    from headrace.neptune.projects import Project
    from headrace.notebook import Notebook as StoredNotebook


class Checkpoint:
    """One state of a notebook's file."""

    def __init__(self, _id: str, name: str, path: str) -> None:
        self.id: Final = _id
        self.name: Final = name
        self.path: Final = path


class Notebook:
    """A notebook. Made by `Project.create_notebook` and `Project.get_notebook`."""

    def __init__(self, backend: Backend, project: Project, _id: str, owner: str) -> None:
        self._backend: Final = backend
        self._project: Final = project
        self._id: Final = _id
        self._owner: Final = owner

    @property
    def id(self) -> str:
        """Its id, for `create_experiment(notebook_id=...)`."""
        return self._id

    @property
    def owner(self) -> str:
        """Who created it."""
        return self._owner

    @old_errors()
    def add_checkpoint(self, file_path: str) -> Checkpoint:
        """Keep the notebook's file as it is now. Raises `InvalidNotebookPath`, `FileNotFound`, `NotAFile`."""
        if not str(file_path).endswith(".ipynb"):
            raise InvalidNotebookPath(file_path)
        if not os.path.exists(file_path):
            raise FileNotFound(file_path)
        if not os.path.isfile(file_path):
            raise NotAFile(file_path)
        kept = self._stored().add_checkpoint(os.path.abspath(file_path))
        return Checkpoint(kept.id, kept.name, kept.path)

    @old_errors()
    def get_path(self) -> str | None:
        """Where the file of the newest checkpoint lay; None when there is no checkpoint."""
        return self._stored().get_path()

    @old_errors()
    def get_name(self) -> str | None:
        """The name of that file."""
        return self._stored().get_name()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Notebook) and (self._id, self._project) == (other._id, other._project)

    def __hash__(self) -> int:
        return hash(self._id)

    def _stored(self) -> StoredNotebook:
        return self._backend.session.get_project(self._project.full_id).get_notebook(self._id)


def of(backend: Any, project: Project, stored: StoredNotebook) -> Notebook:
    """The notebook that the store has."""
    return Notebook(backend, project, stored.id, stored.owner)
