"""nats-py's client, made to keep its word about TLS, and to be patient with a broker that refuses it.

nats-py talks TLS only when the broker's first line asks for it, also to `tls://`: whoever sits between could strip that word and
read everything. Here the word decides nothing. And it asks a broker that refuses it once a second, for ever; here each refusal
doubles the pause, up to REFUSED_S_MAX: a wrong key does not become right by asking.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from headrace.service.nats_py import Client, NatsError
from headrace.service.tls import Tls
from headrace_proto.errors import ConfigError

REFUSED_S_MAX: Final = 60.0
_REFUSED: Final = ("authorization violation", "authentication timeout", "user authentication", "account authentication")
REFUSED: Final = "broker refused"
"""What `on_event` hears of a refusal begins so."""
_KEEPS: Final = "what is logged waits in the journals"


class Refused(NatsError):
    """Broker and client do not believe each other. The text says what to mend."""


class SecuredClient(Client):
    """Connects with TLS or not at all when `secure`; `on_refused` hears why a broker refuses, or is refused."""

    def __init__(self, tls: Tls, on_refused: Callable[[str], None], *, secure: bool, credentials: str | None) -> None:
        super().__init__()
        self._tls = tls
        self._secure = secure
        self._credentials = credentials
        self._on_refused = on_refused
        self._refusals = 0
        self._shown = False
        """Whether the broker of this attempt wants our certificate: one that does not take it may hang up without a word."""

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """A context for the next handshake."""
        try:
            return self._tls.context()
        except ConfigError as error:
            raise Refused(str(error)) from error

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        """The broker's first line comes in the clear: it may ask for more than we would do, never for less."""
        if initial_connection:
            if self._secure and not (info.get("tls_required") or info.get("tls_available") or self._scheme == "wss"):
                raise Refused(
                    "it offers no TLS, and nothing is sent without: give the broker a certificate, or say nats:// and name "
                    "no tls_ and no certificate here"
                )
            info["tls_required"] = bool(info.get("tls_required")) or (self._secure and self._scheme != "wss")
            self._shown = bool(info["tls_required"] and info.get("tls_verify"))
            if self._shown and self._tls.cert is None:
                raise Refused("it asks for a client's certificate: name one with tls_cert and tls_key")
        await super()._process_info(info, initial_connection)

    @property
    def _scheme(self) -> str:
        return str(self._current_server.uri.scheme) if self._current_server else ""

    def _setup_nkeys_connect(self) -> None:
        try:
            super()._setup_nkeys_connect()
        except Exception as error:  # nkeys raises what it likes
            what = error.strerror if isinstance(error, OSError) else "it holds no nkey's seed"
            raise ConfigError(f"the credentials file {self._credentials!r} cannot be used: {what}") from None

    def _read_key(self) -> None:
        """Read the file of an nkey's seed for this attempt: nats-py would go on with the public key of the first one. The file of a
        JWT it reads each time."""
        if self._nkeys_seed is not None:
            try:
                self._setup_nkeys_connect()
            except ConfigError as error:  # it was right, and is being replaced
                raise Refused(str(error)) from None

    async def _process_connect_init(self) -> None:
        try:
            self._read_key()
            await super()._process_connect_init()
            self._say_that_it_is_tls()
            if not self.is_connected:  # the broker said nothing more: nats-py takes that for a connection
                raise Refused("it closed the connection during the handshake" + self._about_our_certificate())
        except (OSError, NatsError) as error:
            await self._after(error)
            raise
        self._refusals = 0

    def _say_that_it_is_tls(self) -> None:
        """nats-py makes its streams anew for TLS and does not tell them, so that asyncio would warn at the end of each connection:
        "returning true from eof_received() has no effect when using ssl"."""
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None and writer.get_extra_info("sslcontext") is not None:
            writer.transport.get_protocol()._over_ssl = True  # noqa: SLF001 - as asyncio's own streams do when they are told

    async def _connect_to_server(self, s: Any) -> None:
        self._shown = False
        try:
            await super()._connect_to_server(s)  # of wss:// this is where the handshake is
        except (OSError, NatsError) as error:
            await self._after(error)
            raise

    async def _after(self, error: OSError | NatsError) -> None:
        """Returns when `error` is weather. Rests, and raises `Refused`, when it is somebody's refusal."""
        why = self._why(error)
        if why is not None:
            await self._rest(why)
            raise Refused(why) from error

    def _why(self, error: OSError | NatsError) -> str | None:
        """What to mend, if `error` is somebody's refusal and no weather."""
        if isinstance(error, Refused):
            return str(error)
        if isinstance(error, ConnectionError) and self._shown:
            return "it hung up when it had seen our certificate" + self._about_our_certificate()
        if isinstance(error, ssl.SSLCertVerificationError):
            return self._why_not_believed(error)
        if isinstance(error, ssl.SSLError) and "alert" in (error.reason or "").lower():
            return f"it does not take our certificate ({_said(error)})" + self._about_our_certificate()
        if isinstance(error, ssl.SSLError):
            return f"it speaks no TLS that we know ({_said(error)})"
        if any(word in str(error).lower() for word in _REFUSED):
            given = (
                f"the file {self._credentials!r} (credentials)" if self._credentials else "no credentials: name a file"
            )
            return f"it does not take our credentials ({str(error).removeprefix('nats: ')}); it was given {given}"
        return None

    def _why_not_believed(self, error: ssl.SSLCertVerificationError) -> str:
        said = error.verify_message.rstrip(".")
        if "expired" in said or "not yet valid" in said:
            return f"its certificate is out of date ({said}): renew the broker's certificate, or correct a clock"
        if "ostname mismatch" in said or "IP address mismatch" in said:
            return f"its certificate is another host's ({said}): use a name that is in it"
        believed = f"the file {self._tls.ca!r} (tls_ca)" if self._tls.ca else "this system (name a file with tls_ca)"
        return f"its certificate is by an authority that {believed} does not hold ({said})"

    def _about_our_certificate(self) -> str:
        if self._tls.cert is None:
            return ": if it wants a client's certificate, name one with tls_cert and tls_key"
        return f": it was given {self._tls.cert!r} (tls_cert), which it must know and which must not have expired"

    async def _rest(self, why: str) -> None:
        self._on_refused(f"{REFUSED}: {why}; {_KEEPS}")
        for task in (self._reading_task, self._ping_interval_task, self._flusher_task):
            if task is not None:
                task.cancel()
        self._drop()
        pause_s = min(2.0**self._refusals, REFUSED_S_MAX)
        self._refusals += 1
        await asyncio.sleep(pause_s * random.uniform(0.75, 1.0))  # noqa: S311 - spreads agents, hides nothing

    def _drop(self) -> None:
        """Let go of the connection at once. After a handshake that failed nobody would ever tell that it is closed, and nats-py
        would wait for that."""
        transport, self._transport = self._transport, None
        writer = getattr(transport, "_io_writer", None)
        with suppress(Exception):
            if writer is not None:
                writer.transport.abort()
            elif transport is not None:
                transport.close()  # type: ignore[no-untyped-call]  # nats-py annotates no transport


def _said(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).replace("_", " ").lower()
