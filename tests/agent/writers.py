"""Processes that have a journal, to be ended in all ways."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from headrace_proto.home import Home
from headrace_proto.ids import random_id

WRITER = """
import os, signal, subprocess, sys, time
from headrace_proto import abort
from headrace_proto.home import Home
from headrace_proto.journal import JournalWriter, SourceFacts, machine
home, experiment = Home(sys.argv[1]), sys.argv[2]
{before}
writer = JournalWriter(home, "tests/agent", experiment, SourceFacts(rank=0))
writer.point("v", 0, 1.0, time.time_ns())
{after}
print(writer.source, flush=True)
while True: time.sleep(0.05)
"""
OTHER_NAMESPACE = "machine.pid_namespace = lambda: 1"
OTHER_HOST = "machine.host_name = lambda: 'elsewhere/1'; machine.boot_id = lambda: 'another boot'"


class Writer:
    """A process that has a journal."""

    def __init__(self, home: Home, before: str = "", after: str = "", experiment: str | None = None) -> None:
        home.make()
        self.experiment = experiment or random_id()
        command = [sys.executable, "-c", WRITER.format(before=before, after=after), home.root, self.experiment]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.source = self.process.stdout.readline().strip()
        self.folder = home.journal(self.source)

    @property
    def lives(self) -> bool:
        return self.process.poll() is None


Write = Callable[..., Writer]
