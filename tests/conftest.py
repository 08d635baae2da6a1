"""Fixtures that several parts' tests share: a home, a store, and real nats-servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from headrace.service.nats_server import NatsServer
from headrace_proto.home import Home

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SETTINGS_VARIABLE_PREFIX = "HEADRACE_"

settings.register_profile("untimed", deadline=None)  # how long an example takes depends on how busy the machine is
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests neither see the settings of whoever runs them, nor write to their home folder."""
    import os

    for name in [name for name in os.environ if name.startswith(SETTINGS_VARIABLE_PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path_factory.mktemp("headrace-home", numbered=True)))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """An empty home, made."""
    home = Home(tmp_path / "home")
    home.make()
    return home


@pytest.fixture
def store(tmp_path: Path) -> str:
    """The URL of an empty local store."""
    return str(tmp_path / "store")


@pytest.fixture
def start_nats(tmp_path: Path) -> Iterator[Callable[..., NatsServer]]:
    """Starts real nats-servers: `start_nats()` gives one more, all are stopped at the test's end."""
    servers: list[NatsServer] = []

    def start(name: str = "nats", port: int = 0, extra: str = "") -> NatsServer:
        server = NatsServer(tmp_path / name, port, extra=extra)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def nats_server(start_nats: Callable[..., NatsServer]) -> NatsServer:
    """One real nats-server with JetStream on a free loopback port."""
    return start_nats()
