"""Which process a collector is, so that another one on the same machine can tell at once that it is gone.

Elsewhere, and in another container, nobody can: there a lease has to run out.
"""

from __future__ import annotations

import os
from typing import Final, NamedTuple, Self

from headrace_proto.journal.machine import boot_id, pid_namespace, process_gone, process_start


class Process(NamedTuple):
    """A process, nameable by others of the same pid namespace."""

    boot: str = ""
    namespace: int = 0
    pid: int = 0
    started: int = 0  # in ticks since boot: pids are given anew

    @classmethod
    def own(cls) -> Self:
        """This one."""
        return cls(boot_id(), pid_namespace(), os.getpid(), process_start(os.getpid()))

    @property
    def gone(self) -> bool:
        """Whether it is certain that the process does not run any more."""
        return self.boot == boot_id() != "" and process_gone(self.pid, self.started, self.namespace)


UNKNOWN: Final = Process()
"""Of whoever cannot be asked about."""
