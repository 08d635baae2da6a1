"""The uplink over NATS JetStream.

Acknowledged publishing is done by hand (a reply inbox and a table of futures) rather than by nats-py's `js.publish`: that keeps a
request waiting for its whole timeout after the link it was sent on is gone, and go-back-N waits for every answer.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from headrace.service.broker import connect
from headrace.service.nats_py import Client, MaxPayloadError, Msg, NatsError
from headrace.service.secrets import masked
from headrace.service.secured import REFUSED
from headrace.service.tls import Tls
from headrace_agent.backoff import Backoff
from headrace_agent.uplink import (
    Full,
    NoStream,
    NotConnected,
    NotPermitted,
    Receipt,
    Refused,
    TooLarge,
    Unknown,
    UplinkError,
)
from headrace_proto import subjects
from headrace_proto.errors import HeadraceError
from headrace_proto.limits import KIB

ANSWER_S_MAX: Final = 10.0
"""A change of leader in a cluster of three stalled acknowledgements for up to 7.5 s."""
CLOSE_S_MAX: Final = 2.0
UNWRITTEN_BYTES: Final = 256 * KIB
UNWRITTEN_LOOK_S: Final = 0.001
_IDENTITY: Final = "Nats-Msg-Id"
_SUBJECT: Final = "Nats-Subject"
_DIRECT_GET: Final = f"$JS.API.DIRECT.GET.{subjects.MARKS_STREAM}"
_NO_RESPONDERS: Final = "503"
_NOT_PERMITTED: Final = "permissions violation for publish"
_UNAVAILABLE: Final = 503
_TOO_LARGE_CODES: Final = frozenset({10054, 10141})
log = logging.getLogger(__name__)


class NatsUplink:
    """One connection. See `Uplink` for what its methods promise."""

    def __init__(
        self,
        url: str,
        *,
        name: str,
        credentials: str | None = None,
        tls: Tls | None = None,
        answer_s_max: float = ANSWER_S_MAX,
    ) -> None:
        self._url = url
        self._name = name
        self._credentials = credentials
        self._tls = tls
        self._answer_s_max = answer_s_max
        self._client: Client | None = None
        self._up = asyncio.Event()
        self._lost = asyncio.Event()
        self._listeners: list[tuple[str, Callable[[str, bytes], None]]] = []
        self._answers: dict[str, asyncio.Future[Receipt]] = {}
        self._numbers = itertools.count()
        self._inbox = ""
        self._recalled = ""
        self._sent_to: dict[str, str] = {}
        self.links = 0
        self.trouble = ""

    @property
    def connected(self) -> bool:
        """Whether publishing makes sense now."""
        return self._up.is_set() and self._client is not None and self._client.is_connected

    @property
    def message_bytes_max(self) -> int:
        """The broker's `max_payload`; 0 before it was ever heard."""
        return self._client.max_payload if self._client is not None else 0

    def listen(self, subject: str, callback: Callable[[str, bytes], None]) -> None:
        """Have `callback(subject, data)` called for each message of `subject`."""
        self._listeners.append((subject, callback))

    async def recall(self, subject: str) -> None:
        """Ask the marks' stream itself for its newest message of `subject`: needs no right but that one request."""
        client = self._client
        if client is not None and client.is_connected:
            with suppress(NatsError):  # the link went just now: the next question will be heard
                await client.publish(f"{_DIRECT_GET}.{subject}", reply=self._recalled)

    async def tell(self, subject: str, data: bytes) -> None:
        """Send `data` to whoever listens now: no stream keeps it."""
        client = self._client
        if client is not None and client.is_connected:
            with suppress(NatsError):  # the link went just now: whoever asked will hear nothing, and ask again
                await client.publish(subject, data)

    async def _on_recalled(self, message: Msg) -> None:
        subject = (message.headers or {}).get(_SUBJECT)
        for pattern, callback in self._listeners:
            if subject is not None and subject.startswith(pattern.removesuffix(">")):
                callback(subject, message.data)

    async def wait_connected(self) -> None:
        """Return as soon as there is a link."""
        await self._up.wait()

    async def run(self) -> None:
        """Keep a link until cancelled. A broker that expels us is asked again, slowly: credentials may be renewed.

        Raises `ConfigError` for settings that cannot be meant, but only at the first try: a file that was right, and now is not
        there or holds something else, is being replaced.
        """
        backoff = Backoff(1.0, 60.0)
        tried = False
        try:
            while True:
                self._lost.clear()
                try:
                    await self._connect()
                    backoff.succeeded()
                    await self._lost.wait()
                except (OSError, NatsError, HeadraceError) as error:
                    if isinstance(error, HeadraceError) and not tried:
                        raise
                    self._has_trouble(f"the broker cannot be used: {masked(str(error))}")
                tried = True
                await self._close()
                await asyncio.sleep(backoff.failed())
        finally:
            with suppress(Exception):  # closing closes, whatever state the link is in
                await asyncio.wait_for(self._close(), CLOSE_S_MAX)

    async def _connect(self) -> None:
        client = await connect(
            self._url,
            name=self._name,
            credentials=self._credentials,
            tls=self._tls,
            on_event=self._on_event,
            on_error=self._on_error,
        )
        self._client = client
        self.trouble = ""
        self._inbox = client.new_inbox()
        self._recalled = client.new_inbox()
        await client.subscribe(f"{self._inbox}.*", cb=self._on_answer)
        await client.subscribe(self._recalled, cb=self._on_recalled)
        for subject, callback in self._listeners:
            await client.subscribe(subject, cb=_heard(callback))
        self._look()

    async def _close(self) -> None:
        client, self._client = self._client, None
        self._look()
        if client is not None and not client.is_closed:
            await client.close()

    def _on_event(self, text: str) -> None:
        if text.startswith(REFUSED):
            self._has_trouble(text)
        else:
            log.info(text)
        self._look()

    def _on_error(self, text: str) -> None:
        """The broker never answers a message that we may not publish: it only says so, with the subject in lower case."""
        if _NOT_PERMITTED not in text.lower():
            return
        trouble = (
            f"the broker does not let this site publish ({text.removeprefix('nats: ')}): correct `site`, or its rights"
        )
        self._has_trouble(trouble)
        for number, future in list(self._answers.items()):
            if self._sent_to[number].lower() in text.lower():
                _fail(future, NotPermitted(trouble))

    def _has_trouble(self, text: str) -> None:
        if text != self.trouble:  # said once, however often it repeats
            log.error(text)
            self.trouble = text

    def _look(self) -> None:
        client = self._client
        if client is not None and client.is_connected:
            if not self._up.is_set():
                self.links += 1
                self.trouble = ""
            self._up.set()
            return
        self._up.clear()
        if client is not None and client.is_closed:
            self._lost.set()
        for future in list(self._answers.values()):
            _fail(future, Unknown("the link was lost before an answer came"))

    async def publish(self, subject: str, data: bytes, identity: str) -> asyncio.Future[Receipt]:
        """Send `data` and return the future of its receipt."""
        client = await self._writable()
        future, reply = self._expect_answer(subject)
        try:
            await client.publish(subject, data, reply=reply, headers={_IDENTITY: identity})
        except MaxPayloadError as error:
            future.cancel()
            raise TooLarge(f"the broker takes {client.max_payload} bytes, not {len(data)}") from error
        except NatsError as error:
            future.cancel()
            raise Unknown(f"publishing failed: {error}") from error
        return future

    async def _writable(self) -> Client:
        """The client, once it has written what it was given. nats-py keeps what it cannot write, and writes it after it has
        connected again: by then we have given up on it, and it would arrive before what is sent again."""
        while (client := self._client) is not None and client.is_connected:
            if client.pending_data_size <= UNWRITTEN_BYTES:
                return client
            await asyncio.sleep(UNWRITTEN_LOOK_S)
        raise NotConnected("there is no link to the broker")

    def _expect_answer(self, subject: str) -> tuple[asyncio.Future[Receipt], str]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Receipt] = loop.create_future()
        number = str(next(self._numbers))
        late = loop.call_later(self._answer_s_max, _fail, future, Unknown(f"no answer in {self._answer_s_max} s"))

        def answered(_: asyncio.Future[Receipt]) -> None:
            late.cancel()
            del self._answers[number], self._sent_to[number]

        future.add_done_callback(answered)
        self._answers[number], self._sent_to[number] = future, subject
        return future, f"{self._inbox}.{number}"

    async def _on_answer(self, message: Msg) -> None:
        number = message.subject.rpartition(".")[2]
        future = self._answers.get(number)
        if future is None or future.done():
            return
        answer = read_answer(message.data, message.headers)
        if isinstance(answer, Receipt):
            self.trouble = ""
            future.set_result(answer)
            return
        future.set_exception(answer)
        if isinstance(answer, NoStream):
            self._leader_gone(number)

    def _leader_gone(self, number: str) -> None:
        """Nobody takes messages of a stream: what was sent to it earlier and has no answer went to a leader that died with it.

        Waiting on, a shipper would begin again ANSWER_S_MAX after the death, long after the next election.
        """
        stream = _prefix(self._sent_to[number])
        for earlier, future in list(self._answers.items()):  # in the order of sending
            if earlier == number:
                return
            if _prefix(self._sent_to[earlier]) == stream:
                _fail(future, Unknown("the stream lost its leader before an answer came"))


def read_answer(data: bytes, headers: dict[str, str] | None) -> Receipt | UplinkError:
    """What the stream said to a message."""
    if headers and headers.get("Status") == _NO_RESPONDERS:
        return NoStream("no stream takes this subject")
    try:
        answer: dict[str, Any] = json.loads(data.decode())
        error = answer.get("error")
        if error is None:
            return Receipt(int(answer["seq"]), bool(answer.get("duplicate", False)))
        return _error(int(error.get("code", 0)), int(error.get("err_code", 0)), str(error.get("description", "")))
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        return Unknown(f"an answer that does not decode: {fault}")


def _error(code: int, detail: int, text: str) -> UplinkError:
    if detail in _TOO_LARGE_CODES:
        return TooLarge(text)
    return Full(text) if code == _UNAVAILABLE else Refused(f"{text} ({code}, {detail})")


def _prefix(subject: str) -> str:
    """What all subjects of one stream begin with."""
    return ".".join(subject.split(".", 2)[:2])


def _fail(future: asyncio.Future[Receipt], error: UplinkError) -> None:
    if not future.done():
        future.set_exception(error)


def _heard(callback: Callable[[str, bytes], None]) -> Callable[[Msg], Any]:
    async def heard(message: Msg) -> None:
        callback(message.subject, message.data)

    return heard
