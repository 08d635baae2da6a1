"""Edits of series: points that are added afterwards, and channels that are reset."""

from __future__ import annotations

from time import time_ns
from typing import TYPE_CHECKING, Any, Final

from headrace.editing.changes import Changes, Edit, inline_or_held
from headrace.images import encode_image, too_large
from headrace.live.series import channel_limits, hidden_by_reset, step_and_value
from headrace.sending import ABSENT, Sending
from headrace.values import has_place, metric_value, optional_text, step_number, text_value, timestamp_ns
from headrace_proto import names
from headrace_proto.errors import ChannelNotFound, ChannelTypeMismatch, InvalidValue
from headrace_proto.events import Kind
from headrace_proto.limits import IMAGE_BYTES_MAX, MIB
from headrace_proto.store.commits import PART_KINDS
from headrace_proto.store.times import us_of
from headrace_proto.warning import warn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace_proto.store.commits import PartKind


class SeriesEdits(Sending, Changes):
    """The calls that log points to a stored experiment. Each is a commit: gather many in a `headrace.buffered()` block."""

    IMAGE_SIZE_LIMIT_MB: Final = IMAGE_BYTES_MAX // MIB
    """Larger image files are not logged; an artifact may have any size."""

    @property
    def limits(self) -> dict[str, dict[str, int]]:
        """How many channels may be logged to by edits, in Neptune's form; of all types together."""
        return channel_limits()

    def log_metric(
        self, log_name: str, x: Any, y: Any = ABSENT, timestamp: float | None = None, *, step: Any = None
    ) -> None:
        """Log a number; the arguments are those of the live experiment's."""
        at, value = step_and_value(log_name, x, y, step)
        name = self._channel(log_name, "numeric")
        number, time = metric_value(name, value), self._time(timestamp, "numeric", name)
        if _has_place(name, at):
            self._edit_all([Edit((Kind.POINT, name, at, time, number))])

    def log_metrics(self, values: Mapping[str, Any], step: Any = None, timestamp: float | None = None) -> None:
        """Log several numbers at one step: all of them, or none when one is refused."""
        if not hasattr(values, "items"):
            raise InvalidValue(f"log_metrics takes a mapping of names to numbers, not {values!r:.80}")
        checked = {self._channel(name, "numeric"): metric_value(name, value) for name, value in values.items()}
        at, time = step_number("log_metrics", step), self._time(timestamp, "numeric", *checked)
        if _has_place(", ".join(checked), at):
            self._edit_all([Edit((Kind.POINT, name, at, time, number)) for name, number in checked.items()])

    def log_text(
        self, log_name: str, x: Any, y: Any = ABSENT, timestamp: float | None = None, *, step: Any = None
    ) -> None:
        """Log a text; the arguments are those of the live experiment's."""
        at, value = step_and_value(log_name, x, y, step)
        name = self._channel(log_name, "text")
        text, time = text_value(name, value), self._time(timestamp, "text", name)
        if _has_place(name, at):
            kept, payload = inline_or_held(text)
            self._edit_all([Edit((Kind.TEXT, name, at, time, kept), payload, len(text))])

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
        """Log an image; the arguments are those of the live experiment's."""
        at, value = step_and_value(log_name, x, y, step)
        name = self._channel(log_name, "image")
        facts = {
            "name": optional_text("image_name", image_name),
            "description": optional_text("description", description),
        }
        encoded, time = encode_image(value), self._time(timestamp, "image", name)
        if len(encoded.data) > IMAGE_BYTES_MAX:
            warn(too_large(name))
        elif _has_place(name, at):
            kept, payload = inline_or_held(encoded.data)
            change = (Kind.IMAGE, name, at, time, kept, {**facts, "suffix": encoded.suffix})
            self._edit_all([Edit(change, payload, len(encoded.data))])

    def reset_log(self, log_name: str) -> None:
        """Hide everything that was logged to the channel up to now. Raises `ChannelNotFound` if there is none of this name."""
        name = names.channel_name(log_name)
        channels = self._snapshot.newest().document.channels
        if all(name not in getattr(channels, kind) for kind in PART_KINDS):
            there = sorted({one for kind in PART_KINDS for one in getattr(channels, kind)})[:10]
            raise ChannelNotFound(f"there is no channel {name!r} to reset; there is {', '.join(there) or 'none'}")
        # by the very clock of the points that it hides: under a stamp it could hide later ones, when that was set back
        self._edit_all([Edit((Kind.RESET, time_ns(), name))])

    def _channel(self, name: Any, kind: PartKind) -> str:
        """A checked name. Raises `ChannelTypeMismatch` when the experiment has the channel, and of another type only."""
        checked = names.channel_name(name)
        # the commit last seen: types do not change, and to look takes time
        channels = self._snapshot.commit.document.channels
        has = [one for one in PART_KINDS if checked in getattr(channels, one)]
        if has and kind not in has:
            raise ChannelTypeMismatch(f"channel {checked!r} holds {has[0]} values; log {kind} ones under another name")
        return checked

    def _time(self, timestamp: float | None, kind: PartKind, *log_names: str) -> int:
        """Now, or the time that a caller gives, with a warning where a reset of the channel hides what is of that time."""
        if timestamp is None:
            return time_ns()
        given_ns = timestamp_ns(timestamp)
        channels = getattr(self._snapshot.commit.document.channels, kind)
        for name in log_names:
            reset_at = channels[name].reset_at if name in channels else None
            if reset_at is not None and given_ns <= 1000 * us_of(reset_at):
                warn(hidden_by_reset(name, timestamp))
        return given_ns


def _has_place(name: str, step: float | None) -> bool:
    """Whether the point can be put into order; a warning when it cannot: a condition of the data never raises."""
    if not has_place(step):
        warn(f"{name}: a point whose step is {step!r} was not logged: it has no place in a series")
        return False
    return True
