"""What one collector process stores, pinned to one core: a stream filled beforehand, a real nats-server, a local store."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil
import zstandard
from nats.js import JetStreamContext

from headrace.service.broker import connect, ensure_streams
from headrace.service.nats_server import NatsServer
from headrace_proto import frame, subjects
from headrace_proto.events import Outcome
from headrace_proto.frame import Codec, Frame, FrameKind
from headrace_proto.home import Home
from headrace_proto.ids import random_id
from headrace_proto.journal import JournalReader, JournalWriter
from headrace_proto.limits import BATCH_RAW_TARGET, MIB
from tests.benchmarks.rows import Row

POINTS: Final = 10_000_000
CHANNELS: Final = [f"channel {number}" for number in range(8)]
PROJECT: Final = "bench/collector"
SITE: Final = "bench"


def run() -> list[Row]:
    """Points a second on one core, and the largest resident size: one busy source, and many experiments."""
    rows = []
    for experiments, name in ((1, "1 source"), (100, "100 experiments")):
        rate, rss = asyncio.run(_measure(experiments))
        rows.append(Row(f"collector, one core: points stored in Parquet, {name}", rate, "points/s", at_least=1e6))
        rows.append(Row(f"collector: largest resident size, {name}", rss / MIB, "MiB", at_most=500))
    for workers in (1, 2):
        rate, _ = asyncio.run(_measure(100, workers))
        rows.append(
            Row(
                f"collectors: {workers} on {os.cpu_count()} cores with their nats-server, 100 experiments",
                rate,
                "points/s",
            )
        )
    return rows


async def _measure(experiments: int, workers: int = 0) -> tuple[float, float]:
    """(points a second, bytes) of one collector on one core, or of so many free to run where they like."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder, NatsServer(Path(folder) / "nats") as server:
        client = await connect(server.url, name="bench", on_event=lambda text: None)
        try:
            js = client.jetstream()
            await ensure_streams(js)
            for number in range(experiments):
                for sent in _frames(Home(Path(folder) / f"home-{number}"), POINTS // experiments):
                    await js.publish(subjects.events(SITE, sent.experiment, sent.source), frame.encode(sent))
            return await _collect(js, server.url, f"{folder}/store", workers)
        finally:
            await client.close()


def _frames(home: Home, points: int) -> Iterator[Frame]:
    """A journal as a noisy training run writes it, cut and compressed as an agent does."""
    home.make()
    noise = [random.gauss(0.0, 1.0) for _ in range(4096)]
    experiment = random_id()
    writer = JournalWriter(home, PROJECT, experiment)
    point, start_ns = writer.point, time.time_ns()
    for i in range(points):
        point(CHANNELS[i & 7], float(i >> 3), noise[i & 4095], start_ns + i * 6_250_000 + (i * 7919) % 2_000_000)
    writer.close(Outcome.SUCCEEDED)
    reader = JournalReader(home.journal(writer.source))
    try:
        time.sleep(0.002)  # a position is believed when it has been seen for a millisecond
        reader.poll(time.time_ns() - 10_000_000)
        end, first = reader.poll(time.time_ns()), 0
        while first < end and isinstance(raw := reader.read(first, BATCH_RAW_TARGET), bytes):
            body = zstandard.compress(raw, 1)
            sent = Frame(
                FrameKind.EVENTS, PROJECT, experiment, writer.source, first, first + len(raw), body, Codec.ZSTD
            )
            yield sent._replace(site=SITE)
            first += len(raw)
    finally:
        reader.close()


async def _collect(js: JetStreamContext, url: str, store: str, workers: int) -> tuple[float, float]:
    """Run collectors over the whole stream; the time is from the first consumer on, without their start."""
    if workers:
        return await _collect_together(js, url, store, workers)
    command = [sys.executable, "-m", "headrace_collector", "--nats", url, "--store", store, "--log-level", "error"]
    process = subprocess.Popen(command)
    os.sched_setaffinity(process.pid, {max(os.sched_getaffinity(0))})
    try:
        return await _watch(js, psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait()


async def _collect_together(js: JetStreamContext, url: str, store: str, workers: int) -> tuple[float, float]:
    command = [sys.executable, "-m", "headrace_collector", "--nats", url, "--store", store, "--log-level", "error"]
    processes = [subprocess.Popen(command) for _ in range(workers)]
    try:
        return await _watch(js, psutil.Process(processes[0].pid))
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


async def _watch(js: JetStreamContext, process: psutil.Process) -> tuple[float, float]:
    rss, began_s = 0, 0.0
    while True:
        info = await js.stream_info(subjects.EVENTS_STREAM)
        rss = max(rss, process.memory_info().rss)
        if not began_s and info.state.consumer_count:  # it has taken its first partition
            began_s = time.perf_counter()
        if not info.state.messages:
            return POINTS / (time.perf_counter() - began_s), rss
        await asyncio.sleep(0.02)
