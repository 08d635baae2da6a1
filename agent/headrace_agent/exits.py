"""Exits: the kernel says when a process that writes a journal has ended, so that nobody need ask again and again.

One pidfd a process, all in one epoll: a thousand trainers that live cost one system call a look. What is heard is a hint, because a
header's pid is only a claim: that the writer is gone is proven by its lock, as ever, but no longer waited for.

Not heard of are processes of other pid namespaces (an agent in a container of its own), and any on a kernel before 5.3. Their
locks are asked for every two seconds.
"""

from __future__ import annotations

import os
import select
from typing import Final

from headrace_agent.source import Source
from headrace_proto.journal import machine

_Process = tuple[int, int]
"""(pid, start)"""


class Exits:
    """Watches the processes of sources. `close` it."""

    def __init__(self, processes_max: int) -> None:
        self._processes_max = processes_max
        self._epoll: Final = select.epoll()
        self._descriptors: dict[_Process, int] = {}
        self._sources: dict[int, dict[str, Source]] = {}

    def fileno(self) -> int:
        """Readable when `ended` has something to say."""
        return self._epoll.fileno()

    def __len__(self) -> int:
        return len(self._descriptors)

    def watch(self, source: Source) -> None:
        """Have `source.exited` set when its process ends; at once if it has. Whether that will be heard says `exit_is_heard`."""
        header = source.header
        is_here = not source.outlived and header.pid_namespace == machine.pid_namespace()
        if source.closed or not is_here or header.pid == os.getpid():
            return
        if machine.process_gone(header.pid, header.pid_start, header.pid_namespace):
            source.exited = True
            return
        descriptor = self._descriptors.get((header.pid, header.pid_start))
        if descriptor is None:
            descriptor = self._open(header.pid, header.pid_start)
        if descriptor is not None:
            self._sources[descriptor][source.id] = source
            source.exit_is_heard = True

    def _open(self, pid: int, start: int) -> int | None:
        if len(self._descriptors) >= self._processes_max:
            return None
        try:
            descriptor = os.pidfd_open(pid)
        except (OSError, ValueError, OverflowError, TypeError):  # an old kernel, or a header that was made up
            return None
        if machine.process_start(pid) != start:  # it ended just now, and another has its pid
            os.close(descriptor)
            return None
        try:
            self._epoll.register(descriptor, select.EPOLLIN)
        except OSError:  # this user watches as many as he may
            os.close(descriptor)
            return None
        self._descriptors[pid, start] = descriptor
        self._sources[descriptor] = {}
        return descriptor

    def ended(self) -> list[Source]:
        """The sources whose processes have ended since the last call."""
        found = []
        for descriptor, _ in self._epoll.poll(0):
            for source in self._sources[descriptor].values():
                source.exited, source.exit_is_heard = True, False
                found.append(source)
            self._drop(descriptor)
        return found

    def forget(self, source: Source) -> None:
        """Nobody need know any more."""
        if not source.exit_is_heard:
            return
        source.exit_is_heard = False
        descriptor = self._descriptors[source.header.pid, source.header.pid_start]
        self._sources[descriptor].pop(source.id, None)
        if not self._sources[descriptor]:
            self._drop(descriptor)

    def _drop(self, descriptor: int) -> None:
        self._epoll.unregister(descriptor)
        del self._sources[descriptor]
        self._descriptors = {process: one for process, one in self._descriptors.items() if one != descriptor}
        os.close(descriptor)

    def close(self) -> None:
        """Watch nobody any more."""
        for descriptor in list(self._sources):
            for source in self._sources[descriptor].values():
                source.exit_is_heard = False
            self._drop(descriptor)
        self._epoll.close()
