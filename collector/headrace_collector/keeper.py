"""The keeper of leases: carries `leases.LeaseBook`'s plans out over NATS, one beat after another.

Life cycle: `run` serves until it is cancelled; `leave` gives everything back, once, after the partitions were drained. What
holds a partition is told by `Holder`: `start` when a lease was granted, `drain` before it is given back, `abandon` when it is
lost, which must stop the work at once and without a word to the broker.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable
from typing import Final, Protocol

from headrace.service.cancelling import stay_cancelled
from headrace.service.logs import told
from headrace.service.nats_py import (
    APIError,
    Client,
    Header,
    JetStreamContext,
    JetStreamError,
    Msg,
    NatsError,
    NotFoundError,
)
from headrace.service.pausing import comes_within
from headrace_collector.leases import BEAT_S, LEASE_TTL_S, LeaseBook, Member, Owner
from headrace_proto import subjects

_LOG: Final = logging.getLogger(__name__)
_WRONG_LAST_SEQUENCE: Final = 10_071
_ANSWER_S: Final = BEAT_S
LISTEN_S: Final = 0.25
"""A newcomer listens this long before its first claim: those who hear it announce themselves at once."""
_TTL: Final[dict[str, str]] = {Header.MSG_TTL: f"{LEASE_TTL_S}s"}

TRANSIENT: Final = (NatsError, JetStreamError, asyncio.TimeoutError, OSError)
"""What a broker that restarts, or is out of reach, makes of a request."""


class Holder(Protocol):
    """What works partitions. None of its calls raises."""

    def start(self, partition: int, epoch: int) -> None:
        """The partition is ours; `epoch` grows with each change of hands."""

    async def drain(self, partition: int) -> None:
        """Stop working the partition, with everything committed and acknowledged. The lease is still ours."""

    def doubt(self, partition: int) -> None:
        """The lease could not be renewed in time, so the partition may be somebody else's, or nobody's: go on with what is here,
        and begin nothing in another's stead."""

    def trust(self, partition: int) -> None:
        """The lease is ours after all."""

    def abandon(self, partition: int) -> None:
        """Stop working the partition at once. Somebody else may already have it."""


class LeaseKeeper:
    """Holds this collector's share of the partitions."""

    def __init__(self, client: Client, js: JetStreamContext, book: LeaseBook, holder: Holder) -> None:
        self._client = client
        self._js = js
        self._book = book
        self._holder = holder
        self._payload = Owner(book.collector, book.process).encode()
        self._sequences: dict[int, int] = {}  # partition -> its lease's newest sequence, of those that we hold
        self._releasing: set[int] = set()
        self._early = asyncio.Event()  # ends the pause between two beats
        self._empty = asyncio.Event()  # a leaver holds nothing any more

    async def run(self) -> None:
        """Announce, renew, release and claim, for ever."""
        subscription = await self._client.subscribe(subjects.collector("*"), cb=self._on_announcement)
        try:
            await self._announce()
            await asyncio.sleep(LISTEN_S)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch())
                tasks.create_task(self._beat(tasks))
        finally:
            if not self._client.is_closed:
                await subscription.unsubscribe()

    async def leave(self, timeout_s: float) -> None:
        """Drain every partition and give its lease back, then say goodbye. `run` must still run, for it goes on renewing."""
        self._book.leaving = True
        self._early.set()
        await comes_within(self._empty, timeout_s)
        if self._client.is_connected:
            await self._client.publish(subjects.collector(self._book.collector), b"", headers=_TTL.copy())

    # -- Who is there ---------------------------------------------------------------------------------------------------

    async def _on_announcement(self, message: Msg) -> None:
        if not message.data:
            self._book.left(message.subject.rsplit(".", 1)[1])
            return
        member = Member.decode(message.data)
        if member and self._book.heard(member, time.monotonic()):
            _LOG.info("another collector is here", extra={"collector": member.collector, "held": len(member.held)})
            await self._announce()

    async def _announce(self) -> None:
        if self._client.is_connected:  # else it would be kept, and told when it is no longer true
            me = subjects.collector(self._book.collector)
            await self._client.publish(me, self._book.me.encode(), headers=_TTL.copy())

    # -- Beats ----------------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Doubt what could not be renewed, whatever the broker and the beat are doing."""
        while True:
            for partition in self._book.overdue(time.monotonic()):
                self._holder.doubt(partition)
            await asyncio.sleep(BEAT_S / 5)

    async def _beat(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            try:
                await self._take_all((partition, self._sequences[partition]) for partition in self._book.held)
                await self._follow_plan(tasks)
                await self._announce()
            except TRANSIENT as error:
                _LOG.debug("a beat failed", extra={"error": told(error)})
            stay_cancelled()
            if self._book.leaving and not self._book.held:
                self._empty.set()
            await self._pause()

    async def _pause(self) -> None:
        self._early.clear()
        await comes_within(self._early, BEAT_S)

    async def _follow_plan(self, tasks: asyncio.TaskGroup) -> None:
        now = time.monotonic()
        for member in self._book.others(now):
            if member.process.gone:
                _LOG.warning("another collector of this machine is dead", extra={"collector": member.collector})
                self._book.left(member.collector)
        misfit = self._book.misfit(now)
        if misfit:
            _LOG.warning(
                "waiting for an older collector to end: it divides the experiments into another number of partitions",
                extra={"collector": misfit.collector, "theirs": misfit.partitions, "ours": self._book.partitions},
            )
        plan = self._book.plan(now)
        for partition in set(plan.release) - self._releasing:
            tasks.create_task(self._release(partition))
        await self._take_all((partition, 0) for partition in plan.claim)

    async def _release(self, partition: int) -> None:
        """Drain, which takes as long as a commit does, while the beats renew; then give back."""
        self._releasing.add(partition)
        try:
            await self._holder.drain(partition)
            await self._give_back(partition)
            await self._announce()
        finally:
            self._releasing.discard(partition)
            self._early.set()

    # -- One lease ------------------------------------------------------------------------------------------------------

    async def _take_all(self, leases: Iterable[tuple[int, int]]) -> None:
        await asyncio.gather(*(self._take(partition, sequence) for partition, sequence in leases))

    async def _take(self, partition: int, sequence: int) -> None:
        """Claim a lease (`sequence` 0), or renew it."""
        sent_at = time.monotonic()
        try:
            granted = await self._write(partition, sequence) or await self._write_again(partition)
        except TRANSIENT as error:
            _LOG.debug("a lease got no answer", extra={"partition": partition, "error": told(error)})
            return
        if granted is None:
            self._lose(partition, "another collector has its lease")
            self._book.refused(partition, sent_at)
        elif sequence == 0:
            self._sequences[partition] = granted
            self._book.granted(partition, sent_at)
            _LOG.info("took a partition", extra={"partition": partition, "epoch": granted})
            self._holder.start(partition, granted)
        elif partition in self._sequences:  # else it was lost or given back while the answer was on its way
            self._sequences[partition] = granted
            self._book.granted(partition, sent_at)
            self._holder.trust(partition)

    async def _write(self, partition: int, sequence: int) -> int | None:
        headers: dict[str, str] = {Header.EXPECTED_LAST_SUBJECT_SEQUENCE: str(sequence), **_TTL}
        try:
            answer = await self._js.publish(
                subjects.lease(partition), self._payload, timeout=_ANSWER_S, headers=headers
            )
        except APIError as error:
            if error.err_code != _WRONG_LAST_SEQUENCE:
                raise
            return None
        return answer.seq

    async def _write_again(self, partition: int) -> int | None:
        """Refused: perhaps by a write of ours that landed and whose answer was lost, by a dead one's lease, or by nobody's."""
        try:
            last = await self._js.get_last_msg(subjects.LEASES_STREAM, subjects.lease(partition))
        except NotFoundError:  # it ran out
            return await self._write(partition, 0)
        owner = Owner.decode(last.data)
        if owner is None or last.seq is None or not (owner.collector == self._book.collector or owner.process.gone):
            return None
        return await self._write(partition, last.seq)

    async def _give_back(self, partition: int) -> None:
        sequence = self._sequences.pop(partition, None)
        self._book.dropped(partition)
        if sequence is None:
            return
        with contextlib.suppress(*TRANSIENT):  # then it runs out by itself
            # up to our own message and no further: a lease that somebody else has by now stays
            await self._js.purge_stream(subjects.LEASES_STREAM, seq=sequence + 1, subject=subjects.lease(partition))

    def _lose(self, partition: int, why: str) -> None:
        self._book.dropped(partition)
        if self._sequences.pop(partition, None) is not None:
            _LOG.warning("lost a partition", extra={"partition": partition, "why": why})
            self._holder.abandon(partition)
