"""What `get_logs` gives. The old documentation promised last values, the old code gave channels: these are both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from headrace.reading.experiment import Channel


class Log:
    """A log and its last point: `x`, and `y`."""

    name: str
    x: float | None
    type: str

    @property
    def y(self) -> float | str | None:
        """The last value, None of images."""
        return None

    @property
    def id(self) -> str:
        """Its name: a log has no other id."""
        return self.name

    @property
    def channelType(self) -> str:  # noqa: N802 - the old name
        """'numeric', 'text' or 'image'."""
        return self.type


class NumericLog(Log, float):
    """A log of numbers. It is its last value, too."""

    type = "numeric"

    def __new__(cls, y: float, name: str = "", x: float | None = None) -> Self:  # noqa: D102
        made = super().__new__(cls, y)
        made.name, made.x = name, x
        return made

    @property
    def y(self) -> float:
        """The last value."""
        return float(self)


class TextLog(Log, str):
    """A log of texts. It is the beginning of its last text, too."""

    __slots__ = ("name", "x")
    type = "text"

    def __new__(cls, y: str, name: str = "", x: float | None = None) -> Self:  # noqa: D102
        made = super().__new__(cls, y)
        made.name, made.x = name, x
        return made

    @property
    def y(self) -> str:
        """The beginning of the last text."""
        return str(self)


class OtherLog(Log):
    """A log of images, or one that holds nothing since it was reset."""

    def __init__(self, name: str, x: float | None = None, type: str = "image") -> None:
        self.name, self.x, self.type = name, x, type

    def __repr__(self) -> str:
        return f"OtherLog({self.name!r}, x={self.x})"


def log_of(channel: Channel) -> Log:
    """The log that the store has."""
    if channel.type == "image" or channel.y is None:
        return OtherLog(channel.name, channel.x, channel.type)
    return log_here(channel.name, channel.y, channel.x)


def log_here(name: str, value: Any, x: float | None = None) -> Log:
    """The log that this process knows the last value of."""
    if value is None:
        return OtherLog(name, x)
    return TextLog(value, name, x) if isinstance(value, str) else NumericLog(value, name, x)
