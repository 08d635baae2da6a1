"""What the agent's process takes, however much there is to ship."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from headrace.service.nats_server import NatsServer
from headrace_agent.budget import EVENTS_IN_FLIGHT_BYTES
from headrace_agent.marks import MARK_NAME
from headrace_proto.events import ChannelType, Kind, Outcome
from headrace_proto.home import Home
from headrace_proto.journal.layout import CHECKS_AT, COMMITTED_AT, segment_name
from headrace_proto.limits import CHECK_BYTES, CHECKS_MAX, HEADER_BYTES, MIB
from headrace_proto.spool import COMPANION_SUFFIX
from tests.agent.conftest import log_points, new_writer, spool
from tests.agent.far_end import FarEnd
from tests.agent.process import AgentProcess
from tests.waiting import until

SOURCES = 64
TEXTS = 24
TEXT_BYTES = 60_000
GROWTH_MAX = EVENTS_IN_FLIGHT_BYTES + 16 * MIB
"""Frames in flight, a batch that is read, compressed and framed, and what Python and the allocator keep."""
HOSTILE_BYTES = 4 * MIB
JUNK = 3000
ABOVE_IDLE_MAX = 64 * MIB
_SIZE_AT = 16


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


def zeros(size: int) -> bytes:
    return bytes(size)


def endless_arrays(size: int) -> bytes:
    """Each says that four billion items follow."""
    return (b"\xdd\xff\xff\xff\xff" * (size // 5 + 1))[:size]


def nested_arrays(size: int) -> bytes:
    return b"\x91" * size


def smallest_events(size: int) -> bytes:
    return b"\xc0" * size


def regular(size: int) -> bytes:
    """An index as that of a segment whose checks stand where they should."""
    return b"".join(struct.pack("<I", HEADER_BYTES + nth * CHECK_BYTES) for nth in range(1, size // 4 + 1))


def forge(home: Home, elsewhere: Home, events: bytes, index: bytes) -> str:
    """A new journal appears, which says that all of its one segment is committed; its source."""
    writer = new_writer(elsewhere)
    writer.close(Outcome.SUCCEEDED)
    with open(os.path.join(writer.folder, segment_name(0)), "r+b") as file:
        head = head_of(file.read(HEADER_BYTES), HEADER_BYTES + len(events))
        file.seek(0)
        file.write(head[:CHECKS_AT] + index + events)
    os.rename(writer.folder, home.journal(writer.source))
    return writer.source


def head_of(page: bytes, size: int) -> bytes:
    """A segment's header as it was, but for a file of another size, which is all committed, and not closed."""
    head = bytearray(page)
    struct.pack_into("<Q", head, _SIZE_AT, size)
    struct.pack_into("<QQ", head, COMMITTED_AT, size, 0)
    return bytes(head)


async def test_hostile_journals_take_bounded_memory(home: Home, nats_server: NatsServer, tmp_path: Path) -> None:
    """Megabytes of what is no event, behind an index of nothing, of noise, or a credible one; a mark and a companion of gigabytes;
    folders without end. Each journal is given up to its end, and what is good beside them arrives."""
    good, elsewhere = new_writer(home), Home(tmp_path / "elsewhere")
    elsewhere.make()
    async with FarEnd(nats_server.url) as far:
        with AgentProcess(home, nats_server.url, tmp_path / "log") as agent:
            await until(lambda: agent.health().get("sources") == 1, "it serves")
            assert agent.process is not None
            idle = taken(agent.process.pid, "VmRSS")
            bad = [
                forge(home, elsewhere, fill(HOSTILE_BYTES), index(4 * CHECKS_MAX))
                for fill in (zeros, os.urandom, endless_arrays, nested_arrays, smallest_events)
                for index in (zeros, os.urandom, regular)
            ]
            for nth in range(JUNK):
                os.mkdir(os.path.join(home.journals, f"junk {nth}"))
                Path(home.flush_request(f"{nth:032x}")).touch()
            companion = f"{spool(home, good.source, 1, b'x')}{COMPANION_SUFFIX}"
            for path in (Path(good.folder, MARK_NAME), Path(home.spool(good.source), companion)):
                path.touch()
                os.truncate(path, 1 << 33)
            log_points(good, 1000)
            await far.has_all(good, timeout_s=60.0)
            await until(lambda: all(far.watermark(source) == HOSTILE_BYTES for source in bad), "all are given up", 60.0)
            await until(lambda: f"{JUNK} journals" in str(agent.health()["reasons"]), "the rest is told")
            grown = taken(agent.process.pid, "VmHWM") - idle
    assert {frame.source for frame in far.lost} == set(bad)
    print(grown / MIB)
    assert grown < ABOVE_IDLE_MAX
    good.close(Outcome.SUCCEEDED)


def taken(pid: int, what: str) -> int:
    """Bytes of memory by proc(5)'s status: VmRSS is what the process has now, VmHWM the most it ever had."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{what}:"))
