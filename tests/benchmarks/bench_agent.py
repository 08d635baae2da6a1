"""The agent on one core: a backlog forwarded to a real broker, with every batch acknowledged, and the memory that this takes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from headrace.service.nats_server import NatsServer
from headrace_proto.events import Outcome
from headrace_proto.home import Home
from headrace_proto.ids import random_id
from headrace_proto.journal import JournalWriter
from headrace_proto.limits import MIB
from tests.benchmarks.rows import Row

BACKLOG_BYTES = 1024 * MIB
POINT_BYTES = 34
SOURCES = 4
CHANNELS = [f"channel {i}" for i in range(8)]

CHILD = """
import asyncio, json, os, resource, sys, time
from pathlib import Path

os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
from headrace.service.broker import connect, ensure_streams
from headrace_agent.agent import Agent
from headrace_agent.settings import AgentSettings


async def main(home, url):
    client = await connect(url, name="bench", on_event=lambda _: None)
    await ensure_streams(client.jetstream())
    await client.close()
    agent = Agent(AgentSettings(home=Path(home), nats=url, hardware_s=0))
    stop = asyncio.Event()
    before_s = time.process_time()
    began_s = time.perf_counter()
    running = asyncio.create_task(agent.run(stop))
    while not agent.tail.lanes or any(lane.source.window.acked < lane.source.end for lane in agent.tail.lanes.values()):
        await asyncio.sleep(0.005)
    wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - before_s
    raw = sum(lane.source.end for lane in agent.tail.lanes.values())
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    stop.set()
    await running
    print(json.dumps({"wall_s": wall_s, "cpu_s": cpu_s, "raw": raw, "rss_kib": rss}))


import uvloop
uvloop.run(main(*sys.argv[1:]))
"""


def prepare(home: Home, bytes_total: int) -> int:
    """Journals as noisy training runs write them; the number of points."""
    import random

    noise = [random.gauss(0.0, 1.0) for _ in range(4096)]
    points = bytes_total // POINT_BYTES // SOURCES
    for _ in range(SOURCES):
        writer = JournalWriter(home, "bench/agent", random_id())
        point, channels = writer.point, CHANNELS
        start_ns = time.time_ns()
        for i in range(points):
            point(
                channels[i & 7],
                float(i >> 3),
                noise[i & 4095] / (1 + i * 1e-6),
                start_ns + i * 6_250_000 + (i * 7919) % 2_000_000,
            )
        writer.close(Outcome.SUCCEEDED)
    return points * SOURCES


def run() -> list[Row]:
    """Points a second on one core, and the largest resident size."""
    import json

    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home")
        home.make()
        points = prepare(home, BACKLOG_BYTES)
        with NatsServer(Path(folder) / "nats") as server:
            child = subprocess.run(
                [sys.executable, "-c", CHILD, home.root, server.url], capture_output=True, text=True, check=True
            )
        figures = json.loads(child.stdout)
    return [
        Row("agent: points forwarded and acknowledged, one core", points / figures["wall_s"], "points/s", at_least=4e6),
        Row("agent: points per second of its own CPU", points / figures["cpu_s"], "points/s"),
        Row(f"agent: RSS with a backlog of {BACKLOG_BYTES // MIB} MiB", figures["rss_kib"] / 1024, "MiB", at_most=120),
    ]


if __name__ == "__main__":
    for row in run():
        print(row)
