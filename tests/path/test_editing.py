"""Streaming and curation meet on one experiment: a trainer logs through agent and collector while its stored handle commits."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

import headrace as hr
from headrace.experiment import alive
from headrace.waiting import agent_serves
from headrace_proto.errors import ArtifactNotFound, ChannelNotFound
from headrace_proto.store.backend import open_store
from headrace_proto.store.inspection import Depth, Options, Severity, inspect
from headrace_proto.store.verification import verify
from tests.path.stack import Stack
from tests.quiet import QUIET
from tests.waiting import wait_until

LARGE = bytes(range(256)) * 1024


@pytest.mark.timeout(200)
def test_a_live_handle_reads_and_a_stored_one_edits_what_the_collector_stores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each read sees what the line before logged; each edit is there at once; neither takes anything from the other; and the
    store is sound afterwards."""
    monkeypatch.setenv("HEADRACE_READ_S", "60")
    with Stack(tmp_path) as stack:
        stack.start()
        wait_until(lambda: agent_serves(stack.home), "the agent serves the home")
        project = hr.init("vision/digits", home=stack.home.root, store=stack.store)
        live = project.create_experiment(params={"lr": 0.1}, **QUIET)
        try:
            live.log_artifact(io.BytesIO(LARGE), "model.bin")
            assert Path(live.download_artifact("model.bin", str(tmp_path / "out"))).read_bytes() == LARGE
            assert live.get_system_properties()["storage_size"] == len(LARGE)
            stored = project.stored().get_experiment(live.internal_id)
            for step in range(20):
                live.log_metric("loss", step, 1 / (step + 1))
                stored.log_metric("late", step, step)
                stored.append_tag(f"theirs-{step}")
                live.append_tag(f"ours-{step}")
            stored.log_artifact(io.BytesIO(LARGE[1:]), "theirs.bin")
            live.reset_log("late")  # which only the store knows
            with pytest.raises(ChannelNotFound):
                live.reset_log("lat")
            live.delete_artifacts("theirs.bin")  # likewise
            with pytest.raises(ArtifactNotFound):
                live.delete_artifacts("their.bin")
            assert live.get_numeric_channels_values("loss", "late")["loss"].tolist() == [
                1 / (step + 1) for step in range(20)
            ]
            stored.set_property("by", "hand")
            live.stop()
            live.save(60)
        finally:
            for experiment in alive():
                experiment.stop()
        stack.wait_drained()
        stored.refresh()
        assert stored.state == "succeeded"
        assert set(stored.tags) == {f"{whose}-{step}" for whose in ("ours", "theirs") for step in range(20)}
        assert list(stored.artifacts) == ["model.bin"]
        assert stored.get_channel("late")["value"].tolist() == []
        assert stored.properties == {"by": "hand"}
        stored.stop("too late")
        assert stored.state == "succeeded"
        store = open_store(str(stack.store), writable=False)
        assert verify(store, "vision/digits", live.internal_id).verdict == "complete"
        found = inspect(store, Options(depth=Depth.DIGESTS))
        assert [one for one in found if one.severity is Severity.ERROR] == []
