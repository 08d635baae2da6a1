"""From a journal to the far end, over a real broker."""

from __future__ import annotations

import os

from headrace.service.nats_server import NatsServer
from headrace_proto.events import Outcome
from headrace_proto.home import Home
from headrace_proto.status import read_status
from tests.agent.conftest import Serve, journal_bytes, log_points, new_writer
from tests.agent.far_end import FarEnd
from tests.waiting import until


async def test_every_byte_of_a_journal_reaches_the_far_end(home: Home, nats_server: NatsServer, serve: Serve) -> None:
    """What a writer logged arrives as it stands, and the status says so."""
    async with FarEnd(nats_server.url) as far, serve():
        writer = new_writer(home)
        log_points(writer, 100_000)
        written = journal_bytes(home, writer.source)  # before the agent, which runs in this loop, can trim any of it
        await far.has_all(writer)
        assert bytes(far.bytes[writer.source]) == written
        path = home.status(writer.experiment)
        status = await until(
            lambda: (s := read_status(path)) and s.sources[writer.source].stored == writer.position and s, "a status"
        )
        assert status.short_id == "TST-1"
        assert status.sources[writer.source].streamed == writer.position
        writer.close(Outcome.SUCCEEDED)
        await until(lambda: not os.path.exists(home.journal(writer.source)), "the finished journal is deleted")
        assert not far.gaps
