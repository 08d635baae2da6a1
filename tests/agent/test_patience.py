"""Waiting: for the store's word, and between failures."""

from __future__ import annotations

from headrace_agent.backoff import Backoff
from headrace_agent.glances import LONG_EVERY, LONG_NS, PERIOD_NS, Glances
from headrace_agent.patience import PATIENCE_S, PATIENCE_S_MAX, Patience


def test_silence_is_borne_for_a_minute_then_twice_as_long() -> None:
    """Each repetition doubles the wait, up to half an hour."""
    patience = Patience(0.0)
    waits: list[float] = []
    now_s = since_s = 0.0
    while len(waits) < 8:
        if patience.exhausted(now_s, 0, outstanding=True):
            waits.append(now_s - since_s)
            since_s = now_s
        now_s += 1
    assert waits == [60, 120, 240, 480, 960, 1800, 1800, 1800]
    assert PATIENCE_S_MAX == 1800


def test_progress_and_rest_begin_the_wait_anew() -> None:
    """A store that moves, or owes nothing, is not silent."""
    patience = Patience(0.0)
    for now_s in range(0, 1000, 10):
        assert not patience.exhausted(float(now_s), now_s, outstanding=True)
    assert not patience.exhausted(2000.0, 990, outstanding=False)
    assert not patience.exhausted(2000.0 + PATIENCE_S - 1, 990, outstanding=True)
    assert patience.exhausted(2000.0 + PATIENCE_S, 990, outstanding=True)


def test_a_slow_collector_is_not_late() -> None:
    """One that commits once a minute has four of its intervals."""
    patience = Patience(0.0)
    patience.exhausted(0.0, 5, outstanding=True, interval_s=60.0)
    assert not patience.exhausted(239.0, 5, outstanding=True, interval_s=60.0)
    assert patience.exhausted(240.0, 5, outstanding=True, interval_s=60.0)


def test_pauses_double_and_begin_anew() -> None:
    """Jittered, and bounded."""
    backoff = Backoff(0.1, 1.0)
    pauses = [backoff.failed() for _ in range(6)]
    for pause, most in zip(pauses, (0.1, 0.2, 0.4, 0.8, 1.0, 1.0), strict=True):
        assert most / 2 <= pause <= most
    backoff.succeeded()
    assert backoff.failed() <= 0.1


def test_a_sleeping_source_is_looked_at_every_second_and_sometimes_for_long() -> None:
    """Long enough, every so often, to find out that its writer is gone."""
    glances, long_ones = Glances(), 0
    for nth in range(2 * LONG_EVERY):
        now_ns = nth * PERIOD_NS
        assert glances.due("a", now_ns)
        glances.begin("a", now_ns)
        assert not glances.due("a", now_ns + PERIOD_NS - 1)
        long_ones += not glances.may_end("a", now_ns)
        assert glances.may_end("a", now_ns + LONG_NS)
    assert long_ones == 2
