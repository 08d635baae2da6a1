"""Processes of other people's programs: found, proven to be the right ones, and ended.

Invariants
1. A signal goes to a process that was held (`Held.of`) and then proven: same pid, same start, our own user. It is sent through a
   pidfd, which names that one process for ever: whoever got its pid afterwards is safe.
2. This agent, whoever started it, and what these have started are never among a program's children, even where they are.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Final, NamedTuple, Self

import psutil

from headrace_proto.journal import machine

LOOK_S: Final = 0.02
KILLED_S: Final = 5.0
"""For the kernel to end what got SIGKILL: one that waits for a dead disk ends later."""


class Held:
    """A process that cannot be taken for another one. `close` it."""

    def __init__(self, pid: int, start: int, descriptor: int | None) -> None:
        self.pid: Final = pid
        self.start: Final = start
        self._descriptor = descriptor

    @classmethod
    def of(cls, pid: int, start: int) -> Self | None:
        """The process `pid` that started at `start` (`machine.process_start`); None when it is gone, or another user's."""
        descriptor: int | None = None
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return None
        except (
            OSError
        ):  # a kernel before 5.3, or a container that forbids it: `send` proves the pid again, as late as it can
            pass
        held = cls(pid, start, descriptor)
        if held._is_it():
            return held
        held.close()
        return None

    def _is_it(self) -> bool:
        try:
            ours = os.stat(f"/proc/{self.pid}").st_uid == os.geteuid()
        except OSError:
            return False
        return ours and not machine.process_gone(self.pid, self.start, machine.pid_namespace())

    def gone(self) -> bool:
        """Whether it has ended. One that nobody has waited for has."""
        if self._descriptor is None:
            return machine.process_gone(self.pid, self.start, machine.pid_namespace())
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(0))

    def send(self, number: signal.Signals) -> bool:
        """Send a signal; False when there is nobody to take it."""
        try:
            if self._descriptor is not None:
                signal.pidfd_send_signal(self._descriptor, number)
            elif self._is_it():
                os.kill(self.pid, number)
            else:
                return False
        except (ProcessLookupError, PermissionError):  # a child that runs as another user now
            return False
        return True

    def close(self) -> None:
        """Let go of it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class Ended(NamedTuple):
    """What became of a program."""

    children: int  # processes beside its own that were asked to end
    killed: int  # of all of them, those that had not ended in time
    left: int  # of these, those that live even so
    seconds: float


class Program:
    """A process and all that it has started, directly or not. Not what left it by a double fork, as daemons do."""

    def __init__(self, root: Held, spared: Collection[int] = ()) -> None:
        """`spared` are children that are left alone, with all that they have started."""
        self._root: Final = root
        self._spared: Final = frozenset(spared) | own_line()
        self._held: dict[tuple[int, int], Held] = {(root.pid, root.start): root}

    def _found(self) -> list[Held]:
        """What is there and was not held yet."""
        new = []
        for held in list(self._held.values()):
            for pid, start in children(held.pid, held.start, self._spared):
                if (pid, start) not in self._held and (child := Held.of(pid, start)) is not None:
                    self._held[pid, start] = child
                    new.append(child)
        return new

    async def end(self, grace_s: float) -> Ended:
        """SIGTERM to all, and after the grace SIGKILL to what is left. Returns when all have ended, or no signal helps."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            first = self._found()  # while they are known by their parent
            self._root.send(signal.SIGTERM)
            for child in (*first, *self._found()):
                child.send(signal.SIGTERM)
            killed = 0
            if not await self._end_within(grace_s):
                left = [held for held in self._held.values() if not held.gone()]
                killed = sum(held.send(signal.SIGKILL) for held in (*left, *self._found()))
                await self._end_within(KILLED_S)
            living = sum(not held.gone() for held in self._held.values())
            return Ended(len(self._held) - 1, killed, living, loop.time() - began)
        finally:
            for held in self._held.values():
                held.close()

    async def _end_within(self, seconds: float) -> bool:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while not all(held.gone() for held in self._held.values()):
            if loop.time() >= until:
                return False
            await asyncio.sleep(LOOK_S)
        return True


def children(pid: int, start: int, spared: Collection[int]) -> list[tuple[int, int]]:
    """(pid, start) of all that the process has started, directly or not, but for those spared and what they have started."""
    if machine.process_start(pid) != start:
        return []
    try:
        all_children = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []
    parents: dict[int, int] = {}
    for child in all_children:
        with suppress(psutil.Error):
            parents[child.pid] = child.ppid()
    return [
        (child, machine.process_start(child))
        for child in parents
        if not any(one in spared for one in (child, *_above(child, parents)))
    ]


def _above(pid: int, parents: dict[int, int]) -> Iterable[int]:
    """The parents of `pid`, as far as they are among the children."""
    seen = {pid}
    while (pid := parents.get(pid, 0)) in parents and pid not in seen:
        seen.add(pid)
        yield pid


def parents_of(pid: int) -> list[int]:
    """The processes above this one, nearest first."""
    try:
        return [parent.pid for parent in psutil.Process(pid).parents()]
    except psutil.Error:
        return []


def pid_here(pid: int, start: int, namespace: int, proc: str = "/proc") -> int | None:
    """What a process of another pid namespace is called in this one; None where it cannot be seen from here.

    An agent that sees the host's processes (`hostPID` in Kubernetes) sees those of containers under other pids. Raises nothing.
    """
    if namespace == machine.pid_namespace():
        return pid
    for name in _listed(proc):
        with suppress(OSError, ValueError, StopIteration):
            if os.stat(f"{proc}/{name}/ns/pid").st_ino != namespace:
                continue
            with open(f"{proc}/{name}/status", encoding="ascii", errors="replace") as file:
                called = next(line for line in file if line.startswith("NSpid:")).split()
            if int(called[-1]) == pid and machine.process_start(int(name)) == start:
                return int(name)
    return None


def _listed(proc: str) -> list[str]:
    try:
        return [name for name in os.listdir(proc) if name.isdigit()]
    except OSError:
        return []


def own_line() -> frozenset[int]:
    """This process and those above it."""
    return frozenset({os.getpid(), *parents_of(os.getpid())})
