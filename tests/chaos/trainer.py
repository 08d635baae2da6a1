"""A producer: `python -m tests.chaos.trainer BOARD SOURCE KEY CALLS_PER_S`. Logs through the real SDK, and notes each call after it
returned.

The board is shared memory: how many calls have returned, and whether to stop. It outlives a SIGKILL, as the journal must.
"""

from __future__ import annotations

import io
import json
import math
import mmap
import os
import sys
import time
import warnings
from threading import Event

import headrace as hr
from headrace.errors import TelemetryWarning
from tests.chaos import payload
from tests.chaos.payload import Call

RETURNED, STOP = 0, 1
BURSTS_PER_S = 200


def main(board: str, source: int, key: str, per_s: float) -> None:
    """Log until told to stop, or killed."""
    with open(board, "r+b") as file:
        words = memoryview(mmap.mmap(file.fileno(), mmap.PAGESIZE)).cast("Q")
    warnings.simplefilter("ignore", TelemetryWarning)  # what is dropped by plan
    exp = hr.init("chaos/soak").create_experiment(
        name=key,
        key=key,
        label=str(source),
        upload_source_files=[],
        upload_stdout=False,
        upload_stderr=False,
        send_hardware_metrics=False,
    )
    with open(f"{board}.tmp", "w", encoding="utf-8") as names:
        json.dump({"experiment": exp.internal_id, "source": exp.source}, names)
    os.rename(f"{board}.tmp", f"{board}.json")
    sequence, began, pause = 0, time.monotonic(), Event()
    while not words[STOP]:
        goal = int((time.monotonic() - began) * per_s) if per_s else sequence + 10_000
        while sequence < goal and not words[STOP]:
            log(exp, source, sequence)
            sequence += 1
            words[RETURNED] = sequence  # after the call has returned
        if per_s:
            pause.wait(1 / BURSTS_PER_S)
    exp.stop()


def log(exp: hr.Experiment, source: int, sequence: int) -> None:
    """The call `sequence`."""
    call = payload.call_of(sequence)
    if call is Call.POINT:
        column = sequence & 1
        exp.log_metric(payload.POINTS[column], sequence, payload.number(column, source, sequence))
    elif call is Call.AUTO:
        exp.log_metric(payload.AUTO, payload.number(payload.AUTO_COLUMN, source, sequence))
    elif call is Call.ROW:
        columns = enumerate(payload.ROW, payload.ROW_COLUMN)
        exp.log_metrics({name: payload.number(n, source, sequence) for n, name in columns}, sequence)
    elif call is Call.NOWHERE:
        exp.log_metric(payload.POINTS[0], math.inf, payload.number(0, source, sequence))
    elif call is Call.TEXT:
        exp.log_text(payload.TEXTS, sequence, payload.text(source, sequence))
    else:
        exp.log_artifact(io.BytesIO(payload.artifact(source, sequence)), payload.artifact_name(source, sequence))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4]))
