"""What the kernel says of a process that a test has no handle on."""

from __future__ import annotations

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
