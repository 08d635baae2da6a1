"""Every error that a user of Headrace can meet.

Each is a `HeadraceError` and also the built-in that a caller would catch. A message names the offending value and says what
to do about it. Errors of the *program* (a wrong type, a bad name) are raised at the call; conditions of the *data* or of the
*machine* (a NaN step, a full disk) never are: those are dropped, counted, warned about once and shown as a gap.
"""

from __future__ import annotations


class HeadraceError(Exception):
    """The root of every error that Headrace raises on purpose."""


class InvalidName(HeadraceError, ValueError):
    """A project, channel, tag, property or artifact is called something that no store can hold."""


class InvalidValue(HeadraceError, ValueError, TypeError):
    """A value is not of the kind that its channel, parameter or property takes."""


class ChannelTypeMismatch(InvalidValue):
    """A channel that this process logs as one type was given a value of another."""


class ExperimentStopped(HeadraceError, RuntimeError):
    """A call was made on an experiment after its `stop()`."""


class ExperimentNotFound(HeadraceError, LookupError):
    """No experiment has this id, or a prefix of an id fits more than one."""


class ExperimentExists(HeadraceError, ValueError):
    """`create_experiment(key=..., resume="never")` met an experiment that has this key already."""


class NotebookNotFound(HeadraceError, LookupError):
    """The project has no notebook with this id."""


class NoProject(HeadraceError, RuntimeError):
    """A function of the module was called before a project was opened."""


class NoExperiment(HeadraceError, RuntimeError):
    """A function of the module was called while no experiment runs in this process."""


class ProjectNotFound(HeadraceError, LookupError):
    """The store holds no project of this name."""


class ChannelNotFound(HeadraceError, KeyError):
    """The experiment has no channel of this name."""

    def __str__(self) -> str:  # KeyError would show the message's repr
        return str(self.args[0]) if self.args else ""


class ArtifactNotFound(HeadraceError, FileNotFoundError):
    """A file to log does not exist, or the experiment has no artifact of this path."""


class NotAFolder(HeadraceError, NotADirectoryError):
    """What should be a folder to download into is a file."""


class HomeUnusable(HeadraceError, PermissionError):
    """The folder for journals cannot be made, read or written, or belongs to somebody else."""


class UnknownStore(HeadraceError, ValueError):
    """The store's URL has a protocol that fsspec does not know, or cannot be read as a URL."""


class StoreUnsuitable(HeadraceError, OSError):
    """The store cannot create an object only if it is absent, so that two committers could overwrite each other."""


class FormatUnknown(HeadraceError, ValueError):
    """Bytes of a version that this release does not know. Nothing was changed; a newer release reads them."""


class Corrupt(HeadraceError, ValueError):
    """Bytes that are not what their checksum or their layout says."""


class CommitConflict(HeadraceError, RuntimeError):
    """Another committer moved this experiment on; what was staged upon the old commit has been dropped."""


class SaveError(HeadraceError, TimeoutError):
    """What was logged did not reach the store in time. The message gives the positions that were reached."""


class ConfigError(HeadraceError, ValueError):
    """A setting is unknown or wrong. The message names the key and where it was set."""


class AlreadyRunning(HeadraceError, RuntimeError):
    """Another process has the lock of this home."""


class StreamUnsuitable(HeadraceError, ValueError):
    """A stream of ours exists on the broker with settings under which frames could be lost."""


class ServerUnusable(HeadraceError, RuntimeError):
    """The nats-server program cannot be found, or it does not start."""


class MissingExtra(HeadraceError, ImportError):
    """A feature needs an optional dependency; the message gives the pip command that installs it."""

    @classmethod
    def named(cls, feature: str, extra: str) -> MissingExtra:
        """The error for `feature`, which needs `pip install headrace[extra]`."""
        return cls(f"{feature} needs an optional part of Headrace: pip install 'headrace[{extra}]'")


class StaleRead(UserWarning):
    """A read could not wait until all that this process logged was stored; it returned what is."""


class TelemetryWarning(UserWarning):
    """Something could not be logged; training goes on and the store will show a gap."""
