"""A durable consumer of one partition of one stream.

The durable's name carries the stream's creation time and the lease's epoch. An acknowledgement that was meant for a stream
since deleted, or by a holder since replaced, so finds no consumer. On a work queue a consumer remembers nothing but when to
deliver again: a new holder deletes its predecessor's, and what that held unacknowledged comes again at once.

For the same reason a holder makes its own anew whenever the broker may have come back from a crash. One that lost its newest
files brings back messages that were acknowledged, below the floor of the old consumer, which would never deliver them: they
would count against the stream's bytes for ever. To a new consumer they are messages like others; they lie below the watermark.

A replicated stream keeps its word through the death of any one server, and so does its consumer: that is only made anew when the
stream is found to be another one, or to end before what was seen of it.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Final, NamedTuple

from headrace.service.nats_py import AckPolicy, ConsumerConfig, JetStreamContext, NotFoundError
from headrace_proto import subjects

ACK_WAIT_S: Final = 60.0
"""Until the broker delivers again; what waits longer for its commit says so at a third of this."""
ACK_PENDING_MAX: Final = 20_000
"""Unacknowledged in one partition: 1,000 sources, ten batches a second each, commits every ten seconds, 16 partitions."""
_NAME: Final = "headrace"


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


class Consumer(NamedTuple):
    """A consumer that was made, and what was known of its stream then."""

    queue: Queue
    name: str
    created: datetime | None
    replicas: int

    @property
    def replicated(self) -> bool:
        """Whether what the stream has taken outlives the server that leads it."""
        return self.replicas > 1


def _is_stale(name: str, queue: Queue) -> bool:
    """Whether a consumer overlaps with ours: an earlier holder's, or one of another division into partitions.

    Work queues refuse consumers that overlap. Divisions never meet: `LeaseBook.misfit` sees to it.
    """
    if not name.startswith(f"{_NAME}-"):
        return False
    division = name.removeprefix(f"{_NAME}-").split("-of-")[-1].split("-")[0]
    return name.startswith(queue.family) or division != str(queue.partitions)


async def make_consumer(js: JetStreamContext, queue: Queue, epoch: int, turn: int = 0) -> Consumer:
    """Make the durable consumer of `queue` for the holder of `epoch`, the `turn`-th of that one, in its predecessors' stead."""
    info = await js.stream_info(queue.stream)
    incarnation = int(info.created.timestamp() * 1_000_000) if info.created else 0
    for name in await _names(js, queue.stream):
        if _is_stale(name, queue):
            await _delete_consumer(js, queue.stream, name)
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
    return Consumer(queue, name, info.created, info.config.num_replicas or 1)


async def _names(js: JetStreamContext, stream: str) -> list[str]:
    """All consumers' names. nats-py only lists their states, and of a cluster's those alone whose leaders answer."""
    request = f"{js._prefix}.CONSUMER.NAMES.{stream}"  # noqa: SLF001 - nats-py has no such request
    answer = await js._api_request(request, json.dumps({"offset": 0}).encode(), timeout=js._timeout)  # noqa: SLF001 - as above
    return [str(name) for name in answer["consumers"] or ()]


async def _delete_consumer(js: JetStreamContext, stream: str, name: str) -> None:
    try:
        await js.delete_consumer(stream, name)
    except NotFoundError:
        return


async def verify(js: JetStreamContext, consumer: Consumer, newest: int) -> None:
    """Look whether a consumer is there, and its stream the one it was made on, with all of what was seen of it.

    `newest` is the highest sequence seen. Raises `ConsumerGone`, and what a broker makes of a request that it cannot answer.
    """
    stream = consumer.queue.stream
    try:
        await js.consumer_info(stream, consumer.name)
        info = await js.stream_info(stream)
    except NotFoundError as error:
        raise ConsumerGone(f"{consumer.name} on {stream} is not there") from error
    if info.created != consumer.created or info.state.last_seq < newest:
        raise ConsumerGone(f"{stream} is another one: it ends at {info.state.last_seq}, {newest} was seen")
