"""What a shipper drives: something that is cut into frames and sent in order. A source is one, and so is a spooled file."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from headrace_agent.batch import Cutter
from headrace_agent.metrics import Metrics
from headrace_agent.source import Due, Source
from headrace_agent.window import Flight, Window
from headrace_proto import subjects
from headrace_proto.errors import HeadraceError
from headrace_proto.frame import FrameKind

log = logging.getLogger(__name__)


class Lane(Protocol):
    """One ordered sequence of frames."""

    window: Window

    @property
    def subject(self) -> str:
        """Where its frames go."""

    def identity(self, flight: Flight) -> str:
        """The same for the same bytes of the same lane, unless they are sent again after a rewind."""

    def due(self, now_ns: int) -> Due:
        """Whether it has something to send now."""

    async def cut(self, bytes_max: int, now_ns: int) -> bool:
        """Add the next frame to the window, of at most `bytes_max` raw bytes. False when there is none after all."""
        ...

    def acknowledged(self, flight: Flight) -> None:
        """The stream has this frame."""

    def start_again(self) -> None:
        """The stream has lost what it had acknowledged: send again all that the store does not have."""


class SourceLane:
    """A source on its way to the stream."""

    def __init__(
        self,
        source: Source,
        cutter: Cutter,
        metrics: Metrics,
        site: str,
        run: str,
        on_streamed: Callable[[Source], None],
    ) -> None:
        self.source = source
        self.window = source.window
        self.subject = subjects.events(site, source.header.experiment, source.id)
        self.hurry = False
        self.fault: Exception | None = None
        self._cutter = cutter
        self._metrics = metrics
        self._run = run
        self._on_streamed = on_streamed

    def identity(self, flight: Flight) -> str:
        """`run` changes with each start of an agent, because the count of epochs begins again with it."""
        label = f":{flight.label}" if flight.label else ""
        return f"{self.source.id}:{flight.first}-{flight.end}:{self._run}.{flight.epoch}{label}"

    def due(self, now_ns: int) -> Due:
        """Whether the source has something to send now."""
        return self.source.due(now_ns, hurry=self.hurry) if self.fault is None else Due.NOTHING

    async def cut(self, bytes_max: int, now_ns: int) -> bool:
        """Cut a batch. A journal that turns out to be unreadable becomes this lane's `fault`, and nobody else's."""
        try:
            frame = self._cutter.cut(self.source, bytes_max, now_ns)
        except (HeadraceError, OSError) as fault:
            self.fault = fault
            log.exception("source %s cannot be read any further", self.source.id)
            return False
        if frame is None:
            return False
        if frame.kind is FrameKind.LOST:
            self._metrics.lost_ranges.labels(frame.reason).inc()
            log.error("source %s: [%d, %d) is lost: %s", self.source.id, frame.first, frame.end, frame.reason)
        return True

    def acknowledged(self, flight: Flight) -> None:
        """The stream has this frame."""
        if self.source.acknowledged(flight):
            self._on_streamed(self.source)

    def start_again(self) -> None:
        """Send again from the store's mark."""
        self.source.start_again()
