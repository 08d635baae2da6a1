"""A session: several projects of one store. And the project that calls without one mean."""

from __future__ import annotations

import os

from headrace.project import Project
from headrace_proto.errors import InvalidName, InvalidValue, MissingExtra
from headrace_proto.home import Home, store_url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from headrace_proto.home import Home as HomeType

PROJECT_VARIABLE: Final = "HEADRACE_PROJECT"


class Session:
    """Where projects are found: a home for what is logged, a store for what is read. Connects to nothing.

    The arguments are those of `headrace.init`.
    """

    def __init__(
        self,
        home: str | os.PathLike[str] | None = None,
        store: str | os.PathLike[str] | None = None,
        direct: bool = False,
        *,
        author: str | None = None,
    ) -> None:
        self.home: Final[HomeType] = Home(home)
        self.store: Final = store_url(os.fspath(store) if store is not None else None, self.home)
        self.direct: Final = direct
        self.author: Final = author
        if direct:
            from headrace.direct import check_store

            check_store(self.store)

    def __repr__(self) -> str:
        return f"Session({self.store})"

    def get_project(self, name: str) -> Project:
        """The project `workspace/name`, whether the store has anything of it or not. Raises `InvalidName`."""
        return Project(name, self.home, self.store, direct=self.direct, author=self.author)

    def get_projects(self, namespace: str | None = None) -> dict[str, Project]:
        """The projects that the store has, by their full ids, sorted; of one workspace, if it is named."""
        try:
            from headrace_proto.store.backend import open_store
            from headrace_proto.store.claims import projects
        except ImportError as error:
            raise MissingExtra.named("listing projects", "read") from error
        if namespace is not None and not isinstance(namespace, str):
            raise InvalidValue(f"the namespace must be a str, not {namespace!r:.80}")
        names = projects(open_store(self.store, writable=False))
        return {name: self.get_project(name) for name in names if namespace is None or name.startswith(f"{namespace}/")}


def project_of_environment() -> str:
    """The project that HEADRACE_PROJECT names."""
    name = os.environ.get(PROJECT_VARIABLE)
    if not name:
        raise InvalidName(f"no project is named: write init('workspace/name'), or set {PROJECT_VARIABLE}")
    return name
