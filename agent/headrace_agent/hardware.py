"""Sampling: what the node is doing, as one row of numbers.

| channel                               | unit                                                       |
|---------------------------------------|------------------------------------------------------------|
| system/cpu                            | percent of the cores that may be used, all of them = 100   |
| system/memory                         | GiB in use, without page cache                             |
| system/disk_read, system/disk_written | MiB a second, all disks                                    |
| system/net_received, system/net_sent  | MiB a second, all interfaces but the loopback              |
| system/gpu<n>/utilization             | percent                                                    |
| system/gpu<n>/memory                  | GiB in use                                                 |

A reading of zero is a reading. What cannot be read is left out of the row.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Final

import psutil
from prometheus_client import Counter

from headrace_agent.cgroup import ControlGroup
from headrace_agent.gpus import GIB, Gpus, NoGpus
from headrace_proto.limits import MIB

log = logging.getLogger(__name__)
_LOOPBACK: Final = "lo"
LIMITS_S: Final = 10.0
"""How soon a container's new limit is known: they change rarely, and looking for them costs as much as all the readings."""


class Sampler:
    """Takes samples. Rates are over the time since the sample before, so the first sample has none."""

    def __init__(self, gpus: Gpus, group: ControlGroup, errors: Counter) -> None:
        self._gpus = gpus
        self._group = group
        self._errors = errors
        self._limits: tuple[float | None, int | None] = (None, None)
        self._limits_s = -LIMITS_S
        self._rates: dict[str, tuple[float, float]] = {}
        self._complained: set[str] = set()

    def sample(self) -> dict[str, float]:
        """One row. Takes half a millisecond, but where it `waits`."""
        row: dict[str, float] = {}
        for part in (self._cpu, self._memory, self._disk, self._network, self._gpu):
            try:
                row.update(part(time.monotonic()))
            except Exception as error:  # a driver's or a kernel file's trouble must not end the other readings
                self._complain(part.__name__.lstrip("_"), error)
        return row

    @property
    def waits(self) -> bool:
        """Whether a driver may keep a reading waiting: then it wants a thread."""
        return not isinstance(self._gpus, NoGpus)

    def close(self) -> None:
        """Let go of the GPUs' driver."""
        self._gpus.close()

    def _complain(self, part: str, error: Exception) -> None:
        self._errors.labels(part).inc()
        if part not in self._complained:
            self._complained.add(part)
            log.warning("hardware: %s cannot be read: %s", part, error)

    def _cpu(self, now_s: float) -> Iterator[tuple[str, float]]:
        limit = self._read_limits(now_s)[0]
        used_s = self._group.cpu_used_s() if limit is not None else None
        if limit is not None and used_s is not None:
            cores = self._rate("cpu", used_s, now_s)
            if cores is not None:
                yield "system/cpu", 100.0 * cores / limit
        else:
            yield "system/cpu", psutil.cpu_percent(interval=None)

    def _memory(self, now_s: float) -> Iterator[tuple[str, float]]:
        used = self._group.memory_used() if self._read_limits(now_s)[1] is not None else None
        if used is None:
            memory = psutil.virtual_memory()
            used = memory.total - memory.available
        yield "system/memory", used / GIB

    def _read_limits(self, now_s: float) -> tuple[float | None, int | None]:
        """How many cores and bytes may be used."""
        if now_s - self._limits_s >= LIMITS_S:
            self._limits, self._limits_s = (self._group.cpu_limit(), self._group.memory_limit()), now_s
        return self._limits

    def _disk(self, now_s: float) -> Iterator[tuple[str, float]]:
        counters = psutil.disk_io_counters(nowrap=False)  # `_rate` sees a counter that began anew
        if counters is not None:
            yield from self._rate_mib("system/disk_read", counters.read_bytes, now_s)
            yield from self._rate_mib("system/disk_written", counters.write_bytes, now_s)

    def _network(self, now_s: float) -> Iterator[tuple[str, float]]:
        cards = [card for name, card in psutil.net_io_counters(pernic=True, nowrap=False).items() if name != _LOOPBACK]
        yield from self._rate_mib("system/net_received", sum(card.bytes_recv for card in cards), now_s)
        yield from self._rate_mib("system/net_sent", sum(card.bytes_sent for card in cards), now_s)

    def _gpu(self, _: float) -> Iterator[tuple[str, float]]:
        for gpu in self._gpus.read():
            if gpu.utilization is not None:
                yield f"system/gpu{gpu.number}/utilization", gpu.utilization
            if gpu.memory is not None:
                yield f"system/gpu{gpu.number}/memory", gpu.memory

    def _rate_mib(self, name: str, count: float, now_s: float) -> Iterator[tuple[str, float]]:
        rate = self._rate(name, count, now_s)
        if rate is not None:
            yield name, rate / MIB

    def _rate(self, name: str, count: float, now_s: float) -> float | None:
        """How fast a counter grew since it was last read; None the first time, and when it began anew."""
        before, then_s = self._rates.get(name, (count, now_s))
        self._rates[name] = (count, now_s)
        return (count - before) / (now_s - then_s) if now_s > then_s and count >= before else None


ReadSample = Callable[[], dict[str, float]]
"""What `system` needs of a sampler."""
