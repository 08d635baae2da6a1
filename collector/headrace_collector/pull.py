"""A durable consumer of one partition of one stream, and the lasting pull that empties it.

nats-py's own `fetch` cannot bound bytes and can hang on a request that the server has forgotten, so the requests are made here:
one at a time, each bounded in messages and in bytes and with an end of its own. Messages are handed over as they come.

The durable's name carries the stream's creation time and the lease's epoch. An acknowledgement that was meant for a stream
since deleted, or by a holder since replaced, so finds no consumer. On a work queue a consumer remembers nothing but when to
deliver again: a new holder deletes its predecessor's, and what that held unacknowledged comes again at once.

For the same reason a holder makes its own anew whenever the broker may have come back from a crash. One that lost its newest
files brings back messages that were acknowledged, below the floor of the old consumer, which would never deliver them: they
would count against the stream's bytes for ever. To a new consumer they are messages like others; they lie below the watermark.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Final, NamedTuple

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, Header
from nats.js.errors import NotFoundError

from headrace.service.cancelling import stay_cancelled
from headrace_proto import subjects
from headrace_proto.limits import MIB

_LOG: Final = logging.getLogger(__name__)

ACK_WAIT_S: Final = 60.0
"""Until the broker delivers again; what waits longer for its commit says so at a third of this."""
ACK_PENDING_MAX: Final = 20_000
"""Unacknowledged in one partition: 1,000 sources, ten batches a second each, commits every ten seconds, 16 partitions."""
PULL_MESSAGES: Final = 256
IN_FLIGHT_BYTES: Final = 56 * MIB
"""All requests of one connection together: at 64 MiB unread a broker cuts a client off as slow."""
PULL_BYTES_MAX: Final = 4 * MIB
PARTITIONS_MAX: Final = 32
"""So that each of 2 x 32 requests may hold a whole frame and IN_FLIGHT_BYTES still stands."""
PULL_S: Final = 5.0
_SILENCE_S: Final = 1.0
"""After PULL_S: how much later the broker's word that a request has ended may come."""
_GRACE_S: Final = 0.2
"""Between a request that failed and the next."""
_NAME: Final = "headrace"

_ENDED: Final = frozenset({"404", "408"})  # no messages; the request's time is over
_CONFLICT: Final = "409"
_NOBODY: Final = "503"
_SILENCE: Final = "silence"
_HARMLESS: Final = ("batch completed", "exceeds maxbytes")  # 409s that end a request as it was meant to


class ConsumerGone(Exception):
    """The consumer, or its whole stream, is not there any more. What was received from it must not be acknowledged."""


class Queue(NamedTuple):
    """One partition of one stream."""

    stream: str
    prefix: str
    partition: int
    partitions: int

    @property
    def family(self) -> str:
        """What the names of all consumers of this partition begin with."""
        return f"{_NAME}-{self.partition}-of-{self.partitions}-"


def pull_bytes(partitions: int) -> int:
    """How much one request may bring: a collector may hold every partition, of two streams."""
    return min(PULL_BYTES_MAX, IN_FLIGHT_BYTES // (2 * partitions))


def _is_stale(name: str, queue: Queue) -> bool:
    """Whether a consumer overlaps with ours: an earlier holder's, or one of another division into partitions.

    Work queues refuse consumers that overlap. Divisions never meet: `LeaseBook.misfit` sees to it.
    """
    if not name.startswith(f"{_NAME}-"):
        return False
    division = name.removeprefix(f"{_NAME}-").split("-of-")[-1].split("-")[0]
    return name.startswith(queue.family) or division != str(queue.partitions)


async def make_consumer(js: JetStreamContext, queue: Queue, epoch: int, turn: int = 0) -> str:
    """Make the durable consumer of `queue` for the holder of `epoch`, the `turn`-th of that one, in its predecessors' stead."""
    created = (await js.stream_info(queue.stream)).created
    incarnation = int(created.timestamp() * 1_000_000) if created else 0
    for info in await js.consumers_info(queue.stream):
        if _is_stale(info.name, queue):
            await _delete_consumer(js, queue.stream, info.name)
    name = f"{queue.family}{incarnation:x}-{epoch}-{turn}"
    config = ConsumerConfig(
        name=name,
        durable_name=name,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT_S,
        max_ack_pending=ACK_PENDING_MAX,
        filter_subjects=subjects.partition_filters(queue.prefix, queue.partition, queue.partitions),
    )
    await js.add_consumer(queue.stream, config)
    return name


async def _delete_consumer(js: JetStreamContext, stream: str, name: str) -> None:
    try:
        await js.delete_consumer(stream, name)
    except NotFoundError:
        return


class Pull:
    """Empties one consumer, for as long as `run` runs and while `room` is set."""

    def __init__(
        self, client: Client, js: JetStreamContext, queue: Queue, consumer: str, on_message: Callable[[Msg], None]
    ) -> None:
        self._client = client
        self._js = js
        self._queue = queue
        self._consumer = consumer
        self._on_message = on_message
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{queue.stream}.{consumer}"
        self._bytes = pull_bytes(queue.partitions)
        self._inbox = client.new_inbox()
        self._request = 0
        self._left = 0
        self._newest = 0  # the highest sequence in the stream that was seen
        self._ended = asyncio.Event()
        self._fault = ""

    async def run(self, room: asyncio.Event) -> None:
        """Pull for ever. Raises `ConsumerGone`."""
        subscription = await self._client.subscribe(f"{self._inbox}.*", cb=self._on_answer)
        silent = 0
        try:
            while True:
                await room.wait()
                silent = 0 if await self._pull_once() else silent + 1
                if self._fault or silent >= 2:
                    await self._check()
                    stay_cancelled()
                    await asyncio.sleep(_GRACE_S)
        finally:
            if not self._client.is_closed:
                await subscription.unsubscribe()

    async def _pull_once(self) -> bool:
        """One request, to its end. False if the broker never said that it ended."""
        self._request += 1
        self._left = PULL_MESSAGES
        self._fault = ""
        self._ended.clear()
        request = {"batch": PULL_MESSAGES, "max_bytes": self._bytes, "expires": int(PULL_S * 1e9)}
        if not self._client.is_connected:  # a request that waits for the connection would outlive its own deadline
            await asyncio.sleep(_GRACE_S)
            return True
        await self._client.publish(self._next, json.dumps(request).encode(), f"{self._inbox}.{self._request}")
        try:
            async with asyncio.timeout(PULL_S + _SILENCE_S):
                await self._ended.wait()
        except TimeoutError:
            return self._left < PULL_MESSAGES
        return True

    async def _on_answer(self, message: Msg) -> None:
        status = message.headers.get(Header.STATUS) if message.headers else None
        if status is None or message.reply:
            self._left -= 1
            self._newest = max(self._newest, message.metadata.sequence.stream)
            self._on_message(message)
            if self._left == 0:
                self._ended.set()
        elif message.subject == f"{self._inbox}.{self._request}":  # not the end of an earlier request
            said = str((message.headers or {}).get(Header.DESCRIPTION, "")).lower()
            if status not in _ENDED and not (status == _CONFLICT and any(text in said for text in _HARMLESS)):
                self._fault = f"{status} {said}"
            self._ended.set()

    async def _check(self) -> None:
        """Find out what a fault means. Raises `ConsumerGone` for all that may mean a broker, or a stream, that came back."""
        why = f"{self._consumer} on {self._queue.stream}: {self._fault or _SILENCE}"
        _LOG.debug("a pull failed", extra={"why": why})
        if not self._fault or self._fault.startswith(_NOBODY):
            raise ConsumerGone(why)
        try:
            await self._js.consumer_info(self._queue.stream, self._consumer)
            state = (await self._js.stream_info(self._queue.stream)).state
        except NotFoundError as error:
            raise ConsumerGone(why) from error
        if state.last_seq < self._newest:
            raise ConsumerGone(f"{why}; the stream ends at {state.last_seq}, {self._newest} was seen")
