"""The way out of the node, as shipping sees it. One implementation per protocol.

Contract
- `run` connects and reconnects, for ever, until it is cancelled; then it flushes what it was given and closes the link.
- `publish` returns when the message is handed to the link, with a future of the stream's answer. It raises, or the future does,
  only an `UplinkError`. Messages published one after another reach the stream in that order while the link holds.
- When the link is lost, every unanswered future fails with `Unknown` at once: such a message may have landed, or may yet.
- `listen` is called before `run`; its callback hears every message that arrives while connected, and must not raise.
- `recall` may be called at any time; without a link, or where the broker remembers nothing, nothing follows from it.
- `tell` may be called at any time, too; without a link nobody hears it.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable
from typing import NamedTuple, Protocol


class Receipt(NamedTuple):
    """The stream holds the message, at `sequence`; it already did when `duplicate`."""

    sequence: int
    duplicate: bool = False


class UplinkError(Exception):
    """A message was not accepted now. All of them pass: the journal keeps what was not accepted."""


class NotConnected(UplinkError):
    """There is no link; nothing was sent."""


class Unknown(UplinkError):
    """No answer came. The message may have landed, or may yet."""


class Full(UplinkError):
    """The stream has no room, or no leader: it pushes back."""


class NoStream(UplinkError):
    """Nobody takes messages of this subject: the streams are not made yet."""


class TooLarge(UplinkError):
    """The broker takes no message of this size."""


class Refused(UplinkError):
    """The stream gave another reason; the text says which."""


class NotPermitted(UplinkError):
    """The broker knows us, and does not let us publish this."""


class Uplink(Protocol):
    """What shipping needs of a link."""

    @property
    def connected(self) -> bool:
        """Whether publishing makes sense now."""

    @property
    def trouble(self) -> str:
        """What the broker has against us, for people: who is refused, and what to mend. Empty while it has nothing."""

    @property
    def links(self) -> int:
        """How many links there have been. A new one may lead to a broker that has lost what it had acknowledged."""

    @property
    def message_bytes_max(self) -> int:
        """The largest message that the broker takes."""

    def listen(self, subject: str, callback: Callable[[str, bytes], None]) -> None:
        """Have `callback(subject, data)` called for each message of `subject`."""

    async def recall(self, subject: str) -> None:
        """Have the newest message of `subject` that the broker remembers heard again, by the callback that listens to it."""

    async def tell(self, subject: str, data: bytes) -> None:
        """Send `data` to whoever listens now."""

    async def run(self) -> None:
        """Keep a link until cancelled."""

    async def wait_connected(self) -> None:
        """Return as soon as there is a link."""

    async def publish(self, subject: str, data: bytes, identity: str) -> Future[Receipt]:
        """Send `data`; `identity` lets the stream drop a repetition within its window."""
        ...
