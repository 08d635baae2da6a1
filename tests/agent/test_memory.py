"""What the agent's process takes, however much there is to ship."""

from __future__ import annotations

import os
from pathlib import Path

from headrace.service.nats_server import NatsServer
from headrace_agent.budget import EVENTS_IN_FLIGHT_BYTES
from headrace_proto.events import ChannelType, Kind, Outcome
from headrace_proto.home import Home
from headrace_proto.limits import MIB
from tests.agent.conftest import new_writer
from tests.agent.far_end import FarEnd
from tests.agent.process import AgentProcess
from tests.waiting import until

SOURCES = 64
TEXTS = 24
TEXT_BYTES = 60_000
GROWTH_MAX = EVENTS_IN_FLIGHT_BYTES + 16 * MIB
"""Frames in flight, a batch that is read, compressed and framed, and what Python and the allocator keep."""


async def test_a_backlog_of_many_sources_is_shipped_in_bounded_memory(
    home: Home, nats_server: NatsServer, tmp_path: Path
) -> None:
    """All ranks of a node come back at once with more than twice as much as the agent may take."""
    writers = [new_writer(home) for _ in range(SOURCES)]
    async with FarEnd(nats_server.url) as far:
        far.consuming = False
        with AgentProcess(home, nats_server.url, tmp_path / "log") as agent:
            await until(lambda: agent.health().get("sources") == SOURCES, "it has found all")
            assert agent.process is not None
            idle = taken(agent.process.pid, "VmRSS")
            for writer in writers:
                for _ in range(TEXTS):  # nothing that could be compressed
                    writer.channel_event(Kind.TEXT, "noise", ChannelType.TEXT, None, 0, os.urandom(TEXT_BYTES))
            far.consuming = True
            for writer in writers:
                await far.has_all(writer, timeout_s=60.0)
            grown = taken(agent.process.pid, "VmHWM") - idle
    assert sum(writer.position for writer in writers) > 2 * GROWTH_MAX
    assert grown < GROWTH_MAX
    for writer in writers:
        writer.close(Outcome.SUCCEEDED)


def taken(pid: int, what: str) -> int:
    """Bytes of memory by proc(5)'s status: VmRSS is what the process has now, VmHWM the most it ever had."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{what}:"))
