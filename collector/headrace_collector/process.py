"""Which process a collector is, so that another one on the same machine can tell at once that it is gone.

Elsewhere, and in another container, nobody can: there a lease has to run out. That a process is gone is only ever concluded
from this kernel's own word about a pid of this very pid namespace; in doubt it lives.
"""

from __future__ import annotations

import os
from typing import Final, NamedTuple, Self

from headrace_proto.journal.machine import boot_id, pid_namespace, process_start, process_state

_ENDED: Final = frozenset("ZX")
"""States of proc(5): killed, and only its parent has not asked yet; or gone at this moment."""
_PID_MAX: Final = 1 << 22
"""The kernel's own limit."""


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
        here = (boot_id(), pid_namespace())
        if "" in here or 0 in here or (self.boot, self.namespace) != here or not 0 < self.pid <= _PID_MAX:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:  # somebody else's: there it is
            pass
        started = process_start(self.pid)
        if 0 in (started, self.started):  # /proc hides it
            return False
        return started != self.started or process_state(self.pid) in _ENDED


UNKNOWN: Final = Process()
"""Of whoever cannot be asked about."""
