"""What the collector tells the broker and the agents: marks, then acknowledgements, and requests to send again.

A mark goes out before the messages that it covers are acknowledged: killed between the two, the messages come again, lie below
the watermark, and the mark is repeated. The other way round an agent would wait for a mark that nobody owes it any more.
Everything here is idempotent, so whatever the broker did not confirm is simply said again.

An acknowledgement is good for the consumer that delivered the message, and for no longer than the connection on which that was
made: a broker that comes back may have lost data, and what it then delivers under the same sequence is another message.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from headrace.service.cancelling import stay_cancelled
from headrace.service.logs import told
from headrace.service.nats_py import Client, JetStreamContext, Msg
from headrace.service.pausing import comes_within
from headrace_collector.keeper import TRANSIENT
from headrace_proto import messages, subjects
from headrace_proto.messages import FileMark, Mark, Rewind

_LOG: Final = logging.getLogger(__name__)
_CONFIRM_S: Final = 5.0
TOGETHER: Final = 128
"""Marks whose confirmation is awaited at once, and answers for which nobody waits any longer."""
_AGAIN_S: Final = 1.0
GATHER_S: Final = 0.05
"""Experiments are committed at the same ticks, one after the other: what is to be said of them goes out in one go, or agents would
wake, a third of a millisecond of CPU, for each."""
_ACK_PREFIX: Final = "$JS.ACK."
_SHORT_REPLY: Final = 9
"""Parts of `$JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<number>.<time>.<pending>`."""


class Answers:
    """The outbox. Its methods never wait; `run` sends. Marks of one source are told newest only."""

    def __init__(self, client: Client, js: JetStreamContext) -> None:
        self._client = client
        self._js = js
        self._marks: dict[str, bytes] = {}
        self._plain: list[tuple[str, bytes]] = []
        self._consumers: set[str] = set()
        self._waiting = asyncio.Event()
        self._hurrying = asyncio.Event()
        self._sending = asyncio.Lock()

    def begin(self, consumer: str) -> None:
        """Messages of `consumer` may be answered from now on."""
        self._consumers.add(consumer)

    def end(self, consumer: str) -> None:
        """Nobody will answer messages of `consumer` any more; what waits to be said of them is."""
        self._consumers.discard(consumer)

    def mark(self, site: str, mark: Mark) -> None:
        """Tell the agents of `site` a source's watermark."""
        self._put_mark(subjects.mark(site, mark.source), messages.encode(mark))

    def file_mark(self, site: str, mark: FileMark) -> None:
        """Tell the agents of `site` how much of a file is stored."""
        self._put_mark(subjects.mark(site, mark.source, mark.file), messages.encode(mark))

    def hurry(self) -> None:
        """Somebody waits for what is to be said now."""
        self._hurrying.set()

    def _put_mark(self, subject: str, payload: bytes) -> None:
        self._marks[subject] = payload
        self._waiting.set()

    def ack(self, reply: str) -> None:
        """The store has what this message brought, or nobody will want it: the queue may forget it."""
        self._put(reply, b"")

    def in_progress(self, reply: str) -> None:
        """This message still waits for its commit. Said now or not at all: it will be said again."""
        if self._client.is_connected:
            self._put(reply, Msg.Ack.Progress)

    def give_back(self, reply: str, delay_s: float) -> None:
        """Deliver this message again later; nothing of it is kept here."""
        self._put(reply, Msg.Ack.Nak + b' {"delay": %d}' % int(delay_s * 1e9))

    def rewind(self, site: str, rewind: Rewind) -> None:
        """Ask the agents of `site` to send a source again. Not kept by the broker: whoever misses it is asked again."""
        self._put(subjects.rewind(site, rewind.source), messages.encode(rewind))

    def _put(self, subject: str, payload: bytes) -> None:
        if subject:  # a frame of our own making was brought by no message
            self._plain.append((subject, payload))
            self._waiting.set()
            if len(self._plain) >= TOGETHER:
                self.hurry()

    async def run(self) -> None:
        """Send for ever."""
        while True:
            await self._waiting.wait()
            await comes_within(self._hurrying, GATHER_S)
            said = await self.flush()
            stay_cancelled()
            if not said:
                await asyncio.sleep(_AGAIN_S)

    async def flush(self) -> bool:
        """Send what waits; whether that was all said. What the broker does not take, or not confirm, goes on waiting."""
        async with self._sending:
            self._waiting.clear()
            self._hurrying.clear()
            marks, self._marks = self._marks, {}
            plain, self._plain = self._plain, []
            try:
                if self._client.is_connected:  # else it would be buffered, and told a second time from here
                    await self._send_marks(marks)
                    await self._send_plain(plain)
            except TRANSIENT as error:
                _LOG.debug("answers wait for the broker", extra={"error": told(error)})
            finally:
                self._keep(marks, plain)
            return not (marks or plain)

    async def _send_marks(self, marks: dict[str, bytes]) -> None:
        """Publish all, and take out of `marks` what is confirmed. Acknowledgements do not wait for the rest."""
        subjects_left = list(marks)
        for start in range(0, len(subjects_left), TOGETHER):
            together = subjects_left[start : start + TOGETHER]
            said = (self._js.publish(subject, marks[subject], timeout=_CONFIRM_S) for subject in together)
            for subject, answer in zip(together, await asyncio.gather(*said, return_exceptions=True), strict=True):
                if not isinstance(answer, BaseException):
                    del marks[subject]
                elif not isinstance(answer, TRANSIENT):
                    raise answer

    async def _send_plain(self, plain: list[tuple[str, bytes]]) -> None:
        plain.reverse()
        try:
            while plain:
                subject, payload = plain[-1]
                if not subject.startswith(_ACK_PREFIX) or _consumer_of(subject) in self._consumers:
                    await self._client.publish(subject, payload)
                plain.pop()
        finally:
            plain.reverse()

    def _keep(self, marks: dict[str, bytes], plain: list[tuple[str, bytes]]) -> None:
        """Put back what was not sent; a mark that was told anew in the meantime is newer."""
        self._marks = {**marks, **self._marks}
        self._plain[:0] = plain
        if self._marks or self._plain:
            self._waiting.set()


def _consumer_of(reply: str) -> str:
    """The consumer in a message's reply subject, which begins with domain and account on newer brokers."""
    parts = reply.split(".")
    place = 3 if len(parts) == _SHORT_REPLY else 5
    return parts[place] if len(parts) > place else ""
