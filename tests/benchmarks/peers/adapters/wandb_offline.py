"""wandb, offline: a Go process beside the trainer writes a log of records, to be synced to a server later."""

from __future__ import annotations

import glob
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, ClassVar

from tests.benchmarks.peers.peer import CHANNEL, Log, Peer, Series

if TYPE_CHECKING:
    from collections.abc import Mapping


class Wandb(Peer):
    """`wandb.init(mode="offline")`, `run.log`."""

    name: ClassVar[str] = "wandb"
    distribution: ClassVar[str] = "wandb"
    environment: ClassVar[Mapping[str, str]] = {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false"}
    columns: ClassVar[frozenset[str]] = frozenset({"scalars", "rows", "first", "kill", "read"})
    way: ClassVar[str] = (
        "`wandb.init(project, config, mode='offline')`, `run.log({...}, step)`, `run.finish()`. Read by `wandb leet "
        "inspect --json`, its own reader of such a log, which is all that works without a server; runs are listed by "
        "the server. In a log that a kill has torn, that reader sees what `wandb sync` would send."
    )
    beyond: ClassVar[str] = (
        "a hosted product: live dashboards, reports, sweeps, a model registry, launch, alerts, comparing runs in the "
        "browser, integrations with nearly every framework; a terminal interface for offline runs."
    )

    def begin(self) -> Log:
        import wandb

        self._run = wandb.init(project="bench", config={"batch": 32}, mode="offline", dir=self.folder)
        log = self._run.log
        return Log(
            lambda name, step, value: log({name: value}, step=step), lambda values, step: log(dict(values), step=step)
        )

    def end(self) -> None:
        self._run.finish()

    def read(self) -> Series:
        steps, values = [], []
        for path in glob.glob(os.path.join(self.folder, "wandb", "offline-run-*", "run-*.wandb")):
            command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", path]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
                assert reader.stdout is not None
                for line in reader.stdout:
                    item = json.loads(line).get("history", {}).get("item", {}) if '"history"' in line else {}
                    if CHANNEL in item:
                        steps.append(item["_step"])
                        values.append(item[CHANNEL])
        return Series(steps, values)
