"""Sessions: where projects are found."""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from typing import Any, Final, Self

from headrace.neptune.backend import HostedNeptuneBackend, backend_of
from headrace.neptune.exceptions import (
    NamespaceNotFound,
    NeptuneIncorrectProjectQualifiedNameException,
    ProjectNotFound,
)
from headrace.neptune.projects import Project
from headrace.neptune.translation import OF_NAMES, old_errors

_QUALIFIED: Final = re.compile(r"[^/]+/[^/]+")
_logger = logging.getLogger("neptune.sessions")


class Session:
    """Opens projects. Connects to nothing; `api_token` and `proxies` are not needed, see `neptune.backend`."""

    def __init__(self, api_token: str | None = None, proxies: Any = None, backend: Any = None) -> None:
        self._backend: Final = backend_of(backend, api_token, proxies)

    @classmethod
    def with_default_backend(cls, api_token: str | None = None) -> Self:
        """The session that `init` makes."""
        return cls(backend=HostedNeptuneBackend(api_token))

    @old_errors(OF_NAMES)
    def get_project(self, project_qualified_name: str) -> Project:
        """The project `WORKSPACE/PROJECT`, whether anything has been logged to it or not.

        Raises `ProjectNotFound` when no name is given, `NeptuneIncorrectProjectQualifiedNameException` for one of another form.
        """
        if not project_qualified_name:
            raise ProjectNotFound(project_qualified_name)
        if not _QUALIFIED.fullmatch(str(project_qualified_name)):
            raise NeptuneIncorrectProjectQualifiedNameException(project_qualified_name)
        return _project(self, project_qualified_name)

    @old_errors()
    def get_projects(self, namespace: str) -> OrderedDict[str, Project]:
        """The projects of a workspace that the store has, by their full ids. Raises `NamespaceNotFound` when it has none."""
        found = OrderedDict((name, _project(self, name)) for name in self._backend.session.get_projects(namespace))
        if not found:
            raise NamespaceNotFound(namespace)
        return found


def _project(session: Session, name: str) -> Project:
    namespace, _, rest = name.partition("/")
    native = session._backend.session.get_project(name)
    return Project(session._backend, native.internal_id, namespace, rest)
