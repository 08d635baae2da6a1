"""Weight: what a trainer carries that only logs. Which modules and threads, not how many milliseconds."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.sdk.conftest import Run

HEAVY = (
    "json",
    "logging",
    "subprocess",
    "socket",
    "tomllib",
    "importlib.metadata",
    "dataclasses",
    "pathlib",
    "inspect",
    "typing",
    "re",
    "weakref",
    "tempfile",
    "threading",
    "traceback",
    "asyncio",
    "hashlib",
    "multiprocessing",
    "numpy",
    "pydantic",
    "pyarrow",
    "pandas",
    "fsspec",
    "headrace_proto.journal.reader",
    "headrace.direct",
    "headrace.reading",
    "headrace.service",
    "headrace.command",
    "headrace_proto.store",
)
LOADED = f"import json, sys; json.dump([name for name in {HEAVY!r} if name in before], sys.stdout)"


def loaded(code: str) -> list[str]:
    """Which heavy modules a fresh interpreter has after `code`."""
    done = subprocess.run(
        [
            sys.executable,
            "-S",
            "-c",
            f"import sys; sys.path[:0] = {sys.path!r}\n{code}\nbefore = set(sys.modules)\n{LOADED}",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    names: list[str] = json.loads(done.stdout)
    return names


def test_importing_headrace_loads_nothing_heavy() -> None:
    """Neither of ours nor of the standard library's."""
    assert loaded("import headrace") == []


def test_logging_scalars_loads_nothing_heavy() -> None:
    """Up to the first metric and the end; what hooks need (threads, tracebacks and their `re`) comes with the first experiment."""
    code = (
        "import headrace as hr\n"
        "exp = hr.init('a/b').create_experiment(upload_source_files=[], git_info=False)\n"
        "exp.log_metric('loss', 0.5)\n"
        "exp.log_metrics({'a': 1, 'b': 2})\n"
        "exp.log_text('notes', 'hello')\n"
        "print(end='')\n"
        "exp.stop()"
    )
    assert loaded(code) == ["re", "threading", "traceback"]


def test_a_trainer_has_no_thread_of_ours(run_script: Run) -> None:
    """Counted by the kernel, with capture on, after everything that is logged every step."""
    done = run_script(
        "for step in range(1000):\n"
        "    exp.log_metric('loss', step, 0.5)\n"
        "exp.log_metrics({'a': 1, 'b': 2})\n"
        "exp.log_text('notes', 'x' * 100_000)\n"
        "exp.log_artifact(__file__)\n"
        "print(len(os.listdir('/proc/self/task')))\n",
        "",
    )
    assert done.stdout == "1\n"
