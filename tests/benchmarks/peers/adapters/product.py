"""Headrace itself: the logging process alone, and with agent, broker and collector at work beside it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Final

from tests.benchmarks.peers.peer import CHANNEL, Log, Peer, Series

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pandas as pd

    from tests.benchmarks.peers.peer import Trial

PROJECT: Final = "bench/peers"
START_S: Final = 60.0
DRAIN_S: Final = 300.0
_LOOK_S: Final = 0.01
_WARM: Final = """
import sys
import headrace as hr

with hr.init("bench/warm", home=sys.argv[1]).create_experiment(upload_source_files=[]) as experiment:
    for step in range(1000):
        experiment.log_metric("loss", step, 0.5)
"""


class Headrace(Peer):
    """The logging process alone: what returns lies in the home's journal. `headrace up` stores it, where it is to be read."""

    name: ClassVar[str] = "headrace"
    of_product: ClassVar[bool] = True
    way: ClassVar[str] = (
        "`hr.init(...).create_experiment(...)`, `log_metric`, `log_metrics`, `stop()`, with every default (output "
        "captured, git and source noted). Nothing else runs while calls are measured. After a kill, and for reading, "
        "`headrace up` (agent, nats-server, collector) runs on the home until its journal is stored."
    )
    beyond: ClassVar[str] = ""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.home: Final = os.path.join(folder, "home")
        self.store: Final = os.path.join(self.home, "store")

    def begin(self) -> Log:
        import headrace as hr

        self.experiment = hr.init(PROJECT, home=self.home).create_experiment(name="bench", params={"batch": 32})
        return Log(self.experiment.log_metric, self.experiment.log_metrics)

    def end(self) -> None:
        self.experiment.stop()

    def recover(self) -> None:
        with self._serving():
            self._drain()

    def fill(self, values: Sequence[float]) -> None:
        super().fill(values)
        self.recover()

    def read(self) -> Series:
        from headrace.reading import StoredProject

        (experiment,) = StoredProject(self.store, PROJECT).get_experiments()
        frame = experiment.get_channel(CHANNEL)
        return Series(frame["step"].tolist(), frame["value"].tolist())

    def populate(self, trials: Sequence[Trial]) -> None:
        import headrace as hr

        project = hr.init(PROJECT, home=self.home)
        for trial in trials:
            options: dict[str, Any] = {"upload_source_files": [], "upload_stdout": False, "upload_stderr": False}
            experiment = project.create_experiment(name=trial.name, params={"batch": trial.batch}, **options)
            experiment.log_metric(CHANNEL, 0, trial.loss)
            experiment.stop()
        self.recover()

    def finder(self) -> Callable[[], pd.DataFrame]:
        from headrace.reading import StoredProject

        project = StoredProject(self.store, PROJECT)

        def search() -> pd.DataFrame:
            board = project.get_leaderboard()
            return board[(board["parameter_batch"] == 32) & (board[f"channel_{CHANNEL}"] < 0.5)]

        return search

    def data(self) -> list[str]:
        return [os.path.join(self.home, "journal")]

    @contextmanager
    def _serving(self) -> Iterator[int]:
        """`headrace up` on the home; its process."""
        from headrace.command.running import running
        from headrace_proto.home import Home

        home = Home(self.home)
        home.make()
        command = [sys.executable, "-m", "headrace.command", "up", "--home", self.home, "--store", self.store]
        with open(os.path.join(self.folder, "up.log"), "ab") as log:
            up = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            _wait(lambda: running(home) is not None or up.poll() is not None, "`headrace up` serves", START_S)
            yield up.pid
        finally:
            up.terminate()
            up.wait(START_S)

    def _drain(self) -> None:
        """Until every journal that a program has left is stored, and therefore gone."""
        from headrace.command.positions import Position, position, sources
        from headrace_proto.home import Home

        home = Home(self.home)

        def of_programs() -> bool:
            known = [position(home, source) for source in sources(home)]
            return any(isinstance(one, Position) and one.of_program for one in known)

        _wait(lambda: not of_programs(), "everything is stored", DRAIN_S)


class HeadraceStored(Headrace):
    """The same, with everything that stores it running on the node all the while, and the call that waits for the store."""

    name: ClassVar[str] = "headrace-stored"
    columns: ClassVar[frozenset[str]] = frozenset({"scalars", "rows"})
    way: ClassVar[str] = (
        "The same with `headrace up` running beside it, as on a node that has stored something before: "
        "`exp.wait('stored')`, then `stop()`. CPU, memory and time are those of the logging process, agent, "
        "nats-server, collector and their supervisor together, until the store has it and the journal is gone."
    )

    def end(self) -> None:
        receipt = self.experiment.wait("stored", timeout=DRAIN_S)
        if not receipt.reached:
            raise RuntimeError(f"not stored: {receipt}")
        self.experiment.stop()

    @contextmanager
    def services(self) -> Iterator[list[int]]:
        with self._serving() as up:
            subprocess.run([sys.executable, "-c", _WARM, self.home], check=True)
            self._drain()  # a node's services have stored something before, and have imported what that takes
            yield [up]

    def settle(self) -> None:
        self._drain()

    def data(self) -> list[str]:
        return [os.path.join(self.store, PROJECT)]


def _wait(condition: Callable[[], bool], what: str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {timeout_s:g} s not yet: {what}")
        time.sleep(_LOOK_S)
