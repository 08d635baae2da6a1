"""The process around a measured one: it waits until the whole tree has gone, and says what that took.

    python -m tests.benchmarks.peers.warden RESULT GRACE_S COMMAND...

Peers start helpers that outlive them and are nobody's children then. This process is their subreaper, so each of them is waited
for here and its CPU time is known to the end (`wait4`; the manual of `prctl`, PR_SET_CHILD_SUBREAPER). What still lives GRACE_S
after the program's end is killed; everything is, when this process is told to stop or its parent is gone.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import Final

LOOK_S: Final = 0.005
LOOKS_A_SAMPLE: Final = 10
"""Resident memory is summed every so many looks: often enough for a peak, rarely enough to disturb nobody."""
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def descendants(pid: int) -> list[int]:
    """Every process below this one, as the kernel lists children of threads."""
    found: list[int] = []
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
                for child in map(int, file.read().split()):
                    found += [child, *descendants(child)]
    return found


def resident_bytes(pids: list[int]) -> int:
    """The sum of their resident sets; pages that they share count for each."""
    pages = 0
    for pid in pids:
        with suppress(OSError), open(f"/proc/{pid}/statm", encoding="ascii") as file:
            pages += int(file.read().split()[1])
    return pages * _PAGE


def watch(command: list[str], grace_s: float) -> dict[str, float]:
    """Run it to the end of its last descendant: exit code, CPU seconds, peak bytes, and when each was gone."""
    control = ctypes.CDLL(None, use_errno=True).prctl
    if control(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) or control(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    told_to_stop: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda told, _: told_to_stop.append(told))
    begun_ns = time.monotonic_ns()
    main = subprocess.Popen(command, stdin=subprocess.DEVNULL).pid
    code, cpu_s, peak, looks = -1, 0.0, 0, 0
    ended_ns = gone_ns = 0
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            gone_ns = gone_ns or time.monotonic_ns()
            break
        if pid:
            cpu_s += usage.ru_utime + usage.ru_stime
            peak, gone_ns = max(peak, usage.ru_maxrss * 1024), time.monotonic_ns()
            if pid == main:
                code, ended_ns = os.waitstatus_to_exitcode(status), gone_ns
            continue
        if looks % LOOKS_A_SAMPLE == 0:
            peak = max(peak, resident_bytes(descendants(os.getpid())))
        looks += 1
        if told_to_stop or (ended_ns and time.monotonic_ns() - ended_ns > grace_s * 1e9):
            for left in descendants(os.getpid()):
                with suppress(ProcessLookupError):
                    os.kill(left, signal.SIGKILL)
        time.sleep(LOOK_S)
    return {
        "code": code,
        "cpu_s": cpu_s,
        "rss_bytes": peak,
        "begun_ns": begun_ns,
        "ended_ns": ended_ns,
        "gone_ns": gone_ns,
    }


if __name__ == "__main__":
    figures = watch(sys.argv[3:], float(sys.argv[2]))
    with open(sys.argv[1], "w", encoding="utf-8") as result:
        json.dump(figures, result)
