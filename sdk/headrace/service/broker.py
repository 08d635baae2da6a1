"""The broker as agent and collector use it: one way to connect, and the streams that both rely on."""

from __future__ import annotations

import asyncio
import random
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from headrace.service.logs import told
from headrace.service.nats_py import (
    APIError,
    Client,
    DiscardPolicy,
    NotFoundError,
    RetentionPolicy,
    Server,
    StorageType,
    StreamConfig,
    with_websockets,
)
from headrace.service.nats_server import EVENTS_BYTES, FILES_BYTES, SMALL_STREAM_BYTES
from headrace.service.secrets import masked
from headrace.service.secured import Refused, SecuredClient
from headrace.service.tls import Tls
from headrace_proto import subjects
from headrace_proto.errors import ConfigError, MissingExtra, StreamUnsuitable
from headrace_proto.limits import FRAME_BYTES_MAX, KIB, TOKENS

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.service.nats_py import JetStreamContext

PING_INTERVAL_S: Final = 3
"""A dead link is found when a third ping is due and two are unanswered, after 9 s; the client's own default needs 4 minutes."""
UNTAKEN_S_MAX: Final = 8.0
"""The kernel ends a connection whose other end has not taken our bytes for so long. Before it connects again nats-py waits until
the old connection is closed, which one with unsent bytes never is (tried: no new connection within 60 s, and no callback)."""
RECONNECT_S_MAX: Final = 10.0
_SCHEMES: Final = ("nats", "tls", "ws", "wss")
_SECURE: Final = ("tls", "wss")
_WEBSOCKETS: Final = ("ws", "wss")

DUPLICATE_WINDOW_S: Final = 120.0
"""`Nats-Msg-Id` spares the stream a repeated frame; it guarantees nothing, so a short window is enough (0.3 KiB an id)."""
MARKS_AGE_S: Final = 30 * 24 * 3600.0
MAKE_TRIES: Final = 10
MAKE_PAUSE_S: Final = 0.1


async def connect(
    url: str,
    *,
    name: str,
    credentials: str | None = None,
    tls: Tls | None = None,
    on_event: Callable[[str], None],
    on_lost: Callable[[], None] | None = None,
    on_error: Callable[[str], None] | None = None,
) -> Client:
    """A client of the broker at `url` (several, for a cluster, separated by commas).

    `name` is its role's, and its inbox is `_INBOX.<name>`: who may hear whose answers is a matter of rights (`rights`). With a
    `tls://` URL, or any file of `tls`, it talks TLS or not at all.

    Waits until a broker answers; cancel it to give up. One that refuses (`broker refused: ...`) is asked ever more slowly. From
    then on the client reconnects by itself, for ever, with growing pauses. `on_event` hears of each change once, however often it
    repeats; `on_lost` is called at each end of a connection, before there is another. A broker that *expels* a client (its
    credentials were revoked) closes it for good: then `is_closed` is true, and only a new `connect` helps. `on_error` hears of each
    error, each time. Raises `ConfigError` for settings that cannot be meant, `MissingExtra` when what they need is not installed.
    """
    files = tls or Tls()
    servers = _checked_servers(url, files)
    identity = _identity(credentials)
    if any(urlsplit(server).scheme in _WEBSOCKETS for server in servers):
        with_websockets()
    secure = files.named or urlsplit(servers[0]).scheme in _SECURE
    if secure:
        files.context()  # what is wrong with the files is told at once
    events = _Events(on_event, on_lost, on_error)
    client = SecuredClient(files, events.tell, secure=secure, credentials=credentials)
    events.client = client
    connecting = asyncio.ensure_future(
        client.connect(
            servers,
            name=name,
            inbox_prefix=f"_INBOX.{name}",
            ping_interval=PING_INTERVAL_S,
            max_outstanding_pings=2,
            max_reconnect_attempts=-1,
            reconnect_time_wait=1,
            reconnect_to_server_handler=_next_server,
            error_cb=events.error,
            disconnected_cb=events.disconnected,
            reconnected_cb=events.reconnected,
            closed_cb=events.closed,
            **identity,
        )
    )
    try:
        await asyncio.wait([connecting])
    except asyncio.CancelledError:
        await _give_up(client, connecting)
        raise
    connecting.result()
    _end_when_untaken(client)
    return client


async def _give_up(client: Client, connecting: asyncio.Future[None]) -> None:
    """End an attempt to connect. Python 3.11's `wait_for`, which the client uses, may swallow a cancellation: repeat it."""
    while not connecting.done():
        connecting.cancel()
        await asyncio.wait([connecting], timeout=0.05)
    if client.is_connecting or client.is_connected:  # else there is no socket, and `close` would assert
        await client.close()


def _checked_servers(url: str, tls: Tls) -> list[str]:
    servers = [part.strip() for part in url.split(",") if part.strip()]
    if not servers or any(urlsplit(part).scheme not in _SCHEMES or not urlsplit(part).hostname for part in servers):
        raise ConfigError(
            f"the broker's URL {masked(url)!r} must be like nats://host:4222 (or {', '.join(_SCHEMES[1:])})"
        )
    schemes = {urlsplit(part).scheme for part in servers}
    if schemes & {*_SECURE} and schemes - {*_SECURE}:
        raise ConfigError(
            f"the broker's URLs {masked(url)!r} mix TLS and plain: write all with tls:// (or wss://), or none"
        )
    if tls.named and "ws" in schemes:
        raise ConfigError(f"the broker's URL {masked(url)!r} is plain, and a file for TLS is named: write wss://")
    return servers


def _identity(credentials: str | None) -> dict[str, Any]:
    """A file with a user's JWT and seed (`.creds`), or one with an nkey's seed alone."""
    if not credentials:
        return {}
    try:
        with open(credentials, encoding="utf-8") as file:
            text = file.read(64 * KIB)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the credentials file {credentials!r} cannot be read: {error}") from error
    try:
        import nkeys  # noqa: F401
    except ImportError:
        raise MissingExtra.named("a credentials file", "credentials") from None
    return {"user_credentials": credentials} if "USER JWT" in text else {"nkeys_seed": credentials}


def _next_server(servers: list[Server], _: dict[str, Any]) -> tuple[Server | None, float]:
    """The server that failed least, and a pause that doubles with its failures; the first retry of each comes at once."""
    server = min(servers, key=lambda candidate: candidate.reconnects)
    if server.reconnects == 0:
        return server, 0.0
    pause_s = min(0.1 * 2 ** min(server.reconnects, 10), RECONNECT_S_MAX)
    return server, pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads agents, hides nothing


class _Events:
    """The client's callbacks. All are set: its defaults print tracebacks."""

    def __init__(
        self,
        on_event: Callable[[str], None],
        on_lost: Callable[[], None] | None,
        on_error: Callable[[str], None] | None,
    ) -> None:
        self.client: Client | None = None
        self._on_event = on_event
        self._on_lost = on_lost
        self._on_error = on_error
        self._last = ""

    def tell(self, text: str) -> None:
        """Once, however often it repeats."""
        text = masked(text)
        if text != self._last:
            self._last = text
            self._on_event(text)

    async def error(self, error: Exception) -> None:
        if not isinstance(error, Refused):  # told already
            self.tell(f"broker: {told(error)}")
            if self._on_error is not None:
                self._on_error(str(error))

    async def disconnected(self) -> None:
        if self._on_lost is not None:
            self._on_lost()
        self.tell("broker: disconnected; what is logged waits in the journals")

    async def reconnected(self) -> None:
        if self.client is not None:
            _end_when_untaken(self.client)
        self.tell("broker: connected again")

    async def closed(self) -> None:
        self.tell("broker: connection closed")


def _end_when_untaken(client: Client) -> None:
    writer = getattr(client._transport, "_io_writer", None)  # noqa: SLF001 - nats-py offers no other way to its socket
    connection = writer.get_extra_info("socket") if writer is not None else None
    if connection is not None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNTAKEN_S_MAX * 1000))


def stream_configs(
    *, replicas: int = 1, events_bytes: int = EVENTS_BYTES, files_bytes: int = FILES_BYTES
) -> list[StreamConfig]:
    """The streams of `headrace_proto.subjects`, as they are made when they do not exist."""
    events = _queue(subjects.EVENTS_STREAM, subjects.EVENTS_PREFIX, events_bytes)
    files = _queue(subjects.FILES_STREAM, subjects.FILES_PREFIX, files_bytes)
    marks = _newest(subjects.MARKS_STREAM, subjects.MARKS_PREFIX)
    marks.max_age = MARKS_AGE_S
    leases = _newest(subjects.LEASES_STREAM, subjects.LEASES_PREFIX)
    leases.allow_msg_ttl = True  # a lease is a message that ends by itself
    configs = [events, files, marks, leases]
    for config in configs:
        config.num_replicas = replicas
    return configs


def _queue(name: str, prefix: str, bytes_max: int) -> StreamConfig:
    """A stream that holds each frame until a collector acknowledges it."""
    return StreamConfig(
        name=name,
        # no other tokens than there are: nobody would ever consume such a message, and it would keep its room for ever
        subjects=[f"{prefix}.*.{token}.>" for token in range(TOKENS)],
        storage=StorageType.FILE,
        retention=RetentionPolicy.WORK_QUEUE,
        discard=DiscardPolicy.NEW,  # when full it refuses, and the bytes stay in the journal; never drop the oldest
        max_bytes=bytes_max,
        max_msg_size=FRAME_BYTES_MAX + 4 * KIB,  # the broker counts headers in
        duplicate_window=DUPLICATE_WINDOW_S,
    )


def _newest(name: str, prefix: str) -> StreamConfig:
    """A stream that remembers the newest message of each subject."""
    return StreamConfig(
        name=name,
        subjects=[f"{prefix}.>"],
        storage=StorageType.FILE,
        retention=RetentionPolicy.LIMITS,
        discard=DiscardPolicy.OLD,
        max_bytes=SMALL_STREAM_BYTES,
        max_msgs_per_subject=1,
        allow_direct=True,  # an agent asks for the newest message of one subject, with no other right on the stream
    )


async def ensure_streams(
    js: JetStreamContext,
    *,
    replicas: int = 1,
    events_bytes: int = EVENTS_BYTES,
    files_bytes: int = FILES_BYTES,
) -> None:
    """Make the streams that do not exist. An operator's own sizes and replicas stand; settings that would lose data do not."""
    for wanted in stream_configs(replicas=replicas, events_bytes=events_bytes, files_bytes=files_bytes):
        found = await _find_or_make(js, wanted)
        check_stream(wanted, found)


async def _find_or_make(js: JetStreamContext, wanted: StreamConfig) -> StreamConfig:
    name = wanted.name or ""
    for tries_left in reversed(range(MAKE_TRIES)):
        with suppress(NotFoundError):
            return (await js.stream_info(name)).config
        try:
            return (await js.add_stream(wanted)).config
        except APIError:
            # Another part makes it at this moment: "name in use", or "insufficient storage" because both requests reserve
            # its bytes. Look again; what is really wrong is still wrong then.
            if not tries_left:
                raise
        await asyncio.sleep(MAKE_PAUSE_S)
    raise AssertionError("the loop above returns or raises")


def check_stream(wanted: StreamConfig, found: StreamConfig) -> None:
    """Raise `StreamUnsuitable` when the stream `found` lacks what `wanted` needs to lose nothing."""
    for field in ("subjects", "retention", "discard", "storage", "max_msgs_per_subject", "allow_msg_ttl"):
        want, have = getattr(wanted, field), getattr(found, field)
        if want is not None and want != have and not (field == "subjects" and have == _every_token(want)):
            raise StreamUnsuitable(
                f"the stream {wanted.name} has {field} {have!r:.80} where Headrace needs {want!r:.80}: correct it with "
                f"`nats stream edit {wanted.name}`, or delete the stream (what it holds is still in the journals)"
            )


def _every_token(subjects_: list[str]) -> list[str]:
    """What a queue's stream took before tokens were listed: it loses nothing, only keeps what nobody consumes."""
    return [f"{subjects_[0].split('.*')[0]}.>"]
