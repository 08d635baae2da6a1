"""The agent as a process of its own, to be killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from headrace.service.ports import free_port
from headrace_proto.home import Home

DISK_FULL = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))"
DISK_HANGS = """
import os, time
def hang(descriptor):
    os.write(2, b"a sync hangs\\n")
    time.sleep(3600)
os.fdatasync = os.fsync = hang
"""
BEGUN_SO = """
{begun}
import runpy
runpy.run_module("headrace_agent", run_name="__main__")
"""


class AgentProcess:
    """`headrace agent` on a home. Leaving the block kills it if it still runs."""

    def __init__(self, home: Home, url: str, log: Path, *flags: str) -> None:
        self.port = free_port()
        self._log = log
        self._command = [
            *(sys.executable, "-m", "headrace_agent", "--home", home.root, "--nats", url),
            *("--metrics-port", str(self.port), "--hardware-interval", "0", *flags),
        ]
        self.process: subprocess.Popen[bytes] | None = None

    def with_full_disk(self) -> Self:
        """The same, where no byte can be written to any file. (It may still make, rename and delete them.)"""
        return self._begun_with(DISK_FULL)

    def with_hanging_disk(self) -> Self:
        """The same, where no sync returns."""
        return self._begun_with(DISK_HANGS)

    def _begun_with(self, script: str) -> Self:
        at = self._command.index("-m")
        self._command[at : at + 2] = ["-c", BEGUN_SO.format(begun=script)]
        return self

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stderr=log)

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def ask(self, path: str) -> str | None:
        """What it serves at `path`; None while it serves nothing."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return str(error.read().decode())
        except OSError:
            return None

    def health(self) -> dict[str, Any]:
        """What /healthz says."""
        text = self.ask("/healthz")
        return dict(json.loads(text)) if text else {}
