"""A broker that loses data: its files cut or deleted while it is down, as a machine without power leaves them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from headrace.service.nats_server import NatsServer


def _jetstream(server: NatsServer) -> Path:
    return server.folder / "jetstream"


def newest_block(server: NatsServer, stream: str) -> Path:
    """The file that a stream writes to."""
    blocks = _jetstream(server).glob(f"**/streams/{stream}/msgs/*.blk")
    return max(blocks, key=lambda path: int(path.stem))


def roll_back(server: NatsServer, stream: str, kept: float) -> None:
    """Cut the newest block to `kept` of its bytes and drop the index, as if they had never been synced.

    Messages at the end are gone, and so is the news of those that were acknowledged last: they are there again. The server must
    not run.
    """
    assert server.pid is None
    block = newest_block(server, stream)
    os.truncate(block, int(block.stat().st_size * kept))
    for index in block.parent.glob("index.db"):
        index.unlink()


def wipe(server: NatsServer) -> None:
    """Delete everything that the server, which must not run, has stored."""
    assert server.pid is None
    shutil.rmtree(_jetstream(server))
