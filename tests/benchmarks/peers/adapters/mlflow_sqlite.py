"""mlflow with its SQLite store, and the same with its asynchronous logging."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar, Final

from tests.benchmarks.peers.peer import CHANNEL, Log, Peer, Series

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import ModuleType

    import pandas as pd

    from tests.benchmarks.peers.peer import Trial

_BATCH_MAX: Final = 1_000
"""Metrics of one `log_batch`, as its documentation has it."""
_FOUND_MAX: Final = 50_000


class Mlflow(Peer):
    """`mlflow.log_metric`, `mlflow.log_metrics`: a transaction a call."""

    name: ClassVar[str] = "mlflow"
    distribution: ClassVar[str] = "mlflow"
    environment: ClassVar[Mapping[str, str]] = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    synchronous: ClassVar[bool] = True
    way: ClassVar[str] = (
        "`mlflow.set_tracking_uri('sqlite:///...')`, `start_run()`, `log_metric(name, value, step)`, "
        "`log_metrics({...}, step)`, `end_run()`. Read by `MlflowClient.get_metric_history`, searched by "
        "`mlflow.search_runs`. The series that is read was written by `log_batch`."
    )
    beyond: ClassVar[str] = (
        "a platform: model registry and serving, a tracking server with a web interface, tracing and evaluation of "
        "language models, autologging for dozens of frameworks, projects; every metric is in a database that SQL can "
        "ask the moment the call returns."
    )

    def begin(self) -> Log:
        mlflow = self._module()
        mlflow.start_run()
        mlflow.log_param("batch", 32)
        self._mlflow = mlflow
        metric, metrics, now = mlflow.log_metric, mlflow.log_metrics, self.synchronous
        return Log(
            lambda name, step, value: metric(name, value, step=step, synchronous=now),
            lambda values, step: metrics(dict(values), step=step, synchronous=now),
        )

    def end(self) -> None:
        self._mlflow.end_run()

    def read(self) -> Series:
        mlflow = self._module()
        (run,) = mlflow.search_runs(experiment_names=["bench"], output_format="list")
        history = mlflow.MlflowClient().get_metric_history(run.info.run_id, CHANNEL)
        return Series([metric.step for metric in history], [metric.value for metric in history])

    def fill(self, values: Sequence[float]) -> None:
        import time

        self.begin()
        run, client = self._mlflow.active_run().info.run_id, self._mlflow.MlflowClient()
        now_ms, metric = int(time.time() * 1000), self._mlflow.entities.Metric
        for first in range(0, len(values), _BATCH_MAX):
            part = values[first : first + _BATCH_MAX]
            client.log_batch(run, [metric(CHANNEL, value, now_ms, first + nth) for nth, value in enumerate(part)])
        self.end()

    def populate(self, trials: Sequence[Trial]) -> None:
        mlflow = self._module("many")
        client, entities = mlflow.MlflowClient(), mlflow.entities
        experiment = client.get_experiment_by_name("many").experiment_id
        for trial in trials:
            run = client.create_run(experiment, run_name=trial.name).info.run_id
            metrics, params = [entities.Metric(CHANNEL, trial.loss, 0, 0)], [entities.Param("batch", str(trial.batch))]
            client.log_batch(run, metrics, params)
            client.set_terminated(run)

    def finder(self) -> Callable[[], pd.DataFrame]:
        mlflow = self._module("many")

        def search() -> pd.DataFrame:
            wanted = f"params.batch = '32' and metrics.{CHANNEL} < 0.5"
            frame: pd.DataFrame = mlflow.search_runs(
                experiment_names=["many"], filter_string=wanted, max_results=_FOUND_MAX
            )
            return frame

        return search

    def _module(self, experiment: str = "bench") -> ModuleType:
        import mlflow

        mlflow.set_tracking_uri(f"sqlite:///{os.path.join(self.folder, 'mlflow.db')}")
        mlflow.set_experiment(experiment)
        module: ModuleType = mlflow
        return module


class MlflowAsync(Mlflow):
    """The same with `synchronous=False`: a thread writes."""

    name: ClassVar[str] = "mlflow-async"
    synchronous: ClassVar[bool] = False
    share: ClassVar[float] = 0.02
    columns: ClassVar[frozenset[str]] = frozenset({"scalars", "rows", "first", "kill"})
    way: ClassVar[str] = "The same with `synchronous=False`; `end_run()` waits for what is queued."
    beyond: ClassVar[str] = "the same."

    def end(self) -> None:
        self._mlflow.end_run()
        self._mlflow.flush_async_logging()
