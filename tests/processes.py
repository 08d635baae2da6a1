"""Threads and processes of tests: work that is done in them, and what the kernel says of one that a test has no handle on."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path


def process_state(pid: int) -> str:
    """The letter of proc(5) for the process's state; "" when there is no such process."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return line.rpartition(")")[2].split()[0]


def is_alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    return process_state(pid) not in ("", "Z", "X")


def in_threads(count: int, work: Callable[[int], object]) -> None:
    """Run `work` in so many threads at once, each with a number of its own, to their ends."""
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def in_forked_child(work: Callable[[], None]) -> int:
    """The exit code of a forked child that does `work` and leaves without Python's ceremonies."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
