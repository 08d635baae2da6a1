"""nats-py as all of Headrace imports it: without aiohttp.

nats-py imports aiohttp wherever it is installed, as it is with s3fs: a fifth of an agent's memory and start, for brokers behind a
ws:// URL. Here it does so for those alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final

from headrace.service.hiding import hidden
from headrace_proto.errors import MissingExtra

_FOR_WEBSOCKETS: Final = "aiohttp", "multidict"
_TRANSPORT: Final = "nats.aio.transport"


# aiohttp that something has imported already, and that therefore costs nothing more, is found
with hidden(*_FOR_WEBSOCKETS):
    import_module(_TRANSPORT)

from nats.aio.client import Client, Server  # noqa: E402
from nats.aio.msg import Msg  # noqa: E402
from nats.errors import Error as NatsError  # noqa: E402
from nats.errors import MaxPayloadError  # noqa: E402
from nats.js import JetStreamContext  # noqa: E402
from nats.js.api import (  # noqa: E402
    AckPolicy,
    ConsumerConfig,
    DiscardPolicy,
    Header,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import APIError, NotFoundError  # noqa: E402
from nats.js.errors import Error as JetStreamError  # noqa: E402

__all__ = [
    "APIError",
    "AckPolicy",
    "Client",
    "ConsumerConfig",
    "DiscardPolicy",
    "Header",
    "JetStreamContext",
    "JetStreamError",
    "MaxPayloadError",
    "Msg",
    "NatsError",
    "NotFoundError",
    "RetentionPolicy",
    "Server",
    "StorageType",
    "StreamConfig",
    "with_websockets",
]


def with_websockets() -> None:
    """Let clients made from now on talk to ws:// and wss:// URLs. Raises `MissingExtra`."""
    transport = import_module(_TRANSPORT)
    for name in _FOR_WEBSOCKETS:
        try:
            setattr(transport, name, import_module(name))
        except ImportError:
            raise MissingExtra.named("a broker's ws:// or wss:// URL", "websocket") from None
