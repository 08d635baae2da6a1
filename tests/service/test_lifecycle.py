"""How a part is asked to stop, and how it logs: seen from outside, in a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

SERVICE = """
import asyncio, logging
from headrace.service.lifecycle import run_service
from headrace.service.logs import configure_logging

configure_logging("info", json={json})

async def main(stop):
    print("up", flush=True)
    await stop.wait()
    print("draining", flush=True)
    if {hang}:
        await asyncio.Event().wait()
    logging.getLogger("part").info("drained", extra={{"bytes": 5}})

run_service(main)
"""


def start(*, hang: bool = False, json: bool = False) -> subprocess.Popen[str]:
    code = SERVICE.format(hang=hang, json=json)
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout
    assert child.stdout.readline() == "up\n"
    return child


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_asks_for_a_drain(number: signal.Signals) -> None:
    """SIGINT and SIGTERM let the part drain and end with code 0."""
    child = start()
    child.send_signal(number)
    out, err = child.communicate(timeout=30)
    assert (out, child.returncode) == ("draining\n", 0)
    assert "info part: drained bytes=5" in err


def test_second_signal_ends_a_drain_that_hangs() -> None:
    """Whoever asks twice is not kept waiting."""
    child = start(hang=True)
    child.send_signal(signal.SIGTERM)
    assert child.stdout
    assert child.stdout.readline() == "draining\n"
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=30)
    assert (child.returncode, err) == (0, "")


def test_json_logs_are_one_object_a_line() -> None:
    """With JSON logs each record is one line that a machine reads, its extra facts as keys."""
    child = start(json=True)
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=30)
    record = json.loads(err)
    assert (record["level"], record["logger"], record["message"], record["bytes"]) == ("info", "part", "drained", 5)


def test_error_of_the_part_comes_through() -> None:
    """An error of the part is the caller's to report, not swallowed."""
    from headrace.service.lifecycle import run_service

    async def broken(_: object) -> None:
        raise ConnectionError("no broker")

    with pytest.raises(ConnectionError, match="no broker"):
        run_service(broken)
