"""Which `headrace up` serves a home: a lock says whether one does, `run/up.json` says where its parts are.

The lock frees itself when its holder dies in any way, so a record that outlived its process misleads nobody.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import Final, NamedTuple

from headrace_proto.home import FILE_MODE, FOLDER_MODE, Home
from headrace_proto.journal import lock

PARTS: Final = ("nats-server", "agent", "collector")


class Running(NamedTuple):
    """What an `up` tells the other commands."""

    pid: int
    started_at: float
    nats: str
    store: str
    agent_port: int
    collector_port: int


def run_folder(home: Home) -> str:
    """The folder of the lock, the record and the process ids; made if need be."""
    folder = os.path.dirname(home.pid_file("up"))
    os.makedirs(folder, mode=FOLDER_MODE, exist_ok=True)
    return folder


def lock_file(home: Home) -> str:
    """Locked while an `up` serves the home."""
    return os.path.join(os.path.dirname(home.pid_file("up")), "up.lock")


def record_file(home: Home) -> str:
    """The record of the `up` that serves the home; there once all its parts answer."""
    return os.path.join(os.path.dirname(home.pid_file("up")), "up.json")


def log_file(home: Home, part: str) -> str:
    """Where a part's output goes."""
    folder = os.path.join(home.root, "log")
    os.makedirs(folder, mode=FOLDER_MODE, exist_ok=True)
    return os.path.join(folder, f"{part}.log")


def serving_pid(home: Home) -> int | None:
    """The process id of the `up` that serves the home (or is starting), if any. Not to be asked by that process itself."""
    try:
        return lock.holder(lock_file(home))
    except OSError:  # no folder, or not ours: whoever needs the home says so
        return None


def running(home: Home) -> Running | None:
    """The `up` that serves the home, once all its parts have answered."""
    pid = serving_pid(home)
    if pid is None:
        return None
    with suppress(OSError, ValueError, TypeError):
        with open(record_file(home), encoding="utf-8") as file:
            record = Running(**json.load(file))
        if pid in (0, record.pid):  # 0: in another pid namespace
            return record
    return None


def write_record(home: Home, record: Running) -> None:
    """Publish the record, whole or not at all."""
    path = record_file(home)
    write_file(path, json.dumps(record._asdict(), indent=2))


def write_file(path: str, text: str) -> None:
    """Replace a small file of ours atomically."""
    temporary = f"{path}.{os.getpid()}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text + "\n")
    os.replace(temporary, path)
