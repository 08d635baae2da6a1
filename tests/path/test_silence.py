"""Not responding, on the whole path: real agent, real collector, a real store, and a reader with a clock of its own."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from headrace.reading import StoredProject
from headrace.reading.silence import silent_ones
from headrace_proto.store.backend import open_store
from headrace_proto.store.signs import SILENT_AFTER, read_signs
from tests.path.stack import Stack
from tests.waiting import wait_until


def test_a_node_that_goes_silent_makes_its_experiments_not_respond(tmp_path: Path) -> None:
    """The agent is killed, its trainer lives and rests: a minute later nothing has been heard; with a new agent it has."""
    with Stack(tmp_path) as stack:
        stack.start()
        trainer = stack.start_trainer(seed=1, pace_s=3600.0)
        stack.wait_stored(trainer, 1)
        store = open_store(str(stack.store), writable=False)
        project = StoredProject(store, "chaos/killed")
        [row] = wait_until(lambda: project.rows() or False, "it is listed")

        def heard_at() -> datetime | None:
            return read_signs(store).heard_at().get(row.experiment)

        first = wait_until(heard_at, "the agent vouches for it")
        wait_until(lambda: (at := heard_at()) and at > first, "again and again")
        assert not silent_ones(project.rows(), store)
        stack.kill("agent")
        later = datetime.now(UTC) + SILENT_AFTER
        assert silent_ones(project.rows(), store, later) == {row.experiment}
        assert [one.state for one in project.rows()] == ["running"]
        stack.start_agent()
        wait_until(lambda: (at := heard_at()) and at > later - SILENT_AFTER, "the new agent vouches for it")
        assert not silent_ones(project.rows(), store)
