"""neptune-scale, offline: every call writes a record to SQLite, to be synced to a server later."""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from tests.benchmarks.peers.peer import CHANNEL, Log, Peer, Series

if TYPE_CHECKING:
    from collections.abc import Mapping

_READ_BYTES: Final = 16 * 1024 * 1024


class NeptuneScale(Peer):
    """`neptune_scale.Run(mode="offline")`, `log_metrics`."""

    name: ClassVar[str] = "neptune-scale"
    distribution: ClassVar[str] = "neptune-scale"
    environment: ClassVar[Mapping[str, str]] = {"NEPTUNE_MODE": "offline"}
    columns: ClassVar[frozenset[str]] = frozenset({"scalars", "rows", "first", "kill", "read"})
    way: ClassVar[str] = (
        "`Run(project, experiment_name, mode='offline')`, `log_metrics({...}, step)`, `close()`. Read by the class "
        "that `neptune sync` reads its files with; series and runs are otherwise read from the server."
    )
    beyond: ClassVar[str] = (
        "a hosted product built for very long series and forked runs: metrics of a fork inherit its parent's, charts "
        "of millions of points, reports and dashboards."
    )

    def begin(self) -> Log:
        from neptune_scale import Run

        self._run = Run(
            project="bench/peers",
            experiment_name="bench",
            mode="offline",
            log_directory=os.path.join(self.folder, "runs"),
        )
        self._run.log_configs({"batch": 32})
        log = self._run.log_metrics
        return Log(
            lambda name, step, value: log({name: value}, step=step), lambda values, step: log(dict(values), step=step)
        )

    def end(self) -> None:
        self._run.close()

    def read(self) -> Series:
        from neptune_scale.sync.operations_repository import OperationsRepository

        steps: list[float] = []
        values: list[float] = []
        for path in glob.glob(os.path.join(self.folder, "runs", "**", "*.sqlite3"), recursive=True):
            repository, last = OperationsRepository(Path(path).resolve()), None
            while operations := repository.get_operations(_READ_BYTES, from_exclusive=last):
                last = operations[-1].sequence_id
                for operation in operations:
                    _take(operation.operation, steps, values)
            repository.close(cleanup_files=False)
        return Series(steps, values)


def _take(operation: Any, steps: list[float], values: list[float]) -> None:
    if CHANNEL in (appended := getattr(operation, "append", {})):
        steps.append(operation.step.whole + operation.step.micro / 1e6)
        values.append(appended[CHANNEL].float64)
