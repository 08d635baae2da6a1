"""The streams, kept there: whoever deletes one, or loses the broker's disk, finds it made again, and the journals fill it."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from headrace.service.broker import ensure_streams
from headrace.service.cancelling import stay_cancelled
from headrace.service.logs import told
from headrace.service.nats_py import JetStreamContext
from headrace.service.pausing import comes_within
from headrace_collector.keeper import TRANSIENT
from headrace_proto.errors import StreamUnsuitable

_LOG: Final = logging.getLogger(__name__)

LOOK_S: Final = 5.0
"""Between two looks; a lost connection is looked behind at once."""
_AGAIN_S: Final = 0.2


class Streams:
    """Makes what is missing, for as long as `run` runs."""

    def __init__(self, js: JetStreamContext, replicas: int) -> None:
        self._js: Final = js
        self._replicas: Final = replicas
        self._soon: Final = asyncio.Event()
        self.fault = ""
        """What somebody made of a stream that must not stay so; "" while all is well."""

    async def ensure(self) -> None:
        """Make what is missing. Raises `StreamUnsuitable`, and what `TRANSIENT` lists."""
        await ensure_streams(self._js, replicas=self._replicas)

    def look_soon(self) -> None:
        """The broker was away: look when it is back, not only when it is time."""
        self._soon.set()

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self._pause()
            try:
                await self.ensure()
                self.fault = ""
            except StreamUnsuitable as error:
                if self.fault != str(error):
                    _LOG.error("a stream was changed", extra={"error": str(error)})
                self.fault = str(error)
            except TRANSIENT as error:
                _LOG.debug("the streams could not be looked at", extra={"error": told(error)})
                self._soon.set()
                await asyncio.sleep(_AGAIN_S)
            stay_cancelled()

    async def _pause(self) -> None:
        await comes_within(self._soon, LOOK_S)
        self._soon.clear()
