"""The agent's numbers for Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

_PREFIX: Final = "headrace_agent"


class Metrics:
    """Counters that the parts count, gauges that read the parts when scraped. Each agent has its own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.frames = self._counter("frames", "Frames that the stream acknowledged", "stream")
        self.frame_bytes = self._counter("frame_bytes", "Their bytes, compressed", "stream")
        self.raw_bytes = self._counter("raw_bytes", "Journal or file bytes in them", "stream")
        self.retries = self._counter("retries", "Frames that were not acknowledged and are sent again", "reason")
        self.lost_ranges = self._counter("lost_ranges", "Ranges of journals that had to be given up", "reason")
        self.rewinds = self._counter("rewinds", "Times that a source or file was sent again", "reason")
        self.questions = self._counter(
            "questions", "Times that the store was asked whether it has what was sent", "reason"
        )
        self.marks = self._counter("marks", "Watermarks heard", "outcome")
        self.files = self._counter("files", "Spooled files that were settled", "outcome")
        self.hardware_errors = self._counter("hardware_errors", "Readings of hardware that failed", "part")
        self.journals_finished = self._counter("journals_finished", "Journals wholly stored, and deleted", "end")

        self.leftovers = self._counter("leftovers", "Things removed that killed processes had left behind", "what")

    def _counter(self, name: str, help_text: str, label: str) -> Counter:
        return Counter(f"{_PREFIX}_{name}", help_text, [label], registry=self.registry)

    def gauge(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """A number that is read when somebody looks."""
        Gauge(f"{_PREFIX}_{name}", help_text, registry=self.registry).set_function(read)
