"""The old client's exceptions, by the names that `except` clauses know.

Each is also the built-in that the old client would have raised in its place somewhere, and a `HeadraceError`. Those that say so are
never raised here: nobody counts experiments, and nobody is asked who one is.
"""

from __future__ import annotations

from typing import Any, Self

from headrace_proto.errors import HeadraceError


class NeptuneException(HeadraceError):
    """The root of all."""

    @classmethod
    def saying(cls, message: str) -> Self:
        """The error with another message than that of its own arguments."""
        error = cls.__new__(cls)
        error.args = (message,)
        return error

    def __str__(self) -> str:  # KeyError would show the message's repr
        return str(self.args[0]) if self.args else ""

    def __reduce__(self) -> tuple[Any, ...]:
        return _saying, (type(self), str(self))


def _saying(kind: type[NeptuneException], message: str) -> NeptuneException:
    return kind.saying(message)


# -- What a program did wrong -------------------------------------------------------------------------------------------------


class NeptuneUninitializedException(NeptuneException):
    """A function of the module was called before `init`."""

    def __init__(self) -> None:
        super().__init__(
            "no project is open: call neptune.init('WORKSPACE/PROJECT') before neptune.create_experiment()"
        )


class NeptuneNoExperimentContextException(NeptuneException):
    """A function of the module was called while no experiment of the project runs in this process."""

    def __init__(self) -> None:
        super().__init__("no experiment runs: call neptune.create_experiment() first")


class NeptuneMissingProjectQualifiedNameException(NeptuneException):
    """`init` was given no project, and no variable names one."""

    def __init__(self) -> None:
        super().__init__("no project is named: write neptune.init('WORKSPACE/PROJECT'), or set NEPTUNE_PROJECT")


class NeptuneIncorrectProjectQualifiedNameException(NeptuneException, ValueError):
    """A project's name is not `WORKSPACE/PROJECT`."""

    def __init__(self, project_qualified_name: object) -> None:
        super().__init__(f"project {project_qualified_name!r} must be 'WORKSPACE/PROJECT', such as 'jack/sandbox'")


class InvalidNeptuneBackend(NeptuneException, ValueError):
    """NEPTUNE_BACKEND names no backend."""

    def __init__(self, provided_backend_name: object) -> None:
        super().__init__(f"NEPTUNE_BACKEND={provided_backend_name!r} is unknown: unset it, or set it to 'offline'")


class NoChannelValue(NeptuneException, ValueError):
    """A log call was given neither x nor y."""

    def __init__(self) -> None:
        super().__init__("no value to log: give one, log_metric('loss', 0.5)")


class InvalidChannelValue(NeptuneException, ValueError, TypeError):
    """A value, or its x, is not what the channel takes."""

    def __init__(self, expected_type: object, actual_type: object) -> None:
        super().__init__(f"the value must be of type {expected_type}, not {actual_type}")


class InvalidChannelX(NeptuneException, ValueError):
    """Never raised: points may come in any order of x."""


class FileNotFound(NeptuneException, FileNotFoundError):
    """A file to log does not exist, or the experiment has none of this path."""

    def __init__(self, path: object) -> None:
        super().__init__(f"no file at {path!r}")


class NotAFile(NeptuneException, OSError):
    """What should be a file is none."""

    def __init__(self, path: object) -> None:
        super().__init__(f"{path!r} is no file")


class NotADirectory(NeptuneException, NotADirectoryError):
    """What should be a folder to download into is a file."""

    def __init__(self, path: object) -> None:
        super().__init__(f"{path!r} is no folder")


class InvalidNotebookPath(NeptuneException, ValueError):
    """A notebook's file is not called `.ipynb`."""

    def __init__(self, path: object) -> None:
        super().__init__(f"{path!r} is no notebook: its name must end with .ipynb")


class NeptuneLibraryNotInstalledException(NeptuneException, ImportError):
    """A call needs a library that is not installed."""

    def __init__(self, library: object) -> None:
        super().__init__(f"the library {library!r} is not installed: pip install {library}")


class NeptuneMissingApiTokenException(NeptuneException):
    """Never raised: no token is needed."""


class DeprecatedApiToken(NeptuneException):
    """Never raised: no token is needed."""


class CannotResolveHostname(NeptuneException):
    """Never raised: a program that logs connects to nothing."""


class UnsupportedClientVersion(NeptuneException):
    """Never raised: there is no server that could refuse it."""


# -- What the server said: `neptune.api_exceptions` ---------------------------------------------------------------------------


class NeptuneApiException(NeptuneException):
    """The root of what the old server could answer."""


class ExperimentValidationError(NeptuneApiException, ValueError, TypeError):
    """An argument is wrong: a parameter, a property, a tag, a name, a path."""


class NamespaceNotFound(NeptuneApiException, LookupError):
    """The store has no project in the workspace."""

    def __init__(self, namespace_name: object) -> None:
        super().__init__(f"the store has no project in the workspace {namespace_name!r}")


class ProjectNotFound(NeptuneApiException, LookupError):
    """No project is named. One that nothing has been logged to is found all the same: the first experiment makes it."""

    def __init__(self, project_identifier: object) -> None:
        super().__init__(f"there is no project {project_identifier!r}: name one, 'WORKSPACE/PROJECT'")


class ExperimentNotFound(NeptuneApiException, LookupError):
    """The project has no such experiment."""

    def __init__(self, experiment_short_id: object, project_qualified_name: object) -> None:
        super().__init__(f"there is no experiment {experiment_short_id!r} in {project_qualified_name!r}")


class NotebookNotFound(NeptuneApiException, LookupError):
    """The project has no notebook with this id."""

    def __init__(self, notebook_id: object, project: object = None) -> None:
        super().__init__(f"there is no notebook {notebook_id!r}" + (f" in {project!r}" if project else ""))


class ChannelNotFound(NeptuneApiException, KeyError):
    """The experiment has no numeric channel of this name."""

    def __init__(self, channel_id: object) -> None:
        super().__init__(f"there is no channel {channel_id!r}")


class ChannelDoesNotExist(NeptuneApiException, KeyError):
    """There is no log of this name to reset."""

    def __init__(self, experiment_short_id: object, channel_name: object) -> None:
        super().__init__(f"there is no log {channel_name!r} in the experiment {experiment_short_id!r}")


class ExperimentAlreadyFinished(NeptuneApiException, RuntimeError):
    """Something was logged after `stop()`, and the experiment is not in the store yet, where it could be changed."""

    def __init__(self, experiment_short_id: object) -> None:
        super().__init__(f"experiment {experiment_short_id!r} was stopped: log before stop()")


class PathInProjectNotFound(NeptuneApiException, LookupError):
    """Never raised: see `FileNotFound`."""


class ChannelAlreadyExists(NeptuneApiException):
    """Never raised."""


class ChannelsValuesSendBatchError(NeptuneApiException):
    """Never raised: nothing is thrown away when it is sent."""


class ExperimentLimitReached(NeptuneApiException):
    """Never raised: a project may have any number of experiments."""


class StorageLimitReached(NeptuneApiException):
    """Never raised: a store is as large as its disk."""


class Unauthorized(NeptuneApiException):
    """Never raised: a program that logs is asked by nobody who it is."""


class Forbidden(NeptuneApiException):
    """Never raised: likewise."""


class InvalidApiKey(NeptuneApiException):
    """Never raised: no token is needed."""


class ConnectionLost(NeptuneApiException):
    """Never raised: a program that logs connects to nothing."""


class ServerError(NeptuneApiException):
    """Never raised: likewise."""


class SSLError(NeptuneException):
    """Never raised: likewise."""


# -- What versions before 0.4.120 and after 0.9 called some of them -----------------------------------------------------------

Uninitialized = NeptuneUninitializedException
NoExperimentContext = NeptuneNoExperimentContextException
MissingProjectQualifiedName = NeptuneMissingProjectQualifiedNameException
IncorrectProjectQualifiedName = NeptuneIncorrectProjectQualifiedNameException
MissingApiToken = NeptuneMissingApiTokenException
LibraryNotInstalled = NeptuneLibraryNotInstalledException
WorkspaceNotFound = NamespaceNotFound
