"""Starting a measured process: which Python, which environment, a warden around it, and what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tests.benchmarks.peers.peer import Peer

ROOT: Final = Path(__file__).resolve().parents[3]
PEERS_PYTHON: Final = ROOT / ".venv-peers" / "bin" / "python"
GRACE_S: Final = 10.0
"""What a peer's helpers get to finish by themselves after the program has gone."""
RUN_S: Final = 1800.0
_NOWHERE: Final = "http://127.0.0.1:9"
"""Where a request that would leave the machine is refused at once: nothing here is measured over a network."""
_SHOWN: Final = 3000


class Failed(RuntimeError):
    """A measured process has failed; the text is the end of what it printed."""


def python_of(peer: type[Peer]) -> str:
    """The interpreter that has this peer installed."""
    return sys.executable if peer.of_product else str(PEERS_PYTHON)


def environment_of(peer: type[Peer], work: Path) -> dict[str, str]:
    """Nothing of whoever runs the bench but the way to programs; no network, and a home folder of its own."""
    home = work / "home"
    home.mkdir(exist_ok=True)
    proxies = {
        name: _NOWHERE for scheme in ("http", "https") for name in (f"{scheme}_proxy", f"{scheme.upper()}_PROXY")
    }
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "TRACKIO_DIR": str(work / "data" / "trackio"),
        "LC_ALL": "C.UTF-8",
        "PYTHONPATH": str(ROOT),
        "no_proxy": "127.0.0.1,localhost",
        **proxies,
        **peer.environment,
    }


class Measured:
    """One process of a peer, and its descendants. Started by making it; `finish` waits for the last of them."""

    def __init__(self, peer: Peer, work: Path, verb: str, argument: str = "", result: Path | None = None) -> None:
        self.result: Final = result or work / f"{verb}.result"
        self._figures: Final = work / f"{verb}.warden"
        self._output: Final = work / f"{verb}.output"
        self._what: Final = f"{peer.name}: {verb} {argument}"
        child = [python_of(type(peer)), "-m", "tests.benchmarks.peers.child", peer.name, peer.folder, verb]
        self._start([*child, str(self.result), argument], environment_of(type(peer), work), work / "data")

    def _start(self, command: list[str], environment: dict[str, str], folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        # The warden is the runner's own Python, and imports nothing of the measured ones.
        warden = [sys.executable, str(Path(__file__).with_name("warden.py")), str(self._figures), str(GRACE_S)]
        with self._output.open("ab") as output:
            self.process = subprocess.Popen(
                [*warden, *command], env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    def finish(self, *, killed: bool = False) -> dict[str, float]:
        """What the warden says once all have gone. Raises `Failed` when the program did, unless it was `killed`."""
        try:
            self.process.wait(RUN_S)
        except BaseException:
            self.stop()
            raise
        figures: dict[str, float] = (
            json.loads(self._figures.read_text(encoding="utf-8")) if self._figures.exists() else {}
        )
        if not figures or (figures["code"] != 0 and not killed):
            raise Failed(f"{self._what} ended with {figures.get('code', self.process.returncode)}:\n{self.printed()}")
        return figures

    def stop(self) -> None:
        """Kill everything that still runs."""
        self.process.terminate()
        self.process.wait()

    def printed(self) -> str:
        """The end of what it printed."""
        return self._output.read_text(encoding="utf-8", errors="replace")[-_SHOWN:]

    def said(self) -> Any:
        """The result as JSON."""
        return json.loads(self.result.read_text(encoding="utf-8"))
