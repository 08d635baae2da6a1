"""Backlogs on a leash: how far they may run ahead of the store, so that what is new does not stand behind them in the stream."""

from __future__ import annotations

import pytest

from headrace.service.nats_server import NatsServer
from headrace_agent import leash
from headrace_agent.leash import LEASH_BYTES_MIN, LEASH_S, SILENCE_S, Leash
from headrace_proto.events import Outcome
from headrace_proto.home import Home
from headrace_proto.limits import MIB
from tests.agent.conftest import Serve, log_points, new_writer, points_of
from tests.agent.far_end import FarEnd
from tests.waiting import until

MANY = 1_500_000


def test_a_store_that_says_nothing_leads_nobody() -> None:
    """The stream is a second place where bytes are safe, and has a limit of its own."""
    loose = Leash()
    assert not loose.look(1 << 40, 0.0)
    loose.stored(100 * MIB, 0.5, 1.0)
    assert loose.look(1 << 40, 2.0)
    assert not loose.look(1 << 40, 2.0 + SILENCE_S)


def test_what_is_on_its_way_is_what_the_store_takes_in_two_seconds() -> None:
    """Once it is fast, and half a million points before."""
    led = Leash()
    led.stored(0, 0.5, 0.0)
    assert not led.look(LEASH_BYTES_MIN, 0.0)
    assert led.look(LEASH_BYTES_MIN + 1, 0.0)
    for nth in range(50):
        led.stored(5 * MIB, 0.5, nth / 10)
    rate = 50 * 5 * MIB / 4.9
    assert not led.look(int(rate * LEASH_S) - 1, 4.9)
    assert led.look(int(rate * LEASH_S) + 1, 4.9)


def test_a_store_that_commits_rarely_gets_enough_for_two_commits() -> None:
    """What comes in bursts is not taken for slow, nor for silent."""
    led = Leash()
    for nth in range(10):
        led.stored(600 * MIB, 60.0, nth * 60.0)
    assert not led.look(1000 * MIB, 599.0)
    assert led.look(2000 * MIB, 599.0)


def test_a_stop_lets_go() -> None:
    """What is committed is to be shipped, whatever stands behind it."""
    led = Leash()
    led.stored(1, 0.5, 0.0)
    led.loose = True
    assert not led.look(1 << 40, 0.0)


# -- Fault 9: journals grow up to the quota; then what is new overtakes the backlog ----------------------------------


async def test_what_is_new_overtakes_a_backlog_that_waits_for_the_store(
    home: Home, nats_server: NatsServer, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the store is slow the backlog stays in the journal, new points go out, and when it goes on all arrives."""
    monkeypatch.setattr(leash, "LEASH_BYTES_MIN", MIB)
    monkeypatch.setattr(leash, "LEASH_S", 0.0)
    monkeypatch.setattr(leash, "SILENCE_S", 3600.0)
    async with FarEnd(nats_server.url) as far, serve() as agent:
        fresh = new_writer(home)
        log_points(fresh, 10)
        await far.has_all(fresh, "the store speaks")
        far.consuming = False
        old = new_writer(home)
        log_points(old, MANY)
        await until(lambda: agent.events.leash.held, "the backlog waits")
        window = agent.tail.lanes[old.source].window
        log_points(fresh, 10, 10)
        fresh_window = agent.tail.lanes[fresh.source].window
        await until(lambda: fresh_window.acked == fresh.position, "what is new is in the stream")
        assert window.cut < old.position
        far.consuming = True
        await far.has_all(old, "all of it arrived")
        assert points_of(far.bytes[old.source]) == list(range(MANY))
        for writer in (fresh, old):
            writer.close(Outcome.SUCCEEDED)
