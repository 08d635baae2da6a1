"""A partition: two pulls, and the workers of the experiments that they bring.

Life cycle: `run` serves until it is cancelled, which is safe at any time: what was not acknowledged comes again, to whoever
holds the partition next. `drain` ends it in good order.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Final

from headrace.service.cancelling import stay_cancelled
from headrace.service.logs import told
from headrace.service.nats_py import Client, JetStreamContext, Msg
from headrace_collector.address import Address
from headrace_collector.consumer import ACK_WAIT_S, Consumer, ConsumerGone, Queue, make_consumer, verify
from headrace_collector.intake import FRAME_OVERHEAD, Arrival
from headrace_collector.keeper import TRANSIENT
from headrace_collector.pull import Pull
from headrace_collector.quarantine import Quarantine
from headrace_collector.shared import Shared
from headrace_collector.worker import Worker
from headrace_proto import names, subjects
from headrace_proto.errors import Corrupt, FormatUnknown, InvalidName
from headrace_proto.frame import Frame, FrameKind, decode
from headrace_proto.messages import GapsClosed, Rewind
from headrace_proto.store import layout

_LOG: Final = logging.getLogger(__name__)

IDLE_S: Final = 60.0
"""An experiment that is silent this long is let go of; its next frame loads it again, which costs two requests."""
WORKERS_KEPT: Final = 500
CROWDED_IDLE_S: Final = 5.0
"""Where there are more experiments than that: each keeps its document in memory, and many short runs must not add up."""
TICK_S: Final = 0.5
AGAIN_S: Final = 0.5
RETURN_S: Final = 0.05
_LOOK_S: Final = 0.05

WorkerKey = tuple[str, str]
"""(project, experiment)"""


class Partition:
    """Serves one partition while its lease is held. `epoch` is the lease's."""

    def __init__(
        self,
        client: Client,
        js: JetStreamContext,
        shared: Shared,
        quarantine: Quarantine,
        *,
        number: int,
        partitions: int,
        epoch: int,
    ) -> None:
        self._client: Final = client
        self._js: Final = js
        self._shared: Final = shared
        self._quarantine: Final = quarantine
        self._queues: Final = [
            Queue(subjects.EVENTS_STREAM, subjects.EVENTS_PREFIX, number, partitions),
            Queue(subjects.FILES_STREAM, subjects.FILES_PREFIX, number, partitions),
        ]
        self._epoch: Final = epoch
        self._turn = 0
        self.sure: Final = asyncio.Event()
        """Cleared while the lease may be somebody else's: until it is known, no consumer is made in another's stead."""
        self.sure.set()
        self._lost = asyncio.Event()
        self._consumers: list[Consumer] = []
        self._workers: dict[WorkerKey, tuple[Worker, asyncio.Task[None]]] = {}
        self._pulls: list[asyncio.Task[None]] = []
        self._tasks = asyncio.TaskGroup()

    async def run(self) -> None:
        """Serve until cancelled. Whatever goes wrong, it begins anew: what was held and not acknowledged comes again."""
        while True:
            try:
                await self._serve()
            except* ConsumerGone as gone:
                _LOG.warning("a consumer is gone; what was held is dropped", extra={"why": str(gone.exceptions[0])})
            except* TRANSIENT as error:
                _LOG.warning("the broker is out of reach", extra={"error": told(error.exceptions[0])})
            except* Exception:
                _LOG.exception("a partition failed; it begins anew")
            stay_cancelled()
            await asyncio.sleep(AGAIN_S)

    def lose(self) -> None:
        """The connection was lost. What a broker without replicas delivered may not be answered any more: it is let go of."""
        for consumer in self._consumers:
            if not consumer.replicated:
                self._shared.answers.end(consumer.name)
        self._lost.set()

    async def _serve(self) -> None:
        while not self._client.is_connected:  # noqa: ASYNC110 - what is asked for now would be kept, and made too late
            await asyncio.sleep(RETURN_S)
        await self.sure.wait()
        self._lost.clear()
        self._turn += 1
        self._consumers = [await make_consumer(self._js, queue, self._epoch, self._turn) for queue in self._queues]
        stay_cancelled()
        try:
            async with asyncio.TaskGroup() as self._tasks:
                pulls = [Pull(self._client, self._js, consumer, self._on_message) for consumer in self._consumers]
                for consumer, pull in zip(self._consumers, pulls, strict=True):
                    self._shared.answers.begin(consumer.name)
                    self._pulls.append(self._tasks.create_task(pull.run(self._shared.room)))
                self._tasks.create_task(self._watch(pulls))
                await self._tick()  # not as a task: a group takes its own cancellation back only from a body at work
        finally:
            for consumer in self._consumers:
                self._shared.answers.end(consumer.name)
            self._consumers = []
            self._shared.pacing.live -= len(self._workers)
            self._workers.clear()
            self._pulls.clear()

    async def _watch(self, pulls: list[Pull]) -> None:
        """After a lost connection: find out whether the broker is what it was. Raises `ConsumerGone` when it may not be."""
        while True:
            await self._lost.wait()
            if not all(consumer.replicated for consumer in self._consumers):
                raise ConsumerGone("the connection was lost, and the broker may have lost data")
            try:
                for consumer, pull in zip(self._consumers, pulls, strict=True):
                    await verify(self._js, consumer, pull.newest)
                self._lost.clear()
            except TRANSIENT:  # not back, or without a leader
                stay_cancelled()
                await asyncio.sleep(AGAIN_S)

    async def drain(self, timeout_s: float) -> None:
        """Pull no more, and commit what is here. What cannot be in time comes again."""
        for pull in self._pulls:
            pull.cancel()
        for worker, _ in self._workers.values():
            worker.drain()
        if self._workers:
            await asyncio.wait([task for _, task in self._workers.values()], timeout=timeout_s)

    def lag_s(self, now: float) -> float:
        """How long the oldest frame has waited for its commit."""
        return max((now - worker.waiting_since for worker, _ in self._workers.values()), default=0.0)

    async def close_gaps(self, experiment: str, source: str, limit_s: float) -> GapsClosed:
        """Give up what is missing of an experiment now, and wait until a commit says so, at most `limit_s`."""
        workers = [worker for (_, name), (worker, _) in self._workers.items() if name == experiment]
        waiting = sum(worker.waiting_above for worker in workers)
        closed = [(worker, worker.close_gaps(0.0, source)) for worker in workers]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while not all(worker.has_stored(gaps) for worker, gaps in closed):  # noqa: ASYNC110 - rare, and bounded
                    await asyncio.sleep(_LOOK_S)
        stored = all(worker.has_stored(gaps) for worker, gaps in closed)
        gaps = [list(gap) for _, of_one in closed for gap in of_one]
        return GapsClosed(self._shared.name, experiment, gaps, stored, waiting)

    # -- Messages -------------------------------------------------------------------------------------------------------

    def _on_message(self, message: Msg) -> None:
        address = Address.of(message.subject)
        if address is None:
            self._set_aside(message, None, "its subject names no source")
            return
        try:
            frame = _frame_of(message, address)
        except (Corrupt, FormatUnknown, InvalidName) as error:
            self._set_aside(message, address, str(error))
            return
        at_ns = int(message.metadata.timestamp.timestamp() * 1e9)
        arrival = Arrival(
            frame, message.reply, address.site, len(message.data) + FRAME_OVERHEAD, at_ns, time.monotonic()
        )
        self._worker(frame.project, frame.experiment).offer(arrival)
        self._shared.weigh()

    def _set_aside(self, message: Msg, address: Address | None, reason: str) -> None:
        """Bytes that say nothing, not even whose they were: no watermark moves. The journal has the good ones still."""
        self._quarantine.put(message, address.token if address else 0, reason, lambda: self._ask_again(address))

    def _ask_again(self, address: Address | None) -> None:
        if address is None:
            return
        workers = [worker for (_, name), (worker, _) in self._workers.items() if name == address.experiment]
        for worker in workers:
            worker.ask_again(address.site, address.source)
        if not workers:  # then its agent knows better than we where to begin
            self._shared.metrics.rewinds.inc()
            self._shared.answers.rewind(address.site, Rewind(address.source, 0))

    # -- Workers --------------------------------------------------------------------------------------------------------

    def _worker(self, project: str, experiment: str) -> Worker:
        key = project, experiment
        if key not in self._workers:
            worker = Worker(self._shared, project, experiment)
            self._workers[key] = worker, self._tasks.create_task(worker.run(), name=f"experiment {experiment}")
            self._shared.pacing.live += 1
        return self._workers[key][0]

    async def _tick(self) -> None:
        """Look after the workers: ask for what is missing, keep the stream patient, let idle ones go."""
        touched_at = time.monotonic()
        while True:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            touching = now - touched_at >= ACK_WAIT_S / 3
            touched_at = now if touching else touched_at
            patience_s = IDLE_S if self._shared.pacing.live <= WORKERS_KEPT else CROWDED_IDLE_S
            for key, (worker, _) in list(self._workers.items()):
                worker.tick(now)
                if touching:
                    worker.touch()
                if worker.idle and now - worker.active_at >= patience_s:
                    self._dismiss(key)

    def _dismiss(self, key: WorkerKey) -> None:
        worker, _ = self._workers.pop(key)
        self._shared.pacing.live -= 1
        worker.drain()


def _frame_of(message: Msg, address: Address) -> Frame:
    """The frame in a message. Raises `Corrupt`, `FormatUnknown`, `InvalidName`."""
    frame = decode(message.data)
    if (frame.experiment, frame.source) != (address.experiment, address.source):
        raise Corrupt(f"the frame is of {frame.experiment}/{frame.source}, and was sent as another's")
    names.project_name(frame.project)
    if frame.kind is FrameKind.CHUNK:
        layout.file_name(frame.file)
    return frame
