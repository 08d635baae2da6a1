"""The collector's figures for Prometheus. One registry a process, so that tests may have several collectors."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """Counters and gauges of one collector."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.points = self._counter("points", "Points stored")
        self.bytes = self._counter("bytes", "Bytes of journals stored")
        self.commits = self._counter("commits", "Commits made")
        self.conflicts = self._counter("conflicts", "Commits that another collector was faster with")
        self.quarantined = self._counter("quarantined", "Frames and batches put into quarantine")
        self.lost_ranges = self._counter("lost_ranges", "Ranges of journals that were committed as lost")
        self.gaps_closed = self._counter("gaps_closed", "Gaps given up because nobody had what was missing")
        self.rewinds = self._counter("rewinds", "Sources asked to send again")
        self.duplicates = self._counter("duplicates", "Frames that the store had already")
        self.dropped = self._counter("dropped", "Frames above a gap dropped for want of room; they are sent again")
        self.strangers = self._counter("strangers", "Frames refused because their source is bound to another site")
        self.store_errors = self._counter("store_errors", "Calls of the store that failed and are tried again")
        self.files = self._counter("files", "Files stored and verified")
        self.file_bytes = self._counter("file_bytes", "Bytes of files stored in pieces")
        self.bad_files = self._counter("bad_files", "Files whose bytes are not what their digest says")
        self.compactions = self._counter("compactions", "Commits that merged small parts")
        self.swept = self._counter("swept", "Files and commits removed that nobody needs any more")
        self.partitions = self._gauge("partitions", "Partitions held")
        self.experiments = self._gauge("experiments", "Experiments at work")
        self.ready_bytes = self._gauge("ready_bytes", "Bytes of frames that wait for a commit")
        self.above_bytes = self._gauge("above_bytes", "Bytes of frames that wait above a gap")
        self.lag_s = self._gauge("lag_seconds", "Age of the oldest frame that waits for a commit")
        self.commit_s = Histogram(
            "headrace_collector_commit_seconds",
            "Duration of a commit",
            registry=self.registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
        )

    def _counter(self, name: str, what: str) -> Counter:
        return Counter(f"headrace_collector_{name}", what, registry=self.registry)

    def _gauge(self, name: str, what: str) -> Gauge:
        return Gauge(f"headrace_collector_{name}", what, registry=self.registry)
