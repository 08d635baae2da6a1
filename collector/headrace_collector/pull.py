"""The lasting pull that empties a consumer.

nats-py's own `fetch` cannot bound bytes and can hang on a request that the server has forgotten, so the requests are made here:
one at a time, each bounded in messages and in bytes and with an end of its own. While nothing comes, the server says that it
still knows of the request; one that falls silent is asked again. Messages are handed over as they come.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable
from typing import Final

from headrace.service.cancelling import stay_cancelled
from headrace.service.nats_py import Client, Header, JetStreamContext, Msg
from headrace.service.pausing import comes_within
from headrace_collector.consumer import Consumer, ConsumerGone, verify
from headrace_collector.keeper import TRANSIENT
from headrace_proto.limits import MIB

_LOG: Final = logging.getLogger(__name__)

PULL_MESSAGES: Final = 256
IN_FLIGHT_BYTES: Final = 56 * MIB
"""All requests of one connection together: at 64 MiB unread a broker cuts a client off as slow."""
PULL_BYTES_MAX: Final = 4 * MIB
PARTITIONS_MAX: Final = 32
"""So that each of 2 x 32 requests may hold a whole frame and IN_FLIGHT_BYTES still stands."""
PULL_S: Final = 5.0
PULSE_S: Final = 1.0
"""How often the server says that it knows of a request. A leader that died says nothing; the next one knows of no request."""
SILENCE_S: Final = 2.5
CHECK_S: Final = 1.0
"""For a look at a consumer in doubt. Without a leader there is no answer, and pulling again is the better question."""
_GRACE_S: Final = 0.2
"""Between a request that failed and the next."""

_PULSE: Final = "100"
_ENDED: Final = frozenset({"404", "408"})  # no messages; the request's time is over
_CONFLICT: Final = "409"
_HARMLESS: Final = ("batch completed", "exceeds maxbytes")  # 409s that end a request as it was meant to
_NOBODY: Final = "503"


def pull_bytes(partitions: int) -> int:
    """How much one request may bring: a collector may hold every partition, of two streams."""
    return min(PULL_BYTES_MAX, IN_FLIGHT_BYTES // (2 * partitions))


class Pull:
    """Empties one consumer, for as long as `run` runs and while `room` is set."""

    def __init__(
        self, client: Client, js: JetStreamContext, consumer: Consumer, on_message: Callable[[Msg], None]
    ) -> None:
        self.newest = 0
        """The highest sequence of the stream that was seen."""
        self._client = client
        self._js = js
        self._consumer = consumer
        self._on_message = on_message
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{consumer.queue.stream}.{consumer.name}"
        self._bytes = pull_bytes(consumer.queue.partitions)
        self._inbox = client.new_inbox()
        self._request = 0
        self._left = 0
        self._ended = False
        self._heard = asyncio.Event()
        self._fault = ""

    async def run(self, room: asyncio.Event) -> None:
        """Pull for ever. Raises `ConsumerGone`."""
        subscription = await self._client.subscribe(f"{self._inbox}.*", cb=self._on_answer)
        silent = 0
        check: asyncio.Task[None] | None = None
        try:
            while True:
                await room.wait()
                silent = 0 if await self._pull_once() else silent + 1
                if check is not None and check.done():
                    check.result()
                    check = None
                if self._fault or silent >= 2:
                    self._doubt()
                    check = check or asyncio.create_task(self._check())
                    stay_cancelled()
                    await asyncio.sleep(_GRACE_S)
        finally:
            if check is not None and not check.cancel() and not check.cancelled():
                check.exception()  # it was found out, and nobody asks any more
            if not self._client.is_closed:
                await subscription.unsubscribe()

    async def _pull_once(self) -> bool:
        """One request, to its end. False if the broker never said that it ended."""
        self._request += 1
        self._left = PULL_MESSAGES
        self._fault = ""
        self._ended = False
        request = {
            "batch": PULL_MESSAGES,
            "max_bytes": self._bytes,
            "expires": int(PULL_S * 1e9),
            "idle_heartbeat": int(PULSE_S * 1e9),
        }
        if not self._client.is_connected:  # a request that waits for the connection would outlive its own deadline
            await asyncio.sleep(_GRACE_S)
            return True
        await self._client.publish(self._next, json.dumps(request).encode(), f"{self._inbox}.{self._request}")
        while not self._ended:
            self._heard.clear()
            if not await comes_within(self._heard, SILENCE_S):
                return self._left < PULL_MESSAGES
        return True

    async def _on_answer(self, message: Msg) -> None:
        status = message.headers.get(Header.STATUS) if message.headers else None
        if status is None or message.reply:
            self._left -= 1
            self.newest = max(self.newest, message.metadata.sequence.stream)
            self._on_message(message)
            self._ended |= self._left == 0
        elif message.subject != f"{self._inbox}.{self._request}":
            return  # the end of an earlier request
        elif status != _PULSE:
            said = str((message.headers or {}).get(Header.DESCRIPTION, "")).lower()
            if status not in _ENDED and not (status == _CONFLICT and any(text in said for text in _HARMLESS)):
                self._fault = f"{status} {said}"
            self._ended = True
        self._heard.set()

    def _doubt(self) -> None:
        """Raises `ConsumerGone` for all that may mean a broker, or a stream, that came back."""
        _LOG.debug("a pull failed", extra={"consumer": self._consumer.name, "fault": self._fault or "silence"})
        if not self._consumer.replicated and (not self._fault or self._fault.startswith(_NOBODY)):
            raise ConsumerGone(f"{self._consumer.name}: {self._fault or 'silence'}")

    async def _check(self) -> None:
        """Find out what a fault means, while pulls go on: a new leader answers those first. Raises `ConsumerGone`."""
        with contextlib.suppress(*TRANSIENT):  # no leader yet
            async with asyncio.timeout(CHECK_S):
                await verify(self._js, self._consumer, self.newest)
