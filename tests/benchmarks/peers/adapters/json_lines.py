"""The floor: `json` and `os.write`, a line an event, as one writes it in five minutes."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, ClassVar

from tests.benchmarks.peers.peer import CHANNEL, Log, Peer, Series

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd

    from tests.benchmarks.peers.peer import Trial


class JsonLines(Peer):
    """One file a run, opened for appending."""

    name: ClassVar[str] = "json-lines"
    of_product: ClassVar[bool] = True
    way: ClassVar[str] = (
        "`os.write(fd, json.dumps({...}).encode())` on a file opened for appending: one system call an event. Runs "
        "are listed by reading the first and the last line of each file."
    )
    beyond: ClassVar[str] = "no dependency, no format to learn, `grep` and `tail -f` work while the run lives."

    def begin(self) -> Log:
        os.makedirs(self.folder, exist_ok=True)
        self._file = os.open(os.path.join(self.folder, "run.jsonl"), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
        os.write(self._file, (json.dumps({"params": {"batch": 32}}) + "\n").encode())
        file, dumps, write, now = self._file, json.dumps, os.write, time.time

        def scalar(name: str, step: int, value: float) -> None:
            write(file, (dumps({"step": step, "time": now(), name: value}) + "\n").encode())

        def row(values: Mapping[str, float], step: int) -> None:
            write(file, (dumps({"step": step, "time": now(), **values}) + "\n").encode())

        return Log(scalar, row)

    def end(self) -> None:
        os.close(self._file)

    def read(self) -> Series:
        steps, values = [], []
        with open(os.path.join(self.folder, "run.jsonl"), encoding="utf-8") as lines:
            for line in lines:
                if not line.endswith("\n"):
                    break  # a torn last line
                event = json.loads(line)
                if CHANNEL in event:
                    steps.append(event["step"])
                    values.append(event[CHANNEL])
        return Series(steps, values)

    def populate(self, trials: Sequence[Trial]) -> None:
        os.makedirs(self.folder, exist_ok=True)
        for trial in trials:
            with open(os.path.join(self.folder, f"{trial.name}.jsonl"), "w", encoding="utf-8") as file:
                file.write(json.dumps({"params": {"batch": trial.batch}}) + "\n")
                file.write(json.dumps({"step": 0, CHANNEL: trial.loss}) + "\n")

    def finder(self) -> Callable[[], pd.DataFrame]:
        import pandas as pd

        def search() -> pd.DataFrame:
            rows = []
            for name in os.listdir(self.folder):
                with open(os.path.join(self.folder, name), "rb") as file:
                    params = json.loads(file.readline())["params"]
                    file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
                    last = json.loads(file.readlines()[-1])
                if params["batch"] == 32 and last[CHANNEL] < 0.5:
                    rows.append({"run": name, **params, CHANNEL: last[CHANNEL]})
            return pd.DataFrame(rows)

        return search
