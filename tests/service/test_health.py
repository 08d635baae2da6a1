"""/metrics and /healthz."""

from __future__ import annotations

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Counter

from headrace.service.health import Health, HealthServer


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
        answer = await session.get(url, headers={"Host": "evil.example"})
        assert answer.status == 421


async def test_taken_port_is_an_error_and_nothing_stays_open(registry: CollectorRegistry) -> None:
    """A second server on the same port fails at once; stopping twice is fine."""
    async with HealthServer(0, registry, lambda: Health(ok=True)) as first:
        second = HealthServer(first.port, registry, lambda: Health(ok=True))
        with pytest.raises(OSError, match="address already in use"):
            await second.start()
        await second.stop()
