"""The producers of a run: which source logs to which experiment, how many of its calls have returned, and how it ended."""

from __future__ import annotations

import json
import mmap
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
END_S: Final = 60.0
"""For a trainer to end after it was told to; ending waits for nothing but the disk."""


class Producer:
    """One trainer process. Its board stays readable after its end."""

    def __init__(self, folder: Path, environment: dict[str, str], number: int, key: str, per_s: float) -> None:
        self.number: Final = number
        self.key: Final = key
        self.killed = False
        self.paused = False
        self.damage: int | None = None
        """The position of a byte of its journal that was flipped before anybody read it."""
        self.log: Final = folder / f"trainer-{number}.log"
        self._board: Final = folder / f"board-{number}"
        self._board.write_bytes(bytes(mmap.PAGESIZE))
        command = [sys.executable, "-m", "tests.chaos.trainer", str(self._board), str(number), key, str(per_s)]
        with self.log.open("wb") as log:
            self.process: Final = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)

    @property
    def returned(self) -> int:
        """Calls that have returned."""
        return int(struct.unpack_from("<Q", self._board.read_bytes())[0])

    @property
    def names(self) -> dict[str, str] | None:
        """`experiment` and `source`, once it has them."""
        try:
            return dict(json.loads(Path(f"{self._board}.json").read_text()))
        except FileNotFoundError:
            return None

    @property
    def alive(self) -> bool:
        """Whether it runs, or could."""
        return self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL."""
        self.killed = True
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        """SIGSTOP."""
        self.paused = True
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.paused = False
        self.process.send_signal(signal.SIGCONT)

    def tell_to_stop(self) -> None:
        """Have it end by itself, soon."""
        with self._board.open("r+b") as file:
            file.seek(8)
            file.write(struct.pack("<Q", 1))

    def finish(self) -> None:
        """Have it end by itself, and wait. An AssertionError with what it printed when it fails."""
        self.tell_to_stop()
        status = self.process.wait(END_S)
        said = self.log.read_text()
        assert status == 0, f"trainer {self.number} ended with {status}: {said}"
        assert not said, f"trainer {self.number} complained: {said}"
