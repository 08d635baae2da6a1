"""GPUs, as hardware sampling sees them, and NVIDIA's through NVML."""

from __future__ import annotations

import ctypes
import logging
from typing import Any, Final, NamedTuple, Protocol

GIB: Final = float(1 << 30)
NVML: Final = "libnvidia-ml.so.1"
"""What comes with NVIDIA's driver, and what `pynvml` loads."""
log = logging.getLogger(__name__)


class GpuReading(NamedTuple):
    """One GPU at one moment; None for what this GPU does not tell."""

    number: int
    utilization: float | None  # percent of the time in which a kernel ran
    memory: float | None  # GiB


class Gpus(Protocol):
    """Where readings come from: a driver, or a recording of one."""

    def read(self) -> list[GpuReading]:
        """A reading of each GPU."""

    def close(self) -> None:
        """Let go of the driver."""


class NoGpus:
    """A machine without GPUs, or without their driver."""

    def read(self) -> list[GpuReading]:
        """Nothing."""
        return []

    def close(self) -> None:
        """Nothing to do."""


class NvmlGpus:
    """NVIDIA GPUs. `nvml` is the module `pynvml`, already initialised."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]

    def read(self) -> list[GpuReading]:
        """A reading of each GPU. One that does not tell something (in MIG mode there is no utilization) tells the rest."""
        return [self._one(index, handle) for index, handle in enumerate(self._handles)]

    def _one(self, index: int, handle: Any) -> GpuReading:
        nvml = self._nvml
        utilization = memory = None
        try:
            utilization = float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        except nvml.NVMLError as error:
            log.debug("GPU %d tells no utilization: %s", index, error)
        try:
            memory = nvml.nvmlDeviceGetMemoryInfo(handle).used / GIB
        except nvml.NVMLError as error:
            log.debug("GPU %d tells no memory: %s", index, error)
        return GpuReading(index, utilization, memory)

    def close(self) -> None:
        """Let go of the driver."""
        self._nvml.nvmlShutdown()


def find_gpus() -> Gpus:
    """The GPUs of this machine; none when there is no driver."""
    try:
        ctypes.CDLL(NVML)
        import pynvml  # 15 MiB, which a machine without the driver need not pay
    except (OSError, ImportError):
        return NoGpus()
    try:
        pynvml.nvmlInit()
        return NvmlGpus(pynvml)
    except pynvml.NVMLError as error:
        log.info("no GPUs are sampled: %s", error)
        return NoGpus()
