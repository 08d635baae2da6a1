"""Reads of what only the store has: series, hardware, files. They wait a little for what this process has just logged."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from headrace import waiting
from headrace.live.life import Life
from headrace_proto.errors import StaleRead
from headrace_proto.warning import warn

if TYPE_CHECKING:
    import pandas as pd

    from headrace.reading import StoredExperiment


class Reads(Life):
    """The calls that read back. Each waits at most HEADRACE_READ_S (5 s), and not at all when no agent serves this home."""

    _reader: StoredExperiment | None = None
    _read_by = 0

    def stored(self) -> StoredExperiment:
        """The experiment as the store has it now, after a short wait for what this process has logged.

        Warns with `StaleRead`, and the positions, when that is not all there yet.

        Raises:
            ExperimentNotFound: the store has nothing of it yet.
            MissingExtra: reading needs `pip install 'headrace[read]'`.
        """
        from headrace.reading import StoredExperiment
        from headrace_proto.store.backend import open_store

        origin = self.origin
        answered = origin.direct or waiting.agent_serves(origin.home)
        receipt = self.wait("stored", waiting.read_bound_s() if answered else 0.0)
        if not receipt.reached:
            why = "" if answered else ": no agent serves this home"
            warn(f"read {receipt.stored} of {receipt.journaled} bytes logged by this process{why}", StaleRead)
        if self._reader is None or self._read_by != os.getpid():  # a store's connections are their process's own
            self._read_by = os.getpid()
            store = open_store(origin.store, writable=False)
            self._reader = StoredExperiment(store, origin.project, self.internal_id)
        return self._reader

    def get_numeric_channels_values(self, *channel_names: str) -> pd.DataFrame:
        """The points of numeric channels, of all processes: a column `x` of steps, and one for each channel."""
        return self.stored().get_numeric_channels_values(*channel_names)

    def get_channel(self, name: str, **how: Any) -> pd.DataFrame:
        """The points of one channel; see `headrace.reading.StoredExperiment.get_channel`."""
        return self.stored().get_channel(name, **how)

    def get_hardware_utilization(self) -> pd.DataFrame:
        """CPU, memory and GPU use of the nodes that ran the experiment."""
        return self.stored().get_hardware_utilization()
