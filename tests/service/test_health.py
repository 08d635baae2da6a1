"""/metrics and /healthz."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Counter

from headrace.command.probes import healthz
from headrace.command.readiness import well
from headrace.service.health import Health, HealthServer
from headrace.service.settings import ServiceSettings
from headrace_proto.errors import ConfigError


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("headrace_batches", "Batches sent.", registry=registry).inc(3)
    return registry


async def test_metrics_are_prometheus_text(registry: CollectorRegistry) -> None:
    """/metrics has the registry's values."""
    async with HealthServer(0, registry, lambda: Health(ok=True)) as server, aiohttp.ClientSession() as session:
        text = await (await session.get(f"http://127.0.0.1:{server.port}/metrics")).text()
    assert "headrace_batches_total 3.0" in text


@pytest.mark.parametrize(("ok", "status"), [(True, 200), (False, 503)])
async def test_healthz_says_how_it_is(registry: CollectorRegistry, *, ok: bool, status: int) -> None:
    """/healthz answers 200 or 503, with the facts as JSON."""
    check = Health(ok=ok, facts={"backlog_bytes": 7})
    async with HealthServer(0, registry, lambda: check) as server, aiohttp.ClientSession() as session:
        answer = await session.get(f"http://127.0.0.1:{server.port}/healthz")
        assert (answer.status, await answer.json()) == (status, {"ok": ok, "backlog_bytes": 7})


async def test_foreign_host_name_is_refused(registry: CollectorRegistry) -> None:
    """A page that resolved its own name to the loopback interface reads nothing."""
    async with HealthServer(0, registry, lambda: Health(ok=True)) as server, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{server.port}/metrics"
        async with session.get(url, headers={"Host": "evil.example"}) as answer:
            assert answer.status == 421


async def test_taken_port_is_an_error_and_nothing_stays_open(registry: CollectorRegistry) -> None:
    """A second server on the same port fails at once; stopping twice is fine."""
    async with HealthServer(0, registry, lambda: Health(ok=True)) as first:
        second = HealthServer(first.port, registry, lambda: Health(ok=True))
        with pytest.raises(OSError, match=r"(?i)address already in use"):
            await second.start()
        await second.stop()


# -- Who may ask -----------------------------------------------------------------------------------------------------------

ANYWHERE = "0.0.0.0"


def served(home: Path, registry: CollectorRegistry, **told: Any) -> HealthServer:
    """The server of a part with these settings, which has something to tell."""
    settings = ServiceSettings(home=home, **{"metrics_host": ANYWHERE, **told})
    return HealthServer.of(settings, registry, lambda: Health(ok=False, facts={"home": "/somewhere"}))


async def ask(server: HealthServer, path: str, token: str | None = None, **headers: str) -> tuple[int, str, Any]:
    shown = headers if token is None else {**headers, "Authorization": token}
    async with aiohttp.ClientSession() as session:
        answer = await session.get(f"http://127.0.0.1:{server.port}{path}", headers=shown)
        return answer.status, await answer.text(), answer.headers


async def test_other_interfaces_want_the_token_of_a_file(registry: CollectorRegistry, tmp_path: Path) -> None:
    """Where others can ask, a token is made in the home, for its owner alone, and nothing is told to who does not show it."""
    home = tmp_path / "home"
    async with served(home, registry) as server:
        file = home / "metrics_token"
        token = file.read_text().strip()
        assert file.stat().st_mode & 0o777 == 0o600
        for path in ("/metrics", "/healthz"):
            for wrong in (
                None,
                "",
                "Bearer",
                "Bearer ",
                f"Bearer {token}x",
                f"Bearer {token[:-1]}",
                token,
                "Bearer \u00fc",
            ):
                status, text, headers = await ask(server, path, wrong)
                assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
                assert "batches" not in text
                assert "somewhere" not in text
        assert (await ask(server, "/metrics", f"Bearer {token}"))[0] == 200
        assert "somewhere" in (await ask(server, "/healthz", f"Bearer {token}"))[1]


async def test_token_outlives_the_part(registry: CollectorRegistry, tmp_path: Path) -> None:
    """Whoever was told the token may use it after a restart, and with every part of the home."""
    async with served(tmp_path, registry):
        token = (tmp_path / "metrics_token").read_text()
    async with served(tmp_path, registry) as server:
        assert (tmp_path / "metrics_token").read_text() == token
        assert (await ask(server, "/metrics", f"Bearer {token.strip()}"))[0] == 200


async def test_named_token_is_wanted_everywhere(registry: CollectorRegistry, tmp_path: Path) -> None:
    """A token's file that is named holds on the loopback interface, too."""
    file = tmp_path / "token"
    file.write_text("a-token-of-my-own\n")
    async with served(tmp_path, registry, metrics_host="127.0.0.1", metrics_token_file=file) as server:
        assert (await ask(server, "/metrics"))[0] == 401
        assert (await ask(server, "/metrics", "Bearer a-token-of-my-own"))[0] == 200


@pytest.mark.parametrize(("path", "text"), [("/livez", "alive\n"), ("/readyz", "not ready\n")])
async def test_orchestrators_need_no_token_and_learn_nothing(
    registry: CollectorRegistry, tmp_path: Path, path: str, text: str
) -> None:
    """/livez and /readyz answer everybody, by their status alone."""
    async with served(tmp_path, registry) as server:
        status, said, _ = await ask(server, path)
    assert (status, said) == (200 if path == "/livez" else 503, text)


async def test_open_is_open_only_when_said(registry: CollectorRegistry, tmp_path: Path) -> None:
    """`metrics_open` lets everybody read, and makes no token."""
    async with served(tmp_path, registry, metrics_open=True) as server:
        assert (await ask(server, "/metrics"))[0] == 200
    assert not (tmp_path / "metrics_token").exists()


def test_server_without_a_token_does_not_start_on_other_interfaces(registry: CollectorRegistry) -> None:
    """No part can be made to listen to the world with nothing in its hands."""
    for host in (ANYWHERE, "::", "10.0.0.5", "node-1"):
        with pytest.raises(ConfigError, match="metrics_token_file"):
            HealthServer(0, registry, lambda: Health(ok=True), host=host)


def test_token_that_protects_nobody_is_refused(registry: CollectorRegistry, tmp_path: Path) -> None:
    """A file that others can read, that is a link, empty or a word too short is an error that names it."""
    file = tmp_path / "metrics_token"
    for text, mode in (("x" * 40, 0o644), ("", 0o600), ("short", 0o600), ("two words of some length", 0o600)):
        file.write_text(text)
        file.chmod(mode)
        with pytest.raises(ConfigError, match="metrics_token"):
            served(tmp_path, registry)
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="metrics_token"):
        served(tmp_path, registry)
    with pytest.raises(ConfigError, match="absent"):
        served(tmp_path, registry, metrics_token_file=tmp_path / "absent")


async def test_answers_are_of_no_use_to_a_browser(registry: CollectorRegistry, tmp_path: Path) -> None:
    """Each answer, errors too, forbids guessing its type, running, framing and keeping it."""
    async with served(tmp_path, registry) as server:
        for path in ("/metrics", "/healthz", "/livez", "/absent"):
            _, _, headers = await ask(server, path)
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert "default-src 'none'" in headers["Content-Security-Policy"]
            assert headers["Cache-Control"] == "no-store"
            assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize("name", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "", "[::2]"])
async def test_every_foreign_name_is_refused(registry: CollectorRegistry, tmp_path: Path, name: str) -> None:
    """On the loopback interface only its own names are answered."""
    async with served(tmp_path, registry, metrics_host="127.0.0.1") as server:
        assert (await ask(server, "/livez", Host=name))[0] in (400, 421)
        assert (await ask(server, "/livez", Host=f"localhost:{server.port}"))[0] == 200


async def test_password_of_a_url_is_not_shown(registry: CollectorRegistry) -> None:
    """What a part tells of its store or broker is told without user and password."""
    check = Health(ok=True, facts={"store": "ftp://ann:secret@host/runs"})
    async with HealthServer(0, registry, lambda: check) as server:
        _, text, _ = await ask(server, "/healthz")
    assert "secret" not in text
    assert "host/runs" in text


async def test_commands_understand_a_part_that_wants_a_token(registry: CollectorRegistry, tmp_path: Path) -> None:
    """`headrace status` and `up` see that a part runs and how it is, whatever it wants for its figures."""
    async with served(tmp_path, registry) as server:
        answer = await asyncio.to_thread(healthz, server.port)
        assert answer is not None
        assert (answer.ok, "token" in answer.facts["reasons"][0]) == (False, True)
        assert await asyncio.to_thread(well, server.port) is False
