"""The names under which Neptune also had the calls that log points."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

ABSENT: Final[Any] = object()
"""The second positional value of a call that has only one. Not None: a metric that came out as None must be refused, and not have
its step taken for its value."""


class Sending:
    """`send_…` for whoever has `log_…`."""

    if TYPE_CHECKING:
        log_metric: Callable[..., None]
        log_text: Callable[..., None]
        log_image: Callable[..., None]

    def send_metric(self, channel_name: str, x: Any, y: Any = ABSENT, timestamp: float | None = None) -> None:
        """`log_metric`, as Neptune also called it."""
        self.log_metric(channel_name, x, y, timestamp)

    def send_text(self, channel_name: str, x: Any, y: Any = ABSENT, timestamp: float | None = None) -> None:
        """`log_text`, as Neptune also called it."""
        self.log_text(channel_name, x, y, timestamp)

    def send_image(
        self,
        channel_name: str,
        x: Any,
        y: Any = ABSENT,
        name: str | None = None,
        description: str | None = None,
        timestamp: float | None = None,
    ) -> None:
        """`log_image`, as Neptune also called it."""
        self.log_image(channel_name, x, y, name, description, timestamp)
