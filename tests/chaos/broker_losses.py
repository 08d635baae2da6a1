"""How a broker loses what it had acknowledged: done to its files while it is down, as a power loss or a bad disk would."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from headrace.service.nats_server import NatsServer
from headrace_proto import subjects

STREAMS = (subjects.EVENTS_STREAM, subjects.FILES_STREAM, subjects.MARKS_STREAM, subjects.LEASES_STREAM)


def lose_newest(server: NatsServer, dice: random.Random) -> int:
    """Cut 1 to 50 % off the newest block of some streams, events always among them, and delete their index. Bytes that are gone."""
    assert server.pid is None, "the broker must be down"
    gone = 0
    for stream in STREAMS:
        if stream == subjects.EVENTS_STREAM or dice.random() < 0.5:
            gone += _cut_newest_block(_folder(server, stream), dice.uniform(0.01, 0.5))
    return gone


def lose_all(server: NatsServer) -> int:
    """Delete the broker's store. Bytes that are gone."""
    assert server.pid is None, "the broker must be down"
    store = server.folder / "jetstream"
    gone = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    shutil.rmtree(store, ignore_errors=True)
    return gone


def _folder(server: NatsServer, stream: str) -> Path:
    return server.folder / "jetstream" / "jetstream" / "$G" / "streams" / stream / "msgs"


def _cut_newest_block(folder: Path, share: float) -> int:
    blocks = sorted(folder.glob("*.blk"), key=lambda path: int(path.stem)) if folder.exists() else []
    (folder / "index.db").unlink(missing_ok=True)
    if not blocks:
        return 0
    size = blocks[-1].stat().st_size
    keep = int(size * (1 - share))
    with blocks[-1].open("r+b") as block:
        block.truncate(keep)
    return size - keep
