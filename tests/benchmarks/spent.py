"""CPU time of the parts of a stack."""

from __future__ import annotations

import psutil

from tests.path.stack import Stack


def cpu_s_of(stack: Stack) -> dict[str, float]:
    """Seconds of CPU, user and system, that each part has spent so far."""
    pids = {"nats-server": stack.nats.pid, **{name: child.pid for name, child in stack.children.items()}}
    times = {name: psutil.Process(pid).cpu_times() for name, pid in pids.items()}
    return {name: spent.user + spent.system for name, spent in times.items()}
