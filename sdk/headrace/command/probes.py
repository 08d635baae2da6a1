"""Asking the running parts how they are: their health servers, and the broker for its streams."""

from __future__ import annotations

import asyncio
import http.client
import json
from typing import Any, Final, NamedTuple

from headrace.command.readiness import HTTP_S, well
from headrace.command.running import Running
from headrace.service.ports import LOOPBACK
from headrace.service.secrets import masked
from headrace.service.settings import ServiceSettings
from headrace.service.tls import Tls
from headrace_proto.errors import HeadraceError

ANSWER_BYTES_MAX: Final = 1024 * 1024
BROKER_S: Final = 3.0


class Answer(NamedTuple):
    """What a part's health server says."""

    ok: bool
    facts: dict[str, Any]


class StreamState(NamedTuple):
    """A stream of the broker. `messages` is -1 when it does not exist."""

    name: str
    messages: int
    bytes: int
    bytes_max: int
    problem: str = ""


class Broker(NamedTuple):
    """What the broker says, or why it does not."""

    url: str
    problem: str
    version: str = ""
    streams: tuple[StreamState, ...] = ()


def healthz(port: int) -> Answer | None:
    """A part's word on itself, or None when nothing answers on the port."""
    got = _get(port, "/healthz")
    if got is None:
        return None
    status, body = got
    if status == http.client.UNAUTHORIZED:  # `up` has a token for its parts' figures: how they are is told without
        return Answer(well(port) is True, {"reasons": ["what it says of itself wants the token of metrics_token_file"]})
    try:
        facts = json.loads(body)
    except ValueError:
        return None
    return Answer(status == http.client.OK, facts if isinstance(facts, dict) else {})


def _get(port: int, path: str) -> tuple[int, bytes] | None:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=HTTP_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read(ANSWER_BYTES_MAX)
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


class Access(NamedTuple):
    """How a broker is reached."""

    url: str
    credentials: str | None = None
    tls: Tls | None = None


def access(settings: ServiceSettings, there: Running | None, *, chosen: bool) -> Access:
    """To the broker of the running `up`, which needs no key; else, or when one was `chosen`, to that of the settings."""
    if there is not None and not chosen:
        return Access(there.nats)
    return Access(settings.nats, settings.credentials_file, settings.tls)


def broker(to: Access) -> Broker:
    """The broker and its streams. One that refuses is not waited for, one that is silent at most BROKER_S."""
    try:
        return asyncio.run(asyncio.wait_for(_asked(to), BROKER_S))
    except TimeoutError:
        return Broker(masked(to.url), f"it does not answer within {BROKER_S:.0f} s")
    except (HeadraceError, OSError) as error:
        return Broker(masked(to.url), str(error))


async def _asked(to: Access) -> Broker:
    from headrace.service.broker import connect
    from headrace.service.nats_py import NatsError
    from headrace.service.rights import OPERATOR_NAME

    shown = masked(to.url)
    refused: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def heard(event: str) -> None:
        if not refused.done():
            refused.set_result(event)

    connecting = asyncio.ensure_future(
        connect(to.url, name=OPERATOR_NAME, credentials=to.credentials, tls=to.tls, on_event=heard)
    )
    try:
        await asyncio.wait((connecting, refused), return_when=asyncio.FIRST_COMPLETED)
        if not connecting.done():
            return Broker(shown, refused.result().removeprefix("broker: "))
        client = connecting.result()
        try:
            return Broker(shown, "", str(client.connected_server_version), await _streams(client))
        except NatsError as error:
            return Broker(shown, f"JetStream does not answer: {error}")
        finally:
            await client.close()
    finally:
        connecting.cancel()
        await asyncio.wait((connecting,))


async def _streams(client: Any) -> tuple[StreamState, ...]:
    from headrace.service.broker import check_stream, stream_configs
    from headrace.service.nats_py import NotFoundError

    js = client.jetstream(timeout=BROKER_S)
    found = []
    for wanted in stream_configs():
        try:
            info = await js.stream_info(wanted.name)
        except NotFoundError:
            found.append(
                StreamState(str(wanted.name), -1, 0, 0, "it does not exist: the collector makes it at its start")
            )
            continue
        try:
            check_stream(wanted, info.config)
            problem = ""
        except HeadraceError as error:
            problem = str(error)
        size = info.state.bytes, info.config.max_bytes or 0
        found.append(StreamState(str(wanted.name), info.state.messages, *size, problem))
    return tuple(found)
