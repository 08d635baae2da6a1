"""What the commands share that ask agents or collectors something: an operator's client, and the error that nobody answers."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from headrace.command.probes import Access
from headrace.service.secrets import masked
from headrace_proto.errors import HeadraceError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from headrace.service.nats_py import Client

CONNECT_S: Final = 10.0


class NobodyAnswers(HeadraceError, TimeoutError):
    """Nobody has answered: no broker, or no part that has, or did, what was asked for."""


class Asking(NamedTuple):
    """A connection to the broker."""

    client: Client
    said: list[str]
    """What became of the connection since, for an error to tell."""


@asynccontextmanager
async def asking(broker: Access) -> AsyncIterator[Asking]:
    """Connected as an operator. Raises `NobodyAnswers` when the broker does not answer in CONNECT_S."""
    from headrace.service.broker import connect
    from headrace.service.rights import OPERATOR_NAME

    said: list[str] = []
    try:
        async with asyncio.timeout(CONNECT_S):
            client = await connect(
                broker.url,
                name=OPERATOR_NAME,
                credentials=broker.credentials,
                tls=broker.tls,
                on_event=said.append,
            )
    except TimeoutError:
        why = "; ".join(said) or "silence"
        raise NobodyAnswers(f"the broker {masked(broker.url)} does not answer: {why}; see --nats") from None
    try:
        yield Asking(client, said)
    finally:
        await client.close()
