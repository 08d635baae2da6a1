"""Hardware: what is read, from what, and into which journals."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgpack
import psutil
import pytest
from prometheus_client import CollectorRegistry, Counter

from headrace.service.nats_server import NatsServer
from headrace_agent import hardware
from headrace_agent.cgroup import ControlGroup
from headrace_agent.gpus import GIB, GpuReading, NoGpus, NvmlGpus, find_gpus
from headrace_agent.hardware import Sampler
from headrace_proto.events import Kind, Outcome
from headrace_proto.home import Home
from tests.agent.conftest import Serve, log_points, new_writer
from tests.agent.far_end import FarEnd
from tests.waiting import until


class Recording:
    """GPUs that were recorded: an idle one and a busy one."""

    def __init__(self) -> None:
        self.closed = False

    def read(self) -> list[GpuReading]:
        return [GpuReading(0, 0.0, 0.5), GpuReading(1, 97.0, 79.25)]

    def close(self) -> None:
        self.closed = True


class NvmlError(Exception):
    pass


class FakeNvml:
    """The module `pynvml` with two devices, the second in MIG mode, where there is no utilization."""

    NVMLError = NvmlError

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        if handle == 1:
            raise NvmlError("not supported")
        return SimpleNamespace(gpu=0)

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(used=handle * GIB)

    def nvmlShutdown(self) -> None:
        return None


def sampler(gpus: Any, group: ControlGroup) -> tuple[Sampler, Counter]:
    errors = Counter("errors", "of hardware", ["part"], registry=CollectorRegistry())
    return Sampler(gpus, group, errors), errors


def no_group(tmp_path: Path) -> ControlGroup:
    return ControlGroup(str(tmp_path / "none"), str(tmp_path / "none"))


def test_a_sample_has_the_machines_numbers(tmp_path: Path) -> None:
    """CPU and memory at once, rates from the second sample on; a reading of zero is a reading."""
    sampling, _ = sampler(Recording(), no_group(tmp_path))
    first, second = sampling.sample(), sampling.sample()
    assert set(first) >= {"system/cpu", "system/memory"}
    assert set(second) >= set(first) | {"system/net_sent", "system/net_received"}
    assert 0 <= second["system/cpu"] <= 100
    assert second["system/memory"] > 0.01
    assert second["system/gpu0/utilization"] == 0.0
    assert second["system/gpu1/memory"] == 79.25


def test_nvml_is_read_device_by_device() -> None:
    """What one of them does not tell is left out; the rest stays."""
    gpus = NvmlGpus(FakeNvml())
    assert gpus.read() == [GpuReading(0, 0.0, 0.0), GpuReading(1, None, 1.0)]
    gpus.close()


def test_a_machine_without_a_driver_has_no_gpus() -> None:
    """No error, no columns."""
    gpus = find_gpus()
    readings = gpus.read()
    gpus.close()
    assert all(isinstance(reading, GpuReading) for reading in readings)
    assert NoGpus().read() == []


def test_a_failing_part_is_counted_and_leaves_the_others(tmp_path: Path) -> None:
    """A driver that goes away must not end the sampling of everything else."""
    broken = SimpleNamespace(read=lambda: 1 / 0)
    sampling, errors = sampler(broken, no_group(tmp_path))
    assert "system/memory" in sampling.sample()
    sampling.sample()
    assert errors.labels("gpu")._value.get() == 2


@pytest.fixture
def unified(tmp_path: Path) -> Path:
    root = tmp_path / "unified"
    (root / "job").mkdir(parents=True)
    (root / "cgroup.controllers").write_text("cpu memory")
    (tmp_path / "proc").write_text("0::/job\n")
    for name, text in {
        "cpu.max": "150000 100000",
        "cpu.stat": "usage_usec 5000000\nuser_usec 1",
        "memory.max": str(8 << 30),
        "memory.current": str(3 << 30),
        "memory.stat": f"anon 5\ninactive_file {1 << 30}",
    }.items():
        (root / "job" / name).write_text(text)
    return root


def test_limits_of_a_container_are_heard(unified: Path, tmp_path: Path) -> None:
    """Version 2: percent is of what may be used, memory is what the kernel cannot take back."""
    group = ControlGroup(str(unified), str(tmp_path / "proc"))
    assert (group.cpu_limit(), group.cpu_used_s()) == (1.5, 5.0)
    assert (group.memory_limit(), group.memory_used()) == (8 << 30, 2 << 30)
    sampling, _ = sampler(NoGpus(), group)
    first = sampling.sample()
    assert first["system/memory"] == 2.0
    assert "system/cpu" not in first
    (unified / "job" / "cpu.stat").write_text("usage_usec 5000001")
    assert sampling.sample()["system/cpu"] > 0


def test_a_containers_new_limit_is_heard_after_a_while(
    unified: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked for now and then, not with each sample."""
    sampling, _ = sampler(NoGpus(), ControlGroup(str(unified), str(tmp_path / "proc")))
    assert sampling.sample()["system/memory"] == 2.0
    (unified / "job" / "memory.max").write_text("max")
    assert sampling.sample()["system/memory"] == 2.0
    monkeypatch.setattr(hardware, "LIMITS_S", 0.0)
    assert sampling.sample()["system/memory"] != 2.0, "now it is the machine's"


def test_a_counter_that_begins_anew_has_no_rate_until_the_sample_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that was taken out took its bytes with it: that is no negative rate, and no huge one."""
    readings = iter([5 << 40, 7 << 40, 1 << 20, 2 << 20])

    def read(nowrap: bool) -> Any:
        count = next(readings)
        return SimpleNamespace(read_bytes=count, write_bytes=count)

    monkeypatch.setattr(psutil, "disk_io_counters", read)
    sampling, _ = sampler(NoGpus(), no_group(tmp_path))
    told = ["system/disk_read" in sampling.sample() for _ in range(4)]
    assert told == [False, True, False, True]


def test_a_container_without_limits_shows_the_machine(unified: Path, tmp_path: Path) -> None:
    """There is nothing to be a percentage of."""
    (unified / "job" / "cpu.max").write_text("max 100000")
    (unified / "job" / "memory.max").write_text("max")
    group = ControlGroup(str(unified), str(tmp_path / "proc"))
    assert (group.cpu_limit(), group.memory_limit()) == (None, None)


def test_version_1_control_groups_are_read_too(tmp_path: Path) -> None:
    """In a container the files lie at the mount's root, whatever /proc says."""
    for path, text in {
        "cpu/cpu.cfs_quota_us": "200000",
        "cpu/cpu.cfs_period_us": "100000",
        "cpuacct/cpuacct.usage": "7000000000",
        "memory/memory.limit_in_bytes": str(9223372036854771712),
        "memory/memory.usage_in_bytes": "1000",
        "memory/memory.stat": "total_inactive_file 400",
    }.items():
        file = tmp_path / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    (tmp_path / "proc").write_text("4:cpu,cpuacct:/docker/abc\n2:memory:/docker/abc\n")
    group = ControlGroup(str(tmp_path), str(tmp_path / "proc"))
    assert (group.cpu_limit(), group.cpu_used_s()) == (2.0, 7.0)
    assert (group.memory_limit(), group.memory_used()) == (None, 600)


def rows_of(raw: bytes | bytearray) -> tuple[list[str], int]:
    """The channels and the number of rows in the bytes of a journal."""
    unpacker = msgpack.Unpacker(max_buffer_size=len(raw) + 1)
    unpacker.feed(raw)
    events = list(unpacker)
    return [e[2] for e in events if e[0] == Kind.CHANNEL], sum(e[0] == Kind.AUTO_ROW for e in events)


async def test_every_experiment_alive_here_gets_rows_of_its_own(
    home: Home, nats_server: NatsServer, serve: Serve
) -> None:
    """In a source of the role `system`, which is closed when the experiment's others are; not where it is unwanted."""
    gpus = Recording()
    async with FarEnd(nats_server.url) as far, serve(hardware_s=0.1, gpus=gpus) as agent:
        wanted, unwanted = new_writer(home), new_writer(home, hardware=False)
        log_points(wanted, 10)

        def system() -> list[str]:
            return [
                source
                for source, experiment in far.experiment_of.items()
                if experiment == wanted.experiment and source != wanted.source
            ]

        await until(lambda: system() and rows_of(far.bytes[system()[0]])[1] >= 2, "two rows arrived")
        (mine,) = system()
        assert agent.tail.lanes[mine].source.header.role == "system"
        channels, _ = rows_of(far.bytes[mine])
        assert {"system/cpu", "system/memory", "system/gpu0/utilization", "system/gpu1/memory"} <= set(channels)
        wanted.close(Outcome.SUCCEEDED)
        await until(lambda: not os.path.exists(home.journal(mine)), "the system source is closed, stored and deleted")
        assert list(agent.tail.lanes) == [unwanted.source]
        unwanted.close(Outcome.SUCCEEDED)
    assert gpus.closed


async def test_an_agent_that_stops_closes_its_system_sources(home: Home, nats_server: NatsServer, serve: Serve) -> None:
    """And ships their end: nothing of it is left behind."""
    writer = new_writer(home)
    log_points(writer, 10)
    async with FarEnd(nats_server.url) as far:
        async with serve(hardware_s=60.0):
            await until(lambda: len(far.bytes) == 2, "both sources arrive")
        (mine,) = [source for source in far.bytes if source != writer.source]
        await until(lambda: bytes(far.bytes[mine])[-60:].find(b"succeeded") >= 0, "its closing event arrived")
    writer.close(Outcome.SUCCEEDED)
