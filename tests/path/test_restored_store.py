"""A store that is put back to an older copy, as after a restore from a backup: the journals have been freed in the meantime."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from headrace_proto.events import Outcome
from headrace_proto.ids import random_id
from headrace_proto.journal import JournalReader, JournalWriter, SourceFacts
from headrace_proto.limits import SEGMENT_BYTES
from tests.path.stack import Stack, document, points
from tests.waiting import wait_until

PROJECT = "chaos/killed"
START_NS = 1_700_000_000_000_000_000


@pytest.mark.timeout(300)
def test_a_store_that_was_put_back_gets_all_that_is_left_and_shows_the_rest_as_lost(tmp_path: Path) -> None:
    """What the journal still has is stored again, what it has not is one lost range, and the source goes on and ends well."""
    with Stack(tmp_path) as stack:
        stack.environment["HEADRACE_HARDWARE_S"] = "0"
        stack.start()
        experiment = random_id()
        writer = JournalWriter(stack.home, PROJECT, experiment, SourceFacts())
        _log(writer, 0, 20_000)
        wait_until(lambda: _stored(stack, experiment) == 20_000, "the first points are stored")
        stack.stop("collector")
        copied = _watermark(stack, experiment, writer.source)
        shutil.copytree(stack.store, tmp_path / "backup")
        stack.start_collector()
        _log(writer, 20_000, 420_000)
        wait_until(lambda: _stored(stack, experiment) == 420_000, "the others are stored", 60)
        freed = "the journal is freed but for the segment that is being written"
        wait_until(lambda: writer.position - _oldest(writer) < SEGMENT_BYTES // 2, freed, 60)
        oldest = _oldest(writer)
        assert oldest > copied

        stack.kill("collector")
        shutil.rmtree(stack.store)
        (tmp_path / "backup").rename(stack.store)
        stack.start_collector()
        _log(writer, 420_000, 420_100)
        writer.close(Outcome.SUCCEEDED)

        stack.wait_drained()
        facts = document(stack.store, experiment)
        (lost,) = facts["sources"][writer.source]["lost"]
        assert lost == {"first": copied, "end": oldest, "reason": "trimmed"}
        assert facts["notes"]["lost_bytes"] == oldest - copied
        assert facts["state"] == "succeeded"
        steps = [step for step, _ in points(stack.store, experiment, "v")]
        first_kept = next(step for step in range(20_000, 420_000) if steps[20_000] <= step)
        assert steps == [float(step) for step in (*range(20_000), *range(first_kept, 420_100))]


def _log(writer: JournalWriter, first: int, end: int) -> None:
    for step in range(first, end):
        writer.point("v", float(step), step * 0.5, START_NS + step)


def _stored(stack: Stack, experiment: str) -> int:
    """How many points the store shows."""
    try:
        return int(document(stack.store, experiment)["channels"]["numeric"]["v"]["count"])
    except (FileNotFoundError, KeyError):
        return 0


def _watermark(stack: Stack, experiment: str, source: str) -> int:
    """How far the newest commit holds a source."""
    newest = max((stack.store / PROJECT / "experiments" / experiment / "commits").iterdir())
    return int(json.loads(newest.read_text())["sources"][source]["position"])


def _oldest(writer: JournalWriter) -> int:
    """The first position that the journal still has."""
    try:
        reader = JournalReader(writer.folder)
    except FileNotFoundError:  # freed between listing and opening it
        return 0
    try:
        return reader.oldest
    finally:
        reader.close()
