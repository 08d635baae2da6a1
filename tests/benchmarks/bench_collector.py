"""What one collector process stores, pinned to one core: a stream filled beforehand, a real nats-server, a local store."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import psutil
import zstandard
from nats.js import JetStreamContext

from headrace.service.broker import connect, ensure_streams
from headrace.service.nats_server import NatsServer
from headrace_agent.batch import WORTH, ZSTD_LEVEL
from headrace_proto import frame, subjects
from headrace_proto.events import Outcome
from headrace_proto.frame import Codec, Frame, FrameKind
from headrace_proto.home import Home
from headrace_proto.ids import random_id, token
from headrace_proto.journal import JournalReader, JournalWriter
from headrace_proto.limits import BATCH_RAW_TARGET, MIB, ROW_VALUES_MAX
from tests.benchmarks.rows import Row


class Load(NamedTuple):
    """What a stream is filled with."""

    width: int
    """Values an event: 1 is scalars, one a call."""
    values: int
    at_least: float

    @property
    def unit(self) -> str:
        return "points" if self.width == 1 else "values"

    @property
    def named(self) -> str:
        return "scalars" if self.width == 1 else f"rows of {self.width}"


SCALARS: Final = Load(1, 10_000_000, 3e6)
ROWS: Final = Load(50, 40_000_000, 20e6)
WIDE_ROWS: Final = Load(ROW_VALUES_MAX, 8_000_000, 0)
FEW_SCALARS: Final = SCALARS._replace(values=5_000_000)
FEW_ROWS: Final = ROWS._replace(values=12_000_000)
"""Enough to fill all that a collector may hold."""
CHANNELS: Final = [f"channel {number}" for number in range(8)]
REST_S: Final = 0.4
MERGES_S_MAX: Final = 4.0
PROJECT: Final = "bench/collector"
SITE: Final = "bench"


class _Took(NamedTuple):
    share: float
    """Of the load, to which the rest applies."""
    wall_s: float
    cpu_s: float
    rss: int


def run() -> list[Row]:
    """Points a second on one core, and the largest resident size: one busy source, and many experiments, evenly and not."""
    rows = []
    for load in (SCALARS, ROWS):
        took = asyncio.run(_measure(load, [1.0]))
        rows += _rows(f"collector, one core, {load.named}, 1 source", load, took, load.at_least)
        took = asyncio.run(_measure(load, [0.01] * 100))
        rows += _rows(f"collector, one core, {load.named}, 100 experiments of a commit or two", load, took)
    for named, load, shares, partition in _skews():
        took = asyncio.run(_measure(load, shares, partition=partition))
        rows += _rows(f"collector, one core, {load.named}, {named}", load, took)
    for workers in (1, 2):
        took = asyncio.run(_measure(SCALARS, [0.01] * 100, workers))
        named = f"collectors: {workers} on {os.cpu_count()} cores with their nats-server, 100 experiments"
        rows.append(Row(named, SCALARS.values * took.share / took.wall_s, "points/s"))
    return rows


def _skews() -> Iterator[tuple[str, Load, list[float], int | None]]:
    """How a load may be spread as badly as can be: its shares, and the token that all experiments have, if they have one."""
    for load in (FEW_SCALARS, FEW_ROWS):
        yield "one of 100 experiments has 99 %", load, [0.99, *[0.01 / 99] * 99], None
    yield "100 experiments of one partition", FEW_SCALARS, [0.01] * 100, 7
    yield "1,000 experiments", FEW_ROWS, [0.001] * 1000, None
    yield "1 source", WIDE_ROWS, [1.0], None


def _rows(what: str, load: Load, took: _Took, at_least: float | None = None) -> list[Row]:
    """Each second of the collector's CPU counts, its leases and its listing included."""
    unit = f"{load.unit} a CPU second"
    return [
        Row(what, load.values * took.share / took.cpu_s, unit, at_least=at_least),
        Row("  by the clock", load.values * took.share / took.wall_s, f"{load.unit}/s"),
        Row("  largest resident size", took.rss / MIB, "MiB", at_most=500),
    ]


async def _measure(load: Load, shares: Sequence[float], workers: int = 0, partition: int | None = None) -> _Took:
    """One collector on one core, or so many free to run where they like, over experiments with these shares of the load."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder, NatsServer(Path(folder) / "nats") as server:
        client = await connect(server.url, name="bench", on_event=lambda text: None)
        try:
            js = client.jetstream()
            await ensure_streams(js)
            for number, share in enumerate(shares):
                for sent in _frames(
                    Home(Path(folder) / f"home-{number}"), load, round(load.values * share), _experiment(partition)
                ):
                    await js.publish(subjects.events(SITE, sent.experiment, sent.source), frame.encode(sent))
            return await _collect(js, server.url, f"{folder}/store", workers)
        finally:
            await client.close()


def _experiment(wanted: int | None) -> str:
    """An experiment's id, of a token if one is wanted: partitions are sets of tokens."""
    found = random_id()
    while wanted not in (None, token(found)):
        found = random_id()
    return found


def _frames(home: Home, load: Load, values: int, experiment: str) -> Iterator[Frame]:
    """A journal as a noisy training run writes it, cut and compressed as an agent does."""
    home.make()
    writer = JournalWriter(home, PROJECT, experiment)
    (_log_points if load.width == 1 else _log_rows)(writer, values // load.width, load.width)
    writer.close(Outcome.SUCCEEDED)
    reader = JournalReader(home.journal(writer.source))
    try:
        time.sleep(0.002)  # a position is believed when it has been seen for a millisecond
        reader.poll(time.time_ns() - 10_000_000)
        end, first = reader.poll(time.time_ns()), 0
        while first < end and isinstance(raw := reader.read(first, BATCH_RAW_TARGET), bytes):
            body, codec = zstandard.compress(raw, ZSTD_LEVEL), Codec.ZSTD
            if len(body) >= WORTH * len(raw):
                body, codec = raw, Codec.NONE
            sent = Frame(FrameKind.EVENTS, PROJECT, experiment, writer.source, first, first + len(raw), body, codec)
            yield sent._replace(site=SITE)
            first += len(raw)
    finally:
        reader.close()
        shutil.rmtree(home.root)


def _log_points(writer: JournalWriter, points: int, _: int) -> None:
    noise, point, start_ns = _noise(), writer.point, time.time_ns()
    for i in range(points):
        point(CHANNELS[i & 7], float(i >> 3), noise[i & 65535], start_ns + i * 6_250_000 + (i * 7919) % 2_000_000)


def _log_rows(writer: JournalWriter, rows: int, width: int) -> None:
    noise, row, start_ns = _noise(), writer.row, time.time_ns()
    names = [f"layer{number}/norm" for number in range(width)]
    for i in range(rows):
        first = (i * 37) % (len(noise) - width)
        values = dict(zip(names, noise[first : first + width], strict=True))
        row(values, i, start_ns + i * 50_000_000 + (i * 7919) % 2_000_000)


@cache
def _noise() -> list[float]:
    dice = random.Random(1)
    return [dice.gauss(0.0, 1.0) for _ in range(1 << 16)]


async def _collect(js: JetStreamContext, url: str, store: str, workers: int) -> _Took:
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


async def _collect_together(js: JetStreamContext, url: str, store: str, workers: int) -> _Took:
    command = [sys.executable, "-m", "headrace_collector", "--nats", url, "--store", store, "--log-level", "error"]
    processes = [subprocess.Popen(command) for _ in range(workers)]
    try:
        return await _watch(js, psutil.Process(processes[0].pid))
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


async def _watch(js: JetStreamContext, process: psutil.Process) -> _Took:
    """From the first commit to the last: what is imported at the start, and the taking of partitions, are over by then."""
    rss, whole, left, began_s, spent_s = 0, 0, 0, 0.0, 0.0
    while True:
        info = await js.stream_info(subjects.EVENTS_STREAM)
        rss = max(rss, process.memory_info().rss)
        whole = max(whole, info.state.messages)
        if not began_s and info.state.messages < whole:
            left, began_s, spent_s = info.state.messages, time.perf_counter(), _cpu_s(process)
        if not info.state.messages:
            wall_s, cpu_s = time.perf_counter() - began_s, _cpu_s(process) - spent_s
            return _Took(left / whole, wall_s, cpu_s, max(rss, await _rss_at_rest(process)))
        await asyncio.sleep(0.02)


async def _rss_at_rest(process: psutil.Process) -> int:
    """The largest resident size while what has ended is merged, until nothing more is done."""
    rss, began_s, busy_s, spent_s = 0, time.perf_counter(), time.perf_counter(), 0.0
    while time.perf_counter() - busy_s < REST_S and time.perf_counter() - began_s < MERGES_S_MAX:
        await asyncio.sleep(0.02)
        rss = max(rss, process.memory_info().rss)
        if _cpu_s(process) - spent_s > REST_S / 10:
            busy_s, spent_s = time.perf_counter(), _cpu_s(process)
    return rss


def _cpu_s(process: psutil.Process) -> float:
    spent = process.cpu_times()
    return spent.user + spent.system
