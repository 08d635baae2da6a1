"""nats-server, collector and agent of one home, as the children of `headrace up`.

Start: nats-server, then the other two at once. Stop, and why in this order: the **agent** first, it ships what is journaled; then
the **collector**, it commits what has arrived; then **nats-server**, which both needed. Killing all of them at any moment loses
nothing: the order only spares the next start some work.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Final

from headrace.command import signals
from headrace.command.child import Child
from headrace.command.readiness import well
from headrace.command.running import Running
from headrace.service.nats_server import NatsServer
from headrace.service.ports import LOOPBACK, free_port, port_taken
from headrace_proto.errors import HeadraceError
from headrace_proto.home import HOME_VARIABLE, Home

WELL_S: Final = 10.0
"""A part that answers is given so long to be well, too. Then `up` serves without: a store may be away for hours."""
START_S: Final = 60.0
STOP_S: Final = 30.0
"""Agent and collector bound their own drains (10 s by default); this is for one that hangs."""
_LOOK_S: Final = 0.05
SIGNALS: Final = frozenset({signal.SIGCHLD, *signals.STOP})
"""What a supervisor waits for."""


class StartFailed(HeadraceError, RuntimeError):
    """A part of `headrace up` ended, or did not answer, before it had served."""


class Stopped(Exception):
    """A signal asked to stop during the start: no error."""


class Stack:
    """The three parts. `start`, then `serve` until a signal comes, then `stop`: each once, in one process without threads."""

    def __init__(self, home: Home, store: str, nats_port: int, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self.server: Final = NatsServer(os.path.join(home.root, "nats"), nats_port)
        self.agent_port: Final = free_port()
        self.collector_port: Final = free_port()
        self.store: Final = store
        at_home = {**os.environ, HOME_VARIABLE: home.named}

        def child(
            name: str, command: Callable[[], list[str]], ready: Callable[[], bool | None], **told: object
        ) -> Child:
            variables = {f"HEADRACE_{name.upper()}": str(value) for name, value in told.items()}
            return Child(home, name, command, ready, {**at_home, **variables})

        def ours(name: str, port: int, **told: object) -> Child:
            # told all by variables: what reads flags would stay in memory, 5 MiB of each
            command = [sys.executable, "-P", "-m", f"headrace_{name}"]
            return child(name, lambda: command, lambda: well(port), nats=self.server.url, metrics_port=port, **told)

        self.nats: Final = child("nats-server", self.server.command, lambda: self.server.ready() or None)
        self.agent: Final = ours("agent", self.agent_port)
        self.collector: Final = ours("collector", self.collector_port, store=store)
        self.children: Final = (self.nats, self.agent, self.collector)

    def record(self) -> Running:
        """What other commands are told."""
        return Running(os.getpid(), time.time(), self.server.url, self.store, self.agent_port, self.collector_port)

    def start(self) -> None:
        """Start all; return when each has answered. Raises `StartFailed`, or `Stopped` when a signal came first."""
        signals.block(SIGNALS)
        if port_taken(self.server.port):
            raise StartFailed(
                f"port {self.server.port} of {LOOPBACK} is taken, perhaps by another nats-server: stop that program, or choose "
                "another port with --nats-port (0 for any free one)"
            )
        self._start(self.nats)
        self._start(self.collector, self.agent)

    def _start(self, *children: Child) -> None:
        for child in children:
            child.start()
        began_s = time.monotonic()
        while not all(ready := [child.ready() for child in children]):
            arrived = signals.take(SIGNALS, _LOOK_S)
            if arrived is not None and arrived.si_signo in signals.STOP:
                raise Stopped
            for child in self.children:
                status = child.died()
                if status is not None:
                    raise StartFailed(f"{child.name} {_how(status)} at its start; it said:\n{child.log_tail()}")
            waited_s = time.monotonic() - began_s
            if waited_s > WELL_S and None not in ready:
                self._tell(f"{children[ready.index(False)].name} is not well yet: `headrace status` says why")
                return
            if waited_s > START_S:
                silent = children[ready.index(None)]
                raise StartFailed(f"{silent.name} does not answer after {START_S:.0f} s; it said:\n{silent.log_tail()}")

    def serve(self) -> None:
        """Start again what dies, until SIGINT, SIGTERM or SIGHUP."""
        while True:
            arrived = signals.take(SIGNALS, self._pause_s())
            if arrived is not None and arrived.si_signo in signals.STOP:
                return
            for child in self.children:
                status = child.died()
                if status is not None:
                    assert child.due_s is not None  # noqa: S101 - `died` has just set it
                    pause_s = child.due_s - time.monotonic()
                    self._tell(f"{child.name} {_how(status)}; it starts again in {pause_s:.1f} s")
                elif child.due_s is not None and child.due_s <= time.monotonic():
                    child.start()
                    self._tell(f"{child.name} started again, process {child.pid}")

    def _pause_s(self) -> float:
        due = [child.due_s for child in self.children if child.due_s is not None]
        return max(min(due) - time.monotonic(), 0.0) if due else 3600.0

    def stop(self) -> None:
        """Stop what runs, in order. A second signal kills what is left: nothing is lost, the next start resumes."""
        for child in (self.agent, self.collector, self.nats):
            child.ask_to_stop()
            if not self._ends(child):
                for other in self.children:
                    other.kill()
                return

    def _ends(self, child: Child) -> bool:
        give_up_s = time.monotonic() + STOP_S
        while not child.ended():
            arrived = signals.take(SIGNALS, _LOOK_S)
            if arrived is not None and arrived.si_signo in signals.STOP:
                self._tell("asked twice: killing what is left")
                return False
            if time.monotonic() > give_up_s:
                self._tell(f"{child.name} does not stop: killing it")
                child.kill()
        return True


def _how(status: int) -> str:
    return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with code {status}"
