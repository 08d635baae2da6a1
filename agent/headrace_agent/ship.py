"""Shipping: gives lanes their turns, keeps frames in flight, and reacts to what the stream says.

Stop order, spoken aloud: who stops offering lanes stops first; then `drained` tells when every offered frame has its answer; then
the task that runs `run` is cancelled; then the uplink. Cancelling at any point loses nothing but time: what was not
acknowledged is cut again from the journal.
"""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from typing import Final

from headrace_agent.backoff import Backoff
from headrace_agent.batch import raw_bytes_max
from headrace_agent.budget import Budget
from headrace_agent.lane import Lane
from headrace_agent.leash import Leash
from headrace_agent.metrics import Metrics
from headrace_agent.source import Due
from headrace_agent.turns import Turns
from headrace_agent.uplink import NotConnected, NotPermitted, Receipt, TooLarge, Uplink, UplinkError
from headrace_agent.window import Flight, State
from headrace_proto.limits import KIB

OUTAGE_GROWTH: Final = 1.15
"""A sixth of an outage at most is slept away after its end: an election takes 4 to 9 s, and twice the pause each time lost 2 s."""
TOGETHER_BYTES: Final = 64 * KIB
"""Small frames of many sources that are due together leave in one write: to wake the broker, and be woken, costs more than they."""
UNTAKEN: Final = KIB
"""A turn without a frame counts as this much, for it takes time as well."""
log = logging.getLogger(__name__)


class Shipper:
    """Ships lanes to one stream. One task runs `run`; everything else is called from the same loop."""

    def __init__(self, stream: str, uplink: Uplink, budget: Budget, metrics: Metrics) -> None:
        self.stream: Final = stream
        self.lanes: set[Lane] = set()
        self.full = False  # the last answer was a push back
        self.leash: Final = Leash()
        self._uplink = uplink
        self._budget = budget
        self._metrics = metrics
        self._frames = metrics.frames.labels(stream)
        self._frame_bytes = metrics.frame_bytes.labels(stream)
        self._raw_bytes = metrics.raw_bytes.labels(stream)
        self._turns: Turns[Lane] = Turns()
        self._without_room: set[Lane] = set()
        self._wake = asyncio.Event()
        self._backoff = Backoff(growth=OUTAGE_GROWTH)
        self._patience = Backoff(1.0, 60.0)  # with who does not let us publish: rights do not come by asking
        self._resume_s = 0.0
        self._sequence = 0
        self._said: str | None = None

    def add(self, lane: Lane) -> None:
        """Ship this lane from now on, whenever it is offered."""
        self.lanes.add(lane)

    def remove(self, lane: Lane) -> None:
        """Forget this lane; answers to what it has in flight are ignored."""
        self.lanes.discard(lane)
        self._turns.withdraw(lane)
        self._without_room.discard(lane)
        lane.window.rewind(lane.window.acked)

    def offer(self, lane: Lane, now_ns: int) -> None:
        """Give this lane a turn if it has something to send."""
        due = lane.due(now_ns)
        if due is not Due.NOTHING and lane in self.lanes:
            self._turns.offer(lane, backlog=due is Due.BACKLOG)
            self._wake.set()

    def lead(self, ahead: int, now_ns: int) -> None:
        """Let backlogs wait, or go on, with `ahead` raw bytes sent that the store does not have."""
        if not self.leash.look(ahead, now_ns / 1e9) and self._turns:
            self._wake.set()

    async def run(self) -> None:
        """Take turns until cancelled."""
        unwritten = 0
        while True:
            lane = self._turns.take(backlog=not self.leash.held)
            if lane is None:
                unwritten = 0
                self._wake.clear()
                await self._wake.wait()
                continue
            await self._ready()
            if lane in self.lanes:
                unwritten += await self._turn(lane)
            if unwritten >= TOGETHER_BYTES:  # neither cutting nor publishing need suspend: let answers in
                unwritten = 0
                await asyncio.sleep(0)

    async def _ready(self) -> None:
        while True:
            await self._uplink.wait_connected()
            pause_s = self._resume_s - time.monotonic()
            if pause_s <= 0 and self._uplink.connected:
                return
            await asyncio.sleep(max(pause_s, 0.0))

    async def _turn(self, lane: Lane) -> int:
        """Send a frame of the lane, if it has one; the bytes that this took."""
        now_ns = time.monotonic_ns()
        if not lane.window.waits:
            if not self._budget.room:
                self._without_room.add(lane)
            if not lane.window.room or not await lane.cut(raw_bytes_max(self._uplink.message_bytes_max), now_ns):
                return UNTAKEN  # an answer, or the next look at the journal, will offer it again
        flight = lane.window.send()
        if flight is None:
            return UNTAKEN
        newest = self._sequence
        try:
            answer = await self._uplink.publish(lane.subject, flight.data, lane.identity(flight))
        except UplinkError as error:
            self._not_accepted(lane, flight, error)
        else:
            answer.add_done_callback(partial(self._answered, lane, flight, newest))
        self.offer(lane, now_ns)
        return len(flight.data)

    def _answered(self, lane: Lane, flight: Flight, newest: int, answer: asyncio.Future[Receipt]) -> None:
        if answer.cancelled() or flight.state is State.FORGOTTEN:
            if not answer.cancelled():
                answer.exception()  # retrieved, so that asyncio does not report it as forgotten
            return
        error = answer.exception()
        if error is not None:
            self._not_accepted(lane, flight, error)
        else:
            self._accepted(lane, flight, newest, answer.result())
        now_ns = time.monotonic_ns()
        self.offer(lane, now_ns)
        if self._without_room and self._budget.room:
            waiting, self._without_room = self._without_room, set()
            for other in waiting:
                self.offer(other, now_ns)

    def _accepted(self, lane: Lane, flight: Flight, newest: int, receipt: Receipt) -> None:
        self._backoff.succeeded()
        self._patience.succeeded()
        self.full = False
        self._said = None
        self._frames.inc()
        self._frame_bytes.inc(len(flight.data))
        self._raw_bytes.inc(flight.end - flight.first)
        if not receipt.duplicate and receipt.sequence <= newest:
            self._stream_is_younger(receipt.sequence, newest)
            return
        self._sequence = max(self._sequence, receipt.sequence)
        lane.acknowledged(flight)

    def _stream_is_younger(self, sequence: int, newest: int) -> None:
        """A stream counts upwards. One that does not was made again, or lost its newest messages: what it had acknowledged may be
        gone, and only the journals still have it."""
        log.warning(
            "%s went back from message %d to %d: all is sent again from the store's marks",
            self.stream,
            newest,
            sequence,
        )
        self._sequence = sequence
        now_ns = time.monotonic_ns()
        for lane in self.lanes:
            self._metrics.rewinds.labels("stream went back").inc()
            lane.start_again()
            self.offer(lane, now_ns)

    def _not_accepted(self, lane: Lane, flight: Flight, error: BaseException) -> None:
        reason = type(error).__name__
        self._metrics.retries.labels(reason).inc()
        self.full = reason == "Full"
        if isinstance(error, TooLarge):  # the broker takes less than it did: cut again, smaller
            lane.window.rewind(lane.window.acked)
        else:
            lane.window.failed(flight)
        now_s = time.monotonic()
        if now_s >= self._resume_s and not isinstance(error, NotConnected):  # what fails together counts once
            backoff = self._patience if isinstance(error, NotPermitted) else self._backoff
            self._resume_s = now_s + backoff.failed()
        if reason != self._said:
            self._said = reason
            log.warning("%s did not take a frame, which is sent again: %s", self.stream, error)
