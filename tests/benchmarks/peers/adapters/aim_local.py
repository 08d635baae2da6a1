"""aim, local: every call writes to RocksDB."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from tests.benchmarks.peers.peer import CHANNEL, Log, Peer, Series

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd

    from tests.benchmarks.peers.peer import Trial

_SEARCH = f"metric.name == '{CHANNEL}' and run.hparams.batch == 32"


class Aim(Peer):
    """`aim.Run.track`."""

    name: ClassVar[str] = "aim"
    distribution: ClassVar[str] = "aim"
    way: ClassVar[str] = (
        "`Run(repo=...)`, `run['hparams'] = ...`, `run.track(value, name=..., step=...)` or `run.track({...}, "
        "step=...)`, `run.close()`. Read and searched by `Repo.query_metrics` with its query language, which knows "
        "parameters; last values are compared in Python. Before reading, after a kill too, `aim storage reindex` (a "
        "running `aim up` would keep that index). A call writes value, time and step one after the other; killed in "
        "between, its reader gives later values to other steps."
    )
    beyond: ClassVar[str] = (
        "a web interface made for comparing thousands of runs, a query language of Python expressions over every "
        "series, images, audio, distributions and figures as series, converters from TensorBoard, MLflow and wandb."
    )

    def begin(self) -> Log:
        from aim import Run

        self._run = Run(repo=self.folder)
        self._run["hparams"] = {"batch": 32}
        track = self._run.track
        return Log(
            lambda name, step, value: track(value, name=name, step=step),
            lambda values, step: track(dict(values), step=step),
        )

    def end(self) -> None:
        self._run.close()

    def recover(self) -> None:
        """Reading goes through an index, which `aim up` keeps as it runs; without one it is made by this command."""
        aim = str(Path(sys.executable).with_name("aim"))
        subprocess.run([aim, "storage", "--repo", self.folder, "reindex", "--yes"], check=True)

    def fill(self, values: Sequence[float]) -> None:
        super().fill(values)
        self.recover()

    def read(self) -> Series:
        from aim import Repo

        steps: list[float] = []
        values: list[float] = []
        for run in Repo(self.folder).query_metrics(f"metric.name == '{CHANNEL}'").iter_runs():
            for metric in run:
                at, (what, *_) = metric.data.numpy()
                steps += at.tolist()
                values += what.tolist()
        return Series(steps, values)

    def populate(self, trials: Sequence[Trial]) -> None:
        from aim import Run

        for trial in trials:
            run = Run(
                repo=self.folder, system_tracking_interval=None, log_system_params=False, capture_terminal_logs=False
            )
            run.name = trial.name
            run["hparams"] = {"batch": trial.batch}
            run.track(trial.loss, name=CHANNEL, step=0)
            run.close()
        self.recover()

    def finder(self) -> Callable[[], pd.DataFrame]:
        import pandas as pd
        from aim import Repo

        repo = Repo(self.folder)

        def search() -> pd.DataFrame:
            rows = [
                {"run": found.run.hash, "batch": found.run["hparams", "batch"], CHANNEL: last}
                for found in repo.query_metrics(_SEARCH).iter_runs()
                for metric in found
                if (last := metric.values.last()[1]) < 0.5
            ]
            return pd.DataFrame(rows)

        return search
