"""Series: metrics, texts, images."""

from __future__ import annotations

from time import time_ns

from headrace.live.handle import Handle, reported
from headrace.live.order import OrderWatch
from headrace.sending import ABSENT, Sending
from headrace.spool import SpoolFull
from headrace.values import has_place, optional_text, step_number, text_value, timestamp_ns
from headrace_proto import names
from headrace_proto.errors import ChannelNotFound, InvalidValue, StaleRead
from headrace_proto.events import ChannelType, Kind
from headrace_proto.limits import CHANNELS_MAX, IMAGE_BYTES_MAX, MIB, TEXT_CHARACTERS_SHOWN
from headrace_proto.warning import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, Final, SupportsFloat, SupportsIndex, TypeAlias, overload

    from headrace.live.handle import Origin
    from headrace.live.known import Known
    from headrace_proto.journal.tape import FirstEvents

    Number: TypeAlias = SupportsFloat | SupportsIndex
    """What a metric's value or step may be: int, float, bool, a NumPy number, a tensor of one element."""


class Series(Sending, Handle):
    """The calls that log points."""

    IMAGE_SIZE_LIMIT_MB: Final = IMAGE_BYTES_MAX // MIB
    """Larger image files are not logged; an artifact may have any size."""

    @property
    def limits(self) -> dict[str, dict[str, int]]:
        """How many channels one process may log to, in Neptune's form; of all types together."""
        return channel_limits()

    def __init__(self, origin: Origin, known: Known, first_events: FirstEvents | None = None) -> None:
        super().__init__(origin, known, first_events)
        self._point: Callable[[str, Any, Any, int], None] = self._writer.point
        self._row: Callable[[Mapping[str, Any], Any, int], None] = self._writer.row
        self._point_at: Callable[[str, Any, Any, int], None] = OrderWatch(self._point, self._end_watch)
        self._reset_ns: Final[dict[str, int]] = {}

    def _end_watch(self) -> None:
        self._point_at = self._point

    def _time(self, timestamp: Any, log_names: Iterable[Any]) -> int:
        """The time that a caller gives, with a warning where a reset of the channel hides what is of that time."""
        given_ns = timestamp_ns(timestamp)
        for name in log_names if self._reset_ns else ():
            if isinstance(name, str) and given_ns <= self._reset_ns.get(name, -1):
                warn(hidden_by_reset(name, timestamp))
        return given_ns

    if TYPE_CHECKING:

        @overload
        def log_metric(
            self, log_name: str, value: Number, /, *, step: Number | None = None, timestamp: float | None = None
        ) -> None: ...

        @overload
        def log_metric(self, log_name: str, x: Number, *, timestamp: float | None = None) -> None: ...

        @overload
        def log_metric(self, log_name: str, x: Number | None, y: Number, timestamp: float | None = None) -> None: ...

    def log_metric(
        self, log_name: str, x: Any, y: Any = ABSENT, timestamp: float | None = None, step: Any = None
    ) -> None:
        """Log a number: `log_metric("loss", 0.5)`, `log_metric("loss", 0.5, step=3)` or `log_metric("loss", 3, 0.5)`.

        Without a step the channel counts up by itself, over all processes that log to it. Steps may come in any order. NaN and
        infinite values are values; a step that is NaN or infinite is dropped, counted and warned about once.

        Args:
            log_name: The channel. It comes into being with its first point.
            x: The value; or, when `y` is given, the step.
            y: The value.
            timestamp: Unix time in seconds; now, when it is not given.
            step: The step of a single positional value.

        Raises:
            InvalidName: `log_name` is no name.
            InvalidValue: the value or the step is no number.
            ChannelTypeMismatch: this process logs `log_name` as texts or images.
            ExperimentStopped: after `stop()`.
        """
        # `step` is not keyword-only, as the overloads have it: CPython 3.11 specialises no call of a function with such (40 ns)
        try:
            if y is ABSENT:
                self._point(log_name, step, x, time_ns() if timestamp is None else self._time(timestamp, (log_name,)))
            elif step is None:
                point = self._point_at
                point(log_name, x, y, time_ns() if timestamp is None else self._time(timestamp, (log_name,)))
            else:
                raise TypeError(
                    f"log_metric({log_name!r}, ...) takes the step either as `step=` or before the value, not both"
                )
        except Exception as error:
            self._refuse(error)

    def log_metrics(
        self, values: Mapping[str, Number], step: Number | None = None, timestamp: float | None = None
    ) -> None:
        """Log several numbers at one step: all of them, or none when one is refused.

        Raises what `log_metric` raises, and names the channel that is wrong.
        """
        try:
            row = self._row
            row(values, step, time_ns() if timestamp is None else self._time(timestamp, values))
        except Exception as error:
            if hasattr(values, "values"):
                self._refuse(error)
            else:
                self._refuse(InvalidValue(f"log_metrics takes a mapping of names to numbers, not {values!r:.80}"))

    if TYPE_CHECKING:

        @overload
        def log_text(
            self, log_name: str, value: str, /, *, step: Number | None = None, timestamp: float | None = None
        ) -> None: ...

        @overload
        def log_text(self, log_name: str, x: str, *, timestamp: float | None = None) -> None: ...

        @overload
        def log_text(self, log_name: str, x: Number | None, y: str, timestamp: float | None = None) -> None: ...

    def log_text(
        self, log_name: str, x: Any, y: Any = ABSENT, timestamp: float | None = None, *, step: Any = None
    ) -> None:
        """Log a text; the arguments are those of `log_metric`. A text of any length is kept whole."""
        self._log_text(log_name, x, y, timestamp, step)

    @reported
    def _log_text(self, name: str, x: Any, y: Any, timestamp: float | None, step: Any) -> None:
        at, value = step_and_value(name, x, y, step)
        text = text_value(name, value)
        time = time_ns() if timestamp is None else self._time(timestamp, (name,))
        self._log_payload(Kind.TEXT, ChannelType.TEXT, names.channel_name(name), at, time, text)
        self._known.others[name] = text[:TEXT_CHARACTERS_SHOWN]

    if TYPE_CHECKING:

        @overload
        def log_image(
            self,
            log_name: str,
            image: Any,
            /,
            *,
            image_name: str | None = None,
            description: str | None = None,
            timestamp: float | None = None,
            step: Number | None = None,
        ) -> None: ...

        @overload
        def log_image(
            self,
            log_name: str,
            x: Number | None,
            y: Any,
            image_name: str | None = None,
            description: str | None = None,
            timestamp: float | None = None,
        ) -> None: ...

    def log_image(
        self,
        log_name: str,
        x: Any,
        y: Any = ABSENT,
        image_name: str | None = None,
        description: str | None = None,
        timestamp: float | None = None,
        *,
        step: Any = None,
    ) -> None:
        """Log an image: an array, a PIL image, a matplotlib figure, a path, or the bytes of an image file.

        Arrays are (height, width) or (height, width, 1, 3 or 4 channels); see `headrace.images.encode_image` for their values.
        An image file of more than IMAGE_SIZE_LIMIT_MB is not logged: it is dropped, counted and warned about.

        Raises:
            ArtifactNotFound: the path has no file.
            InvalidValue: it is none of these.
        """
        self._log_image(log_name, x, y, image_name, description, timestamp, step)

    @reported
    def _log_image(
        self,
        name: str,
        x: Any,
        y: Any,
        image_name: str | None,
        description: str | None,
        timestamp: float | None,
        step: Any,
    ) -> None:
        from headrace.images import encode_image, too_large

        at, value = step_and_value(name, x, y, step)
        facts = {
            "name": optional_text("image_name", image_name),
            "description": optional_text("description", description),
        }
        encoded = encode_image(value)
        if len(encoded.data) > IMAGE_BYTES_MAX:
            warn(too_large(name))
            self._writer.lose(1, "image too large")
            return
        time = time_ns() if timestamp is None else self._time(timestamp, (name,))
        facts["suffix"] = encoded.suffix
        self._log_payload(Kind.IMAGE, ChannelType.IMAGE, names.channel_name(name), at, time, encoded.data, facts)
        self._known.others[name] = None

    @reported
    def reset_log(self, log_name: str) -> None:
        """Hide everything that was logged to the channel up to now, by whichever process; it may be logged to anew.

        What is hidden is told by its time: a point that is given a time before now will be hidden, too, with a warning. Steps
        that are counted go on.

        Raises `ChannelNotFound` when neither this process nor the store knows the channel. Only for one that this process has not
        logged to itself is the store asked, as a read asks it; where that cannot tell, the reset is logged, with a warning.
        """
        name = names.channel_name(log_name)
        if not self._writer.knows(name):
            self._require_channel(name)
        # by the very clock of the points that it hides: under a stamp it could hide later ones, when that was set back
        reset_ns = time_ns()
        self._writer.event(Kind.RESET, reset_ns, name)
        self._reset_ns[name] = reset_ns
        self._known.others.pop(name, None)
        self._known.elsewhere.pop(name, None)
        self._writer.forget(name)

    def _require_channel(self, name: str) -> None:
        """Raise `ChannelNotFound` if the store says that there is no such channel."""
        settled = self._settled()
        if settled is None:
            warn(f"whether there is a channel {name!r} is not known here: it is reset if there is", StaleRead)
        elif all(channel.name != name for channel in settled.channels):
            raise ChannelNotFound(
                f"experiment {self.internal_id} has no channel {name!r}: neither here nor in the store"
            )

    def _log_payload(
        self,
        kind: Kind,
        channel_type: ChannelType,
        name: str,
        step: float | None,
        time: int,
        payload: bytes | str,
        *facts: Any,
    ) -> None:
        if not has_place(step):
            self._writer.lose(1, "step not finite")
            return
        target = self._writer.here()
        try:
            if target is None:
                raise SpoolFull("interrupted")
            kept = self._spool.keep_bytes(target.source, payload)
        except SpoolFull as full:
            self._writer.lose(1, str(full))
            return
        target.channel_event(kind, name, channel_type, step, time, kept.payload, *facts)


def hidden_by_reset(name: str, timestamp: Any) -> str:
    """What is said of a point that is logged under a time before that of its channel's reset, which hides all of such times."""
    return (
        f"{name!r}: a point of the time {timestamp!r} is hidden, because the channel was reset after that time: log it without a "
        "timestamp, or to another channel"
    )


def channel_limits() -> dict[str, dict[str, int]]:
    """What `Experiment.limits` says."""
    return {"channels": {kind.name.lower(): CHANNELS_MAX for kind in ChannelType}}


def step_and_value(name: str, x: Any, y: Any, step: Any) -> tuple[float | None, Any]:
    """What the arguments of a call mean: x is the value when there is no y."""
    if y is ABSENT:
        return step_number(name, step), x
    if step is not None:
        raise TypeError(f"{name!r}: the step is given either as `step=` or before the value, not both")
    return step_number(name, x), y
