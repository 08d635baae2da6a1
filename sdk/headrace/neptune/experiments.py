"""Experiments: one class for those that run and those that are stored, as the old client had it."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

from headrace.experiment import Experiment as Running
from headrace.experiment import running
from headrace.neptune.channels import Log, log_here, log_of
from headrace.neptune.exceptions import ExperimentValidationError, InvalidChannelValue, NoChannelValue
from headrace.neptune.translation import OF_RESETS, OF_VALUES, old_errors
from headrace.values import as_float
from headrace.waiting import agent_serves
from headrace_proto.errors import ExperimentNotFound, MissingExtra
from headrace_proto.limits import IMAGE_BYTES_MAX, MIB

if TYPE_CHECKING:
    from types import TracebackType

    import pandas as pd

    from headrace.neptune.backend import Backend
    from headrace.neptune.projects import Project
    from headrace.reading import StoredExperiment

    Handle: TypeAlias = Running | StoredExperiment

_logger = logging.getLogger("neptune.experiments")  # the name by which scripts silence it


class Experiment:
    """An experiment: one that runs in this process, or one that the store has, or the first and then, once stopped, the second.

    Made by `Project.create_experiment` and `Project.get_experiments`. What is logged to one that the store has goes the way of all
    events, beside those of the process that ran it; where no agent ships them each call is a commit (see `headrace.buffered`).
    """

    IMAGE_SIZE_LIMIT_MB: Final = IMAGE_BYTES_MAX // MIB

    def __init__(
        self, backend: Backend, project: Project, _id: str | None, internal_id: str, *, handle: Handle | None = None
    ) -> None:
        self._backend: Final = backend
        self._project: Final = project
        self._id = _id
        self._internal_id: Final = internal_id
        self._handle: Final = handle or running(internal_id) or project._native.get_experiment(internal_id)
        self._source: Running | None = self._handle if isinstance(self._handle, Running) else None  # what logs here

    def _reading(self) -> Handle:
        """What knows the experiment: the handle that runs it; else, if the store has it, what is stored of it by now."""
        source = self._source
        if source is None or (source is self._handle and source.state == "running"):
            return self._handle
        try:
            return source.stored()
        except (ExperimentNotFound, MissingExtra):  # nobody has stored it yet: the handle knows what this process did
            return source

    def _writing(self) -> Handle:
        """What logs to it: the handle that runs it; else one that joins it, if somebody ships what that logs; else the store."""
        source = self._source
        if source is not None and source.state == "running":
            return source
        native = self._project._native
        if not (native.direct or agent_serves(native.home)):
            return self._reading()
        self._source = native.attach(self._internal_id)
        self._project._expect(self)
        return self._source

    # -- Identity --------------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The short id, such as `SAL-1`; the internal id where no collector has given one within 2 s."""
        if not self._id:
            self._id = self._handle.id or self._internal_id
        return self._id

    @property
    def internal_id(self) -> str:
        """32 hexadecimal digits."""
        return self._internal_id

    @property
    @old_errors()
    def name(self) -> str:
        """Its name."""
        return self._reading().name

    @property
    @old_errors()
    def state(self) -> str:
        """`running`, `succeeded`, `failed` or `aborted`."""
        handle = self._reading()
        if not isinstance(handle, Running):
            handle.refresh()
        return handle.state

    @property
    def limits(self) -> dict[str, dict[str, int]]:
        """How many channels of each type an experiment takes."""
        return self._handle.limits

    def settle(self) -> bool:
        """Wait, bounded, until the store has what this process has logged, else warn. True if there will be no more of it."""
        source = self._source
        if source is None:
            return True
        over = source.ended
        with suppress(ExperimentNotFound, MissingExtra):
            source.stored()
        return over and source.wait("stored", 0).reached

    def __repr__(self) -> str:
        return repr(self._handle)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Experiment):
            return NotImplemented
        return (self._internal_id, self._project) == (other._internal_id, other._project)

    def __hash__(self) -> int:
        return hash(self._internal_id)

    # -- Facts -----------------------------------------------------------------------------------------------------------

    @old_errors()
    def get_system_properties(self) -> dict[str, Any]:
        """id, name, created, finished, running_time (s), owner, sizes (bytes), tags, notes, description, hostname."""
        return self._reading().get_system_properties()

    @old_errors()
    def get_tags(self) -> list[str]:
        """The tags."""
        return self._reading().get_tags()

    @old_errors()
    def append_tag(self, tag: str | list[str], *tags: str) -> None:
        """Add tags: one, several, or a list of them. Raises `ExperimentValidationError`."""
        self._writing().append_tag(tag, *tags)

    def append_tags(self, tag: str | list[str], *tags: str) -> None:
        """`append_tag`."""
        self.append_tag(tag, *tags)

    @old_errors()
    def remove_tag(self, tag: str) -> None:
        """Remove a tag. One that is not there is ignored."""
        self._writing().remove_tag(tag)

    @old_errors()
    def get_parameters(self) -> dict[str, float | str]:
        """The parameters, as the old server had them: numbers are floats, everything else is text."""
        return {name: _old_parameter(value) for name, value in self._reading().get_parameters().items()}

    @old_errors()
    def get_properties(self) -> dict[str, str]:
        """The properties."""
        return self._reading().get_properties()

    @old_errors()
    def set_property(self, key: str, value: Any) -> None:
        """Set a property to the text of `value`."""
        self._writing().set_property(key, value)

    @old_errors()
    def remove_property(self, key: str) -> None:
        """Remove a property. Raises `KeyError` if there is none of this name."""
        there = self.get_properties()
        if key not in there:
            raise KeyError(f"there is no property {key!r} to remove; there is: {', '.join(sorted(there)) or 'none'}")
        self._writing().remove_property(key)

    # -- Series ----------------------------------------------------------------------------------------------------------

    @old_errors()
    def get_logs(self) -> dict[str, Log]:
        """The logs by name: each is its last value, and has it as `y`, with its `x`."""
        handle = self._reading()
        here: dict[str, Any] = {}
        stored: StoredExperiment | None
        if isinstance(handle, Running):
            here = handle.get_logs()
            try:
                stored = handle.stored()
            except (ExperimentNotFound, MissingExtra):
                stored = None
        else:
            stored = handle
        logs: dict[str, Log] = {}
        if stored is not None:
            there = stored.get_logs()
            for channel in stored.channels:
                if channel.name in there:
                    logs.setdefault(channel.name, log_of(channel))
        return logs | {name: log_here(name, value) for name, value in here.items() if name not in logs}

    def get_channels(self) -> dict[str, Log]:
        """`get_logs`."""
        return self.get_logs()

    @old_errors(OF_VALUES)
    def log_metric(self, log_name: str, x: Any, y: Any = None, timestamp: float | None = None) -> None:
        """Log a number: `log_metric('loss', 0.5)`, or with its x before it. One that is NaN or infinite, or whose x is, is dropped
        with a warning.

        Raises `NoChannelValue`, `InvalidChannelValue`.
        """
        x, y = self._get_valid_x_y(x, y)
        value = _number(y)
        if not isfinite(value):
            _logger.warning("%s: the value %s was not logged: NaN and infinities are dropped", log_name, y)
        elif x is not None and not isfinite(x):
            _logger.warning("%s: the value %s was not logged: its x is %s", log_name, y, x)
        else:
            self._writing().log_metric(log_name, x, value, timestamp)

    def send_metric(self, channel_name: str, x: Any, y: Any = None, timestamp: float | None = None) -> None:
        """`log_metric`."""
        self.log_metric(channel_name, x, y, timestamp)

    @old_errors(OF_VALUES)
    def log_text(self, log_name: str, x: Any, y: Any = None, timestamp: float | None = None) -> None:
        """Log a text. One whose x is NaN or infinite is logged without, and warned about.

        Raises `NoChannelValue`, `InvalidChannelValue`.
        """
        x, y = self._get_valid_x_y(x, y)
        if not isinstance(y, str):
            raise InvalidChannelValue("str", type(y).__name__)
        self._writing().log_text(log_name, _finite(log_name, x), y, timestamp)

    def send_text(self, channel_name: str, x: Any, y: Any = None, timestamp: float | None = None) -> None:
        """`log_text`."""
        self.log_text(channel_name, x, y, timestamp)

    @old_errors(OF_VALUES)
    def log_image(
        self,
        log_name: str,
        x: Any,
        y: Any = None,
        image_name: str | None = None,
        description: str | None = None,
        timestamp: float | None = None,
    ) -> None:
        """Log an image: a path, a PIL image, a matplotlib figure, an array, a tensor. x as in `log_text`.

        One whose file has more than 15 MB is dropped with a warning.

        Raises `NoChannelValue`, `InvalidChannelValue`, `FileNotFound`.
        """
        x, y = self._get_valid_x_y(x, y)
        self._writing().log_image(log_name, _finite(log_name, x), y, image_name, description, timestamp)

    def send_image(
        self,
        channel_name: str,
        x: Any,
        y: Any = None,
        name: str | None = None,
        description: str | None = None,
        timestamp: float | None = None,
    ) -> None:
        """`log_image`."""
        self.log_image(channel_name, x, y, name, description, timestamp)

    @staticmethod
    def _get_valid_x_y(x: Any, y: Any) -> tuple[float | None, Any]:
        """What the two mean: a single one is the value, wherever it stands."""
        if x is None and y is None:
            raise NoChannelValue
        if x is None or y is None:
            return None, y if x is None else x
        return _number(x), y

    @old_errors(OF_RESETS)
    def reset_log(self, log_name: str) -> None:
        """Hide what a log holds; it may be logged to anew. Raises `ChannelDoesNotExist`."""
        self._writing().reset_log(log_name)

    @old_errors()
    def get_numeric_channels_values(self, *channel_names: str) -> pd.DataFrame:
        """Numeric logs side by side: `x`, then one column a log. Raises `ChannelNotFound`, a `KeyError`."""
        return self._reading().get_numeric_channels_values(*channel_names)

    @old_errors()
    def get_hardware_utilization(self) -> pd.DataFrame:
        """`x_ram`, `y_ram`, `x_cpu`, `y_cpu`, `x_gpu_util_0`, ...: milliseconds from the start, GB, percent."""
        return self._reading().get_hardware_utilization()

    # -- Files -----------------------------------------------------------------------------------------------------------

    @old_errors()
    def log_artifact(self, artifact: Any, destination: str | None = None) -> None:
        """Keep a file, a folder, or what an open file or buffer holds. Raises `FileNotFound`, `ValueError`."""
        self._writing().log_artifact(artifact, destination)

    def send_artifact(self, artifact: Any, destination: str | None = None) -> None:
        """`log_artifact`."""
        self.log_artifact(artifact, destination)

    @old_errors()
    def delete_artifacts(self, path: str | list[str]) -> None:
        """Delete files and folders, never all of them. Raises `FileNotFound`, and `ValueError` for a path that leads elsewhere."""
        paths = path if isinstance(path, list) else [path]
        if any(not isinstance(one, str) for one in paths):
            raise ExperimentValidationError.saying(f"a path to delete must be a str, not {path!r:.80}")
        self._writing().delete_artifacts([os.path.normpath(one) for one in paths])

    @old_errors()
    def download_artifact(self, path: str, destination_dir: str | None = None) -> None:
        """Download one file under its own name. Raises `FileNotFound`, `NotADirectory`."""
        self._reading().download_artifact(path, destination_dir or None)

    @old_errors()
    def download_artifacts(self, path: str | None = None, destination_dir: str | None = None) -> None:
        """Download a folder, a file, or everything, as a ZIP archive of that name. Raises `FileNotFound`, `NotADirectory`."""
        self._reading().download_artifacts(path or None, destination_dir or None)

    @old_errors()
    def download_sources(self, path: str | None = None, destination_dir: str | None = None) -> None:
        """Download source files likewise."""
        self._reading().download_sources(path or None, destination_dir or None)

    # -- The end ---------------------------------------------------------------------------------------------------------

    @old_errors()
    def stop(self, exc_tb: str | None = None) -> None:
        """End it: succeeded, or failed when `exc_tb` says why. One that has ended stays as it is."""
        for handle in self._handles():
            handle.stop(exc_tb)
        self._project._remove_stopped_experiment(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        for handle in self._handles():
            handle.__exit__(exc_type, exc_val, exc_tb)
        self._project._remove_stopped_experiment(self)

    def _handles(self) -> list[Handle]:
        """What is to be ended: what joined it, which has no word on how it went, and what it was opened as."""
        beside = self._source is not None and self._source is not self._handle
        return [self._source, self._handle] if beside and self._source else [self._handle]


def _number(value: Any) -> float:
    number = as_float(value)
    if number is None:
        raise InvalidChannelValue.saying(f"{value!r:.80} is no number: expected float, not {type(value).__name__}")
    return number


def _finite(log_name: str, x: float | None) -> float | None:
    if x is None or isfinite(x):
        return x
    _logger.warning("%s: logged without its x, which is %s", log_name, x)
    return None


def _old_parameter(value: Any) -> float | str:
    """A parameter as the old server had it: the float of a finite number, else its text."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        return str(value)
    return float(value)
