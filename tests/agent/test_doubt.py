"""What a broker acknowledged and lost is missed at once, not when patience ends."""

from __future__ import annotations

import os

from headrace.service.broker import ensure_streams
from headrace.service.nats_server import NatsServer
from headrace_proto.events import Outcome
from headrace_proto.home import Home
from tests.agent.conftest import Serve, log_points, new_writer, points_of, spool
from tests.agent.far_end import FarEnd
from tests.faults.broker import wipe
from tests.waiting import until

MANY = 60_000


async def test_what_a_broker_lost_is_missed_although_nothing_follows_it(
    home: Home, nats_server: NatsServer, serve: Serve
) -> None:
    """Sources that ended, that died and that were still, and a file: the new link alone makes the agent ask, and send again."""
    async with FarEnd(nats_server.url) as far, serve() as agent:
        far.consuming = False
        still, ended = new_writer(home), new_writer(home)
        for writer in (still, ended):
            log_points(writer, MANY)
        file = spool(home, still.source, 0, os.urandom(100_000))
        ended.close(Outcome.SUCCEEDED)
        lanes = await until(lambda: len(agent.tail.lanes) == 2 and list(agent.tail.lanes.values()), "they are found")
        await until(lambda: all(lane.source.shipped for lane in lanes), "the stream has it all")
        await until(lambda: [lane.sent for lane in agent.uploader.lanes.values()] == [True], "and the file")
        nats_server.kill()
        wipe(nats_server)
        nats_server.start()
        far.consuming = True
        await until(lambda: far.client.stats["reconnects"], "the far end is back")
        await ensure_streams(far.client.jetstream())
        await far.has_all_of((still, ended))
        for writer in (still, ended):
            assert points_of(far.bytes[writer.source]) == list(range(MANY))
        await until(lambda: (still.source, file) in far.done_files, "the file arrived")
        still.close(Outcome.SUCCEEDED)
