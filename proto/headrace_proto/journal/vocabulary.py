"""The words of one source: which number stands for which channel and which row, and the bytes that name them in an event."""

from __future__ import annotations

from struct import Struct

from headrace_proto.errors import ChannelTypeMismatch, InvalidValue
from headrace_proto.events import (
    AUTO_ROW_HEAD,
    ROW_HEAD,
    ChannelType,
    auto_point_prefix,
    auto_row_prefix,
    point_prefix,
    row_prefix,
)
from headrace_proto.limits import CHANNELS_MAX, ROW_VALUES_MAX, SCHEMAS_MAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final


class RowLayout:
    """How a row of certain channels is written, and where the last one was."""

    __slots__ = ("at", "auto_prefix", "auto_width", "bytes", "keys", "pack", "pack_auto", "prefix", "width")

    def __init__(self, number: int, keys: tuple[str, ...]) -> None:
        self.keys: Final = [*keys]  # a list, because that is what a caller's names are compared as
        self.prefix: Final = row_prefix(number)
        self.auto_prefix: Final = auto_row_prefix(number)
        whole, auto = (Struct(f"{head.format}{len(keys)}d") for head in (ROW_HEAD, AUTO_ROW_HEAD))
        self.pack: Final = whole.pack_into
        self.pack_auto: Final = auto.pack_into
        self.bytes: Final = 8 * len(keys)
        self.width: Final = whole.size
        self.auto_width: Final = auto.size
        self.at = 0
        """The offset behind the last row in the segment in use; 0: none."""


class Vocabulary:
    """The channels and rows that a source has defined. A word is added only after its definition is in the journal."""

    __slots__ = ("_channels", "auto_points", "points", "rows")

    def __init__(self) -> None:
        self._channels: dict[str, tuple[int, ChannelType]] = {}
        self.points: dict[str, bytes] = {}
        self.auto_points: dict[str, bytes] = {}
        self.rows: dict[tuple[str, ...], RowLayout] = {}

    def number(self, name: object, type: ChannelType) -> int | None:
        """The number of the channel, None while it has none. Raises `ChannelTypeMismatch` when it is of another type."""
        known = self._channels.get(name) if isinstance(name, str) else None
        if known is None:
            return None
        if known[1] is not type:
            raise ChannelTypeMismatch(
                f"channel {name!r} holds {known[1].name.lower()} values; log {type.name.lower()} ones under another name"
            )
        return known[0]

    def knows(self, name: str) -> bool:
        """Whether the channel has a number, of whatever type it is."""
        return name in self._channels

    def next_channel(self, name: str) -> int:
        """The number that the new channel will have."""
        if len(self._channels) >= CHANNELS_MAX:
            raise InvalidValue(
                f"channel {name!r} would be number {CHANNELS_MAX + 1} of this process: put what varies into the step or a text"
            )
        return len(self._channels)

    def add_channel(self, name: str, type: ChannelType) -> None:
        """Take up a channel under the number that `next_channel` gave."""
        number = len(self._channels)
        self._channels[name] = (number, type)
        if type is ChannelType.NUMERIC:
            self.points[name] = point_prefix(number)
            self.auto_points[name] = auto_point_prefix(number)

    def next_schema(self, keys: tuple[str, ...]) -> int | None:
        """The number that a new row will have; None when it must be written as points."""
        if not keys or len(self.rows) >= SCHEMAS_MAX or len(keys) > ROW_VALUES_MAX:
            return None
        return len(self.rows)

    def add_row(self, keys: tuple[str, ...]) -> RowLayout:
        """Take up a row under the number that `next_schema` gave."""
        layout = self.rows[keys] = RowLayout(len(self.rows), keys)
        return layout
