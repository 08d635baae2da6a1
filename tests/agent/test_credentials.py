"""A broker that does not believe the agent, or does not let it publish: all is kept, it is said why, and it ends by itself."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path

import nkeys
import pytest

from headrace.service import secured
from headrace.service.nats_server import NatsServer
from headrace_agent import ship
from headrace_agent.agent import Agent
from headrace_agent.backoff import Backoff
from headrace_proto import subjects
from headrace_proto.events import Outcome
from headrace_proto.home import Home
from tests.agent.conftest import Serve, log_points, new_writer, points_of
from tests.agent.far_end import FarEnd
from tests.waiting import until

MANY = 5_000


def _key() -> tuple[str, bytes]:
    """A new key: its public half, and its seed."""
    pair = nkeys.from_seed(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER))
    return str(pair.public_key.decode()), bytes(pair.seed)


class Guarded:
    """A nats-server that lets in the far end, by a password, and whom `admit` names."""

    def __init__(self, start: Callable[..., NatsServer], folder: Path) -> None:
        self.seed = folder / "agent.nk"
        self.server = start("guarded", extra=self._users(f"{{ nkey: {_key()[0]} }}"))
        self.far_url = self.server.url.replace("//", "//far:away@")

    def make_key(self) -> str:
        """A new key in the agent's file; its public half."""
        public, seed = _key()
        self.seed.write_bytes(seed)
        return public

    def admit(self, public: str, permissions: str = "") -> None:
        """Let in this key and no other from now on, who is inside included."""
        self.server._extra = self._users(f"{{ nkey: {public or _key()[0]}{permissions} }}")
        self.server.command()  # writes the configuration
        assert self.server.pid is not None
        os.kill(self.server.pid, signal.SIGHUP)

    def _users(self, agent: str) -> str:
        return f"authorization {{ users = [ {{ user: far, password: away }}, {agent} ] }}"


@pytest.fixture
def guarded(start_nats: Callable[..., NatsServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Guarded:
    """A guarded server; whoever is refused asks again soon."""
    monkeypatch.setattr(secured, "REFUSED_S_MAX", 0.3)
    return Guarded(start_nats, tmp_path)


def reasons(agent: Agent) -> str:
    """What /healthz says."""
    return " ".join(agent.check().facts["reasons"])


# -- Fault 22: data is kept; the refusal is told with its remedy; asked ever more slowly, and mended without a restart --


async def test_a_wrong_key_is_said_once_and_its_correction_needs_no_restart(
    home: Home, guarded: Guarded, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """/healthz and the log name the file; when it holds the right key, all that was logged meanwhile arrives."""
    guarded.make_key()
    with caplog.at_level(logging.INFO):
        async with FarEnd(guarded.far_url) as far, serve(nats=guarded.server.url, credentials=guarded.seed) as agent:
            writer = new_writer(home)
            log_points(writer, MANY)
            await until(lambda: str(guarded.seed) in reasons(agent), "the refusal is told")
            assert "credentials" in reasons(agent)
            assert not agent.check().ok
            guarded.seed.write_bytes(b"between two versions")
            await until(lambda: "no nkey" in reasons(agent), "what the file holds now is told")
            guarded.admit(guarded.make_key())
            await far.has_all(writer)
            assert points_of(far.bytes[writer.source]) == list(range(MANY))
            await until(lambda: agent.check().ok, "nothing is wrong any more")
            writer.close(Outcome.SUCCEEDED)
    said = [record.getMessage() for record in caplog.records if "does not take our credentials" in record.getMessage()]
    assert len(said) == 1, said


async def test_a_revoked_agent_keeps_everything_and_goes_on_when_it_is_let_in_again(
    home: Home, guarded: Guarded, serve: Serve
) -> None:
    """The broker expels it in the middle; what is logged until the user is restored arrives, once."""
    public = guarded.make_key()
    guarded.admit(public)
    async with FarEnd(guarded.far_url) as far, serve(nats=guarded.server.url, credentials=guarded.seed) as agent:
        writer = new_writer(home)
        log_points(writer, MANY)
        await far.has_all(writer, "the link works")
        guarded.admit("")
        await until(lambda: "does not take our credentials" in reasons(agent), "the refusal is told")
        log_points(writer, MANY, MANY)
        guarded.admit(public)
        await far.has_all(writer)
        assert points_of(far.bytes[writer.source]) == list(range(2 * MANY))
        await until(lambda: agent.check().ok, "nothing is wrong any more")
        writer.close(Outcome.SUCCEEDED)


async def test_who_may_not_publish_is_told_so_and_asks_slowly(
    home: Home, guarded: Guarded, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker never answers such a message: it is no silence that is waited out, and no storm of repetitions."""
    pauses: list[float] = []

    class Counted(Backoff):
        def failed(self) -> float:
            pauses.append(super().failed())
            return 0.2

    monkeypatch.setattr(ship, "Backoff", Counted)
    public = guarded.make_key()
    elsewhere = ', permissions: { publish: { allow: ["hr.v1.hall-3.>", "$JS.>"] } }'
    guarded.admit(public, elsewhere)
    async with FarEnd(guarded.far_url) as far, serve(nats=guarded.server.url, credentials=guarded.seed) as agent:
        writer = new_writer(home)
        log_points(writer, MANY)
        await until(lambda: "does not let this site publish" in reasons(agent), "the violation is told")
        assert subjects.EVENTS_PREFIX in reasons(agent)
        assert agent.uplink.connected
        await until(lambda: len(pauses) >= 3, "it asks again")
        assert pauses[2] > pauses[0]
        assert _refused(agent) <= len(pauses) * 16
        guarded.admit(public)
        await far.has_all(writer)
        await until(lambda: agent.check().ok, "nothing is wrong any more")
        writer.close(Outcome.SUCCEEDED)


def _refused(agent: Agent) -> float:
    labels = {"reason": "NotPermitted"}
    return agent.metrics.registry.get_sample_value("headrace_agent_retries_total", labels) or 0.0
