"""From Headrace's errors to the old ones, with the messages that name the value and the remedy."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Final, ParamSpec, TypeAlias, TypeVar

from headrace.neptune import exceptions as old
from headrace_proto import errors

if TYPE_CHECKING:
    from collections.abc import Callable

_P = ParamSpec("_P")
_R = TypeVar("_R")

Pairs: TypeAlias = "tuple[tuple[type[errors.HeadraceError], type[old.NeptuneException]], ...]"

_PAIRS: Final[Pairs] = (
    (errors.InvalidName, old.ExperimentValidationError),
    (errors.InvalidValue, old.ExperimentValidationError),
    (errors.ExperimentStopped, old.ExperimentAlreadyFinished),
    (errors.ExperimentNotFound, old.ExperimentNotFound),
    (errors.ProjectNotFound, old.ProjectNotFound),
    (errors.NotebookNotFound, old.NotebookNotFound),
    (errors.ChannelNotFound, old.ChannelNotFound),
    (errors.ArtifactNotFound, old.FileNotFound),
    (errors.NotAFolder, old.NotADirectory),
    (errors.MissingExtra, old.NeptuneLibraryNotInstalledException),
)
"""What is none of these becomes a plain `NeptuneException`."""

OF_VALUES: Final[Pairs] = ((errors.InvalidValue, old.InvalidChannelValue),)
"""Where a value is logged."""
OF_RESETS: Final[Pairs] = ((errors.ChannelNotFound, old.ChannelDoesNotExist),)
"""Where a log is reset."""
OF_NAMES: Final[Pairs] = ((errors.InvalidName, old.NeptuneIncorrectProjectQualifiedNameException),)
"""Where a project is opened."""


def old_error(error: errors.HeadraceError, special: Pairs = ()) -> old.NeptuneException:
    """The old exception that stands for `error`."""
    for kind, name in (*special, *_PAIRS):
        if isinstance(error, kind):
            return name.saying(str(error))
    return old.NeptuneException.saying(f"{type(error).__name__}: {error}")


def old_errors(special: Pairs = ()) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """A function that raises the old exceptions."""

    def decorate(call: Callable[_P, _R]) -> Callable[_P, _R]:
        @wraps(call)
        def translated(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            try:
                return call(*args, **kwargs)
            except old.NeptuneException:
                raise
            except errors.HeadraceError as error:
                raise old_error(error, special) from error

        return translated

    return decorate
