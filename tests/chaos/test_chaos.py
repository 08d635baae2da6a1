"""The conservation oracle in short: seconds of the faults that `make soak` makes for minutes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.chaos import payload
from tests.chaos.oracle import expected_column, ranges
from tests.chaos.payload import NUMERIC, Call
from tests.chaos.run import Chaos, Plan, Report
from tests.chaos.schedule import KILLS, LOSSY, STORE, schedule

SEED = 20261121
FAULTS_S = 12.0
MEAN_S = 0.6


def _accounted(report: Report) -> int:
    """Calls that are stored, or missing for a reason that was made."""
    return report.findings.stored + report.findings.dropped + report.findings.damaged


@pytest.mark.timeout(400)
def test_nothing_is_lost_or_doubled_whatever_is_killed_stopped_or_cut_off(tmp_path: Path) -> None:
    """Trainers, agent, two collectors, broker and links fail by a seeded schedule: the store has every returned call once."""
    report = Chaos(tmp_path, Plan(FAULTS_S, SEED, mean_s=MEAN_S, per_s=12_000), print).run()
    assert not report.findings.sentences, "\n".join(report.findings.sentences)
    assert _accounted(report) >= report.returned > 0


@pytest.mark.timeout(400)
def test_what_the_broker_loses_is_healed_from_the_journals(tmp_path: Path) -> None:
    """The same, and the broker loses again and again what it had acknowledged: the store has every returned call once."""
    report = Chaos(tmp_path, Plan(FAULTS_S, SEED, lossy=True, mean_s=MEAN_S, per_s=12_000), print).run()
    assert any(kind.what in fault for kind in LOSSY for fault in report.faults)
    assert not report.findings.sentences, "\n".join(report.findings.sentences)
    assert _accounted(report) >= report.returned > 0


@pytest.mark.timeout(400)
def test_a_store_that_fails_meanwhile_has_everything_once(tmp_path: Path) -> None:
    """On S3, whose requests are refused, lost, answered by half or not at all: the store has every returned call once."""
    report = Chaos(tmp_path, Plan(FAULTS_S, SEED, remote=True, mean_s=MEAN_S, per_s=3_000), print).run()
    assert any(fault.startswith(f"{STORE}: ") for fault in report.faults)
    assert not report.findings.sentences, "\n".join(report.findings.sentences)
    assert _accounted(report) >= report.returned > 0


def test_a_schedule_is_a_function_of_its_seed() -> None:
    """The same seed gives the same faults, no part is given a second one before its first is over, and enough are kills."""
    faults = schedule(SEED, 600, 2.0)
    assert faults == schedule(SEED, 600, 2.0) != schedule(SEED + 1, 600, 2.0)
    assert sum(fault.what in KILLS for fault in faults) >= 100
    over: dict[tuple[str, bool], float] = {}
    for fault in faults:
        part = fault.target, fault.what in ("cut", "deaf", "silent")
        assert fault.at_s >= over.get(part, 0.0)
        over[part] = fault.at_s + fault.for_s
    assert max(over.values()) <= 600


def test_a_lossy_schedule_loses_often_enough() -> None:
    """Ten minutes have more than ten losses of the broker, of both kinds."""
    lossy = [
        fault.what for fault in schedule(SEED, 600, 2.0, lossy=True) if fault.what in {kind.what for kind in LOSSY}
    ]
    assert len(lossy) >= 10
    assert set(lossy) == {kind.what for kind in LOSSY}


def test_a_number_says_who_logged_it_and_survives_no_change() -> None:
    """Column, source and sequence come back from the value; a changed bit names another call."""
    value = payload.number(4, 1_234, 567_890)
    assert (int(value) * payload.INVERSE) % payload.MODULUS == 4 << 48 | 1_234 << 32 | 567_890
    for bit in range(52):
        changed = ((int(value) ^ 1 << bit) * payload.INVERSE) % payload.MODULUS
        assert changed != 4 << 48 | 1_234 << 32 | 567_890


def test_the_oracle_and_the_producers_agree_on_what_is_logged() -> None:
    """The arithmetic over arrays is the one over numbers."""
    sequences = np.arange(100_000)
    found = expected_column(sequences, np.full(len(sequences), payload.ROW_COLUMN + 1))
    wanted = {Call.AUTO: payload.AUTO_COLUMN, Call.ROW: payload.ROW_COLUMN + 1, Call.TEXT: -1}
    wanted |= {Call.ARTIFACT: -1, Call.NOWHERE: -1}
    for sequence in range(100_000):
        call = payload.call_of(sequence)
        assert found[sequence] == wanted.get(call, sequence & 1), (sequence, call)
    assert len(NUMERIC) <= 16


def test_what_is_missing_is_told_in_ranges() -> None:
    """A person reads where it begins and ends."""
    assert ranges(np.array([3, 4, 5, 9])) == "3-5, 9"
