"""A large artifact through the real path: trainer, agent, nats-server and collector on one machine."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from headrace_proto.limits import MIB
from tests.benchmarks.rows import Row
from tests.path.stack import Stack, experiments

SIZE_MIB = 2048
PROJECT = "chaos/killed"

LOG_ONE = """
import json, sys, time
import headrace as hr

exp = hr.init("chaos/killed").create_experiment(
    upload_source_files=[], upload_stdout=False, upload_stderr=False, send_hardware_metrics=False
)
began = time.perf_counter()
exp.log_artifact(sys.argv[1], "large.bin")
returned_s = time.perf_counter() - began
receipt = exp.wait("stored", timeout=300)
assert receipt.reached, receipt
print(json.dumps({"returned_s": returned_s, "stored_s": time.perf_counter() - began}))
"""


def run() -> list[Row]:
    """Time until a file of 2 GiB is stored, and what agent and collector needed for it."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder, Stack(Path(folder)) as stack:
        stack.start()
        source = Path(folder) / "large.bin"
        digest = _fill(source)
        done = subprocess.run(
            [sys.executable, "-c", LOG_ONE, str(source)],
            env=stack.environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=400,
        )
        figures = json.loads(done.stdout)
        peaks = {name: _peak_mib(stack.children[name].pid) for name in ("agent", "collector")}
        (experiment,) = experiments(stack.store, PROJECT)
        stored = stack.store / PROJECT / "experiments" / experiment / "artifacts" / "large.bin"
        if _sha256(stored) != digest:
            raise AssertionError("the stored artifact differs from the logged one")
    return [
        Row("log_artifact of 2 GiB: the call (the bytes are in the spool)", figures["returned_s"], "s"),
        Row("log_artifact of 2 GiB: until stored, byte-identical", figures["stored_s"], "s"),
        Row("agent RSS, peak, 2 GiB artifact", peaks["agent"], "MiB"),
        Row("collector RSS, peak, 2 GiB artifact", peaks["collector"], "MiB"),
    ]


def _fill(path: Path) -> str:
    """Bytes that do not compress; their digest."""
    random_bytes, digest = random.Random(7), hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(SIZE_MIB // 16):
            block = random_bytes.randbytes(16 * MIB)
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _peak_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"process {pid} tells no peak of its memory")
