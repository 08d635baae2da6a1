"""One journal, two ways into a store: what comes out is the same to the bit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from headrace.direct import Direct
from headrace_proto.errors import ExperimentNotFound
from headrace_proto.home import Home
from headrace_proto.journal import JournalReader
from headrace_proto.store.backend import open_store
from headrace_proto.store.chain import Chain
from headrace_proto.store.verification import Verification, verify
from tests.path.stack import Stack, journal_ends
from tests.waiting import wait_until

PROJECT = "vision/digits"
TRAINER = """
import io, os
import headrace as hr

with hr.init("vision/digits").create_experiment(
    name="both", params={"lr": 0.1, "deep": {"nan": float("nan")}}, tags=["a"], upload_source_files=[],
    upload_stdout=False, upload_stderr=False, send_hardware_metrics=False,
) as experiment:
    for step in range(20_000):
        experiment.log_metric("loss", step % 1000, 1 / (step + 1))
        experiment.log_metric("auto", step)
    experiment.log_metrics({"a": float("inf"), "b": -0.0}, step=3)
    for line in range(200):
        experiment.log_text("log", f"line {line}")
    experiment.log_text("long", "x" * 200_000)
    experiment.log_image("pictures", b"\\x89PNG" + bytes(100_000))
    experiment.log_artifact(io.BytesIO(bytes(range(256)) * 8192), "model.bin")
    experiment.set_property("data", "v3")
"""


def _proof(store: Path, experiment: str) -> Verification | None:
    """What is proved of the experiment; None while there is none."""
    try:
        return verify(open_store(str(store), writable=False), PROJECT, experiment)
    except ExperimentNotFound:
        return None


def test_direct_and_through_agent_and_collector_are_one_experiment(tmp_path: Path) -> None:
    """The journal of one program, stored by the program's own machine and by agent, broker and collector: `verify` proves both
    complete and gives both one digest, before and after compaction."""
    with Stack(tmp_path / "stack") as stack:
        environment = {**os.environ, "HEADRACE_HOME": stack.home.root}
        subprocess.run([sys.executable, "-c", TRAINER], env=environment, check=True, timeout=60)
        ends = journal_ends(stack.home)
        [source] = ends
        reader = JournalReader(stack.home.journal(source))
        experiment = reader.header.experiment
        reader.close()
        other = tmp_path / "other"
        shutil.copytree(stack.home.root, other)
        receipt = Direct(Home(other), str(tmp_path / "direct"), PROJECT, experiment).save(ends, 60)
        assert receipt.reached
        stack.start()
        through = wait_until(
            lambda: (proof := _proof(stack.store, experiment)) and proof.verdict == "complete" and proof,
            "all is stored",
            60,
        )
    direct = _proof(tmp_path / "direct", experiment)
    assert direct is not None
    assert direct.verdict == "complete"
    assert direct.digest == through.digest is not None
    assert direct.channels == through.channels
    chain = Chain(open_store(str(stack.store)), PROJECT, experiment).load()
    chain.compact(now_ns=time.time_ns(), final=True)
    compacted = _proof(stack.store, experiment)
    assert compacted is not None
    assert compacted.digest == direct.digest
