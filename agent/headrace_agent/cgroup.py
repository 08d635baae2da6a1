"""What a container may use and does use, from the kernel's control groups, version 2 or 1.

In a container with limits the machine's own figures mislead: 100 % of two allowed cores is 3 % of a node of 64. Where no limit is
set the machine's figures are the right ones, and this says None.
"""

from __future__ import annotations

import os
from typing import Final

_UNLIMITED: Final = 1 << 60
"""Version 1 writes 'no limit' as about 2**63."""


class ControlGroup:
    """The control group of this process. `root` and `proc` are for tests."""

    def __init__(self, root: str = "/sys/fs/cgroup", proc: str = "/proc/self/cgroup") -> None:
        self._root = root
        self._paths = _paths(proc)
        self.unified: Final = os.path.exists(os.path.join(root, "cgroup.controllers"))

    def cpu_limit(self) -> float | None:
        """How many cores may be used, as a number of cores."""
        if self.unified:
            quota, _, period = self._read("", "cpu.max").partition(" ")
        else:
            quota, period = self._read("cpu", "cpu.cfs_quota_us"), self._read("cpu", "cpu.cfs_period_us")
        allowed, of = _number(quota), _number(period)
        return allowed / of if allowed and of and allowed > 0 else None

    def cpu_used_s(self) -> float | None:
        """Seconds of a core used since the group began."""
        if self.unified:
            micros = self._field("", "cpu.stat", "usage_usec")
            return None if micros is None else micros / 1e6
        nanos = _number(self._read("cpuacct", "cpuacct.usage"))
        return None if nanos is None else nanos / 1e9

    def memory_limit(self) -> int | None:
        """Bytes of memory that may be used."""
        limit = _number(self._read("", "memory.max") if self.unified else self._read("memory", "memory.limit_in_bytes"))
        return limit if limit is not None and limit < _UNLIMITED else None

    def memory_used(self) -> int | None:
        """Bytes of memory in use, without the page cache that the kernel can take back."""
        if self.unified:
            used, cache = _number(self._read("", "memory.current")), self._field("", "memory.stat", "inactive_file")
        else:
            used = _number(self._read("memory", "memory.usage_in_bytes"))
            cache = self._field("memory", "memory.stat", "total_inactive_file")
        return None if used is None else max(used - (cache or 0), 0)

    def _field(self, controller: str, name: str, key: str) -> int | None:
        for line in self._read(controller, name).splitlines():
            word, _, value = line.partition(" ")
            if word == key:
                return _number(value)
        return None

    def _read(self, controller: str, name: str) -> str:
        """A file of the group; in a container it lies at the mount's root, whatever path the host knows it by."""
        for path in (self._paths.get(controller, ""), ""):
            try:
                with open(os.path.join(self._root, controller, path.lstrip("/"), name), encoding="ascii") as file:
                    return file.read(64 * 1024).strip()
            except OSError:
                continue
        return ""


def _paths(proc: str) -> dict[str, str]:
    """The group's path under each controller; the unified hierarchy is the controller ''."""
    try:
        with open(proc, encoding="utf-8") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return {}
    return {name: path for _, names, path in (line for line in lines if len(line) == 3) for name in names.split(",")}


def _number(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None
