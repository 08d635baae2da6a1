"""One supervised child process: started, watched, started again with growing pauses when it dies."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from headrace.command import signals
from headrace.command.running import log_file, write_file
from headrace_proto.home import Home

PAUSE_S_FIRST: Final = 0.5
PAUSE_S_MAX: Final = 30.0
CALM_S: Final = 30.0
"""A child that lived so long has recovered: its next death counts as the first."""
LOG_BYTES_MAX: Final = 10 * 1024 * 1024
_TAIL_BYTES: Final = 4_000


class Pauses:
    """How long to wait before each restart."""

    def __init__(self) -> None:
        self._next_s = PAUSE_S_FIRST

    def after_death(self, lived_s: float) -> float:
        """The pause before the next start of a child that lived so long."""
        if lived_s >= CALM_S:
            self._next_s = PAUSE_S_FIRST
        pause_s, self._next_s = self._next_s, min(2 * self._next_s, PAUSE_S_MAX)
        return pause_s


class Child:
    """A part of `headrace up`. `command` is asked for at each start; `ready` says of the started process whether it is well,
    or None while it does not answer."""

    def __init__(
        self,
        home: Home,
        name: str,
        command: Callable[[], Sequence[str]],
        ready: Callable[[], bool | None],
        environment: Mapping[str, str],
    ) -> None:
        self.name: Final = name
        self.ready: Final = ready
        self._command = command
        self._environment = environment
        self._log: Final = log_file(home, name)
        self._pid_file: Final = home.pid_file(name)
        self._pauses = Pauses()
        self._process: subprocess.Popen[bytes] | None = None
        self._started_s = 0.0
        self.due_s: float | None = None
        """When it is to be started again, on the monotonic clock, after it died."""

    @property
    def pid(self) -> int | None:
        """Its process id while it lives."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    def start(self) -> None:
        """Start it, in a session of its own: a Ctrl-C reaches us, and we stop our children in order."""
        self._rotate_log()
        self.due_s = None
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(self._environment),
                start_new_session=True,
                preexec_fn=signals.in_child(ends_with_parent=True),  # noqa: PLW1509 - this process has one thread
            )
        self._started_s = time.monotonic()
        write_file(self._pid_file, str(self._process.pid))

    def died(self) -> int | None:
        """Its exit status, once, when it has ended by itself; then it is due to be started again."""
        if self._process is None or self._process.poll() is None:
            return None
        status, self._process = self._process.returncode, None
        now_s = time.monotonic()
        self.due_s = now_s + self._pauses.after_death(now_s - self._started_s)
        return status

    def ask_to_stop(self) -> None:
        """SIGTERM. From here on its end is no death."""
        self.due_s = None
        if self.pid is not None and self._process is not None:
            self._process.terminate()

    def ended(self) -> bool:
        """Whether it has ended; its pid file goes with it."""
        if self._process is not None and self._process.poll() is None:
            return False
        with suppress(FileNotFoundError):
            os.unlink(self._pid_file)
        return True

    def kill(self) -> None:
        """SIGKILL, and wait."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self.ended()

    def log_tail(self) -> str:
        """The end of what it said."""
        with open(self._log, "rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = log.read().decode(errors="replace").strip().splitlines()
        return "\n".join(lines[-10:])

    def _rotate_log(self) -> None:
        with suppress(FileNotFoundError):
            if os.stat(self._log).st_size > LOG_BYTES_MAX:
                os.replace(self._log, f"{self._log}.1")
