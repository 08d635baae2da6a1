"""Quarantine: bytes that this release cannot take, kept beside what is known of them for a person or a newer release."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from headrace.service.nats_py import Msg
from headrace_collector.shared import Shared
from headrace_proto.limits import KIB, MIB
from headrace_proto.store import layout
from headrace_proto.store.backend import Store

_LOG: Final = logging.getLogger(__name__)


ROOM_BYTES: Final = 256 * MIB
ROOM_BYTES_PER_S: Final = 1024.0
"""What one process may put aside: so much at first, then about 84 MiB a day. Who may publish could fill the store otherwise."""
_LEAST_BYTES: Final = 4 * KIB
"""Of any two files."""


class Room:
    """Room for what is put aside, which comes back slowly. For any thread."""

    def __init__(self, bytes_max: int = ROOM_BYTES, per_s: float = ROOM_BYTES_PER_S) -> None:
        self._left = float(bytes_max)
        self._bytes_max = bytes_max
        self._per_s = per_s
        self._at: float | None = None
        self._lock = threading.Lock()

    def take(self, size: int, now: float) -> bool:
        """Whether there is room for `size` bytes, which is then taken. `now` is any monotonic clock, in seconds."""
        with self._lock:
            passed = 0.0 if self._at is None else now - self._at
            self._at = now
            self._left = min(self._bytes_max, self._left + passed * self._per_s)
            taken = size <= self._left
            self._left -= size if taken else 0
            return taken

    def give_back(self, size: int) -> None:
        """What room was taken for was not put aside: a store that is out of order for hours must not use it up."""
        with self._lock:
            self._left = min(self._bytes_max, self._left + size)


_room: Final = Room()


def put_away(store: Store, token: int, data: bytes, facts: Mapping[str, Any], room: Room = _room) -> None:
    """Write the bytes, and `facts` beside them. Without room both are only told to the log. Blocks. Raises `OSError`."""
    size = len(data) + _LEAST_BYTES
    if not room.take(size, time.monotonic()):
        _LOG.error("no room in the quarantine: bytes are not kept", extra={"bytes": len(data), **facts})
        return
    time_ns, nonce = time.time_ns(), os.urandom(8).hex()
    text = json.dumps({"format": layout.STORE_FORMAT, "bytes": len(data), **facts}, indent=2, default=str)
    try:
        # the facts first: bytes are never there without them
        store.put(layout.quarantine_file(token, time_ns, nonce, "json"), text.encode())
        store.put(layout.quarantine_file(token, time_ns, nonce, "bin"), data)
    except BaseException:
        room.give_back(size)
        raise


class Quarantine:
    """Frames that did not decode, on their way to the store. None is acknowledged before it is there."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._waiting: asyncio.Queue[tuple[Msg, int, str, Callable[[], None]]] = asyncio.Queue()

    def put(self, message: Msg, token: int, reason: str, then: Callable[[], None]) -> None:
        """Take a message over; `then` is called once it is put away and acknowledged."""
        _LOG.error("a frame goes to quarantine", extra={"subject": message.subject, "reason": reason})
        self._shared.metrics.quarantined.inc()
        self._shared.memory.add(ready=len(message.data))
        self._waiting.put_nowait((message, token, reason, then))

    async def run(self) -> None:
        """Put away for ever."""
        while True:
            message, token, reason, then = await self._waiting.get()
            facts = {"subject": message.subject, "headers": message.headers or {}, "reason": reason}
            await self._shared.persist(put_away, self._shared.store, token, message.data, facts)
            self._shared.memory.add(ready=-len(message.data))
            self._shared.weigh()
            self._shared.answers.ack(message.reply)
            then()
