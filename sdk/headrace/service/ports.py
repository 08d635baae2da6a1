"""Free ports of the loopback interface."""

from __future__ import annotations

import errno
import random
import socket
from contextlib import suppress
from typing import Final

LOOPBACK: Final = "127.0.0.1"
_LOW: Final = 20_000
_HIGH: Final = 32_000
"""Below the range from which Linux takes ports for outgoing connections (32768 on): a server that was killed can have its
port back, and no reconnecting client can meet itself there."""
_TRIES: Final = 200


def free_port() -> int:
    """A port that nobody listens on, for a server that is about to start. Raises `OSError` when there is none."""
    for _ in range(_TRIES):
        port = random.randrange(_LOW, _HIGH)  # noqa: S311 - any free one will do
        if not port_taken(port):
            return port
    raise OSError(errno.EADDRINUSE, f"none of {_TRIES} ports tried from {_LOW} to {_HIGH} is free: name one yourself")


def port_taken(port: int) -> bool:
    """Whether a server could not listen on `port`."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):
            probe.bind((LOOPBACK, port))
            probe.listen()
            return False
    return True
