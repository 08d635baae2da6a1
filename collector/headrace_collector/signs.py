"""Signs of life, as collectors hear them: who was last heard when, kept in one object of the store.

Every collector listens, so that each may take over; only the one that has the first partition writes. A node that is heard and no
longer names an experiment has seen its end; one that is silent is remembered with what it named last.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, NamedTuple

from headrace.service.nats_py import Client, Msg
from headrace_collector.shared import Shared
from headrace_proto import messages, subjects
from headrace_proto.errors import HeadraceError
from headrace_proto.messages import Sign
from headrace_proto.store.signs import NodeSigns, Signs, read_signs, write_signs

_LOG: Final = logging.getLogger(__name__)

LOCAL_WRITE_S: Final = 5.0
REMOTE_WRITE_S: Final = 20.0
"""4,300 PUTs a day, however many experiments and nodes there are: two cents."""
FORGOTTEN_S: Final = 30.0
"""What a node that is heard has not named for so long has ended there: three of its beats."""
NODES_MAX: Final = 10_000
EXPERIMENTS_MAX: Final = 200_000
"""Of all nodes together: whoever floods the subject crowds out, first, whoever has been silent for longest."""
_ID_BYTES: Final = 16


class _Node(NamedTuple):
    """A node's agent, and when each of its experiments was last named, by the wall clock."""

    host: str
    heard_s: float
    experiments: dict[str, float]


class SignsHeard:
    """Listens as long as `run` runs, and writes while `writes()` says that this is the collector to do so."""

    def __init__(self, client: Client, shared: Shared, writes: Callable[[], bool]) -> None:
        self._client: Final = client
        self._shared: Final = shared
        self._writes: Final = writes
        self._nodes: dict[tuple[str, str], _Node] = {}
        self._count = 0  # of experiments, of all nodes
        self._read = False
        self._written: Signs | None = None

    async def run(self) -> None:
        """Serve until cancelled."""
        await self._client.subscribe(subjects.sign("*"), cb=self._on_sign)
        period_s = LOCAL_WRITE_S if self._shared.store.local else REMOTE_WRITE_S
        while True:
            await asyncio.sleep(period_s)
            if not self._writes():
                self._read = False  # another writes: what it knows is to be read when it is this one's turn
                continue
            try:
                await self._write()
            except (OSError, HeadraceError) as error:  # the commits say that the store is out of order
                _LOG.warning("signs of life are not written", extra={"error": repr(error)})

    async def _on_sign(self, message: Msg) -> None:
        sign = messages.decode(Sign, message.data)
        if sign is not None and len(sign.experiments) % _ID_BYTES == 0:
            self.hear(message.subject.rpartition(".")[2], sign, time.time())

    def hear(self, site: str, sign: Sign, now_s: float) -> None:
        """A node was heard now."""
        known = self._nodes.pop((site, sign.node), None)
        experiments = known.experiments if known else {}
        self._count -= len(experiments)
        raw = sign.experiments
        for first in range(0, len(raw), _ID_BYTES):
            experiments[raw[first : first + _ID_BYTES].hex()] = now_s
        self._count += len(experiments)
        self._nodes[site, sign.node] = _Node(sign.host, now_s, experiments)  # the one heard last stands last
        self._make_room()

    def _make_room(self) -> None:
        while len(self._nodes) > NODES_MAX or self._count > EXPERIMENTS_MAX:
            self._count -= len(self._nodes.pop(next(iter(self._nodes))).experiments)

    def signs(self) -> Signs:
        """What is to be remembered."""
        found = []
        for (site, name), node in self._nodes.items():
            named = {one: at for one, at in node.experiments.items() if node.heard_s - at <= FORGOTTEN_S}
            node.experiments.clear()
            node.experiments.update(named)
            if named:
                heard_at = datetime.fromtimestamp(node.heard_s, UTC)
                found.append(
                    NodeSigns(site=site, node=name, host=node.host, heard_at=heard_at, experiments=tuple(named))
                )
        self._count = sum(len(node.experiments) for node in self._nodes.values())
        return Signs(nodes=tuple(found))

    async def _write(self) -> None:
        if not self._read:
            self._recall(await self._shared.call(read_signs, self._shared.store))
            self._read = True
        signs = self.signs()
        if signs != self._written:
            await self._shared.call(write_signs, self._shared.store, signs)
            self._written = signs

    def _recall(self, signs: Signs) -> None:
        """What the writer before this one knew of nodes that were not heard since."""
        older = {
            (node.site, node.node): _Node(
                node.host, node.heard_at.timestamp(), dict.fromkeys(node.experiments, node.heard_at.timestamp())
            )
            for node in signs.nodes
            if (node.site, node.node) not in self._nodes
        }
        self._nodes = {**older, **self._nodes}
        self._count += sum(len(node.experiments) for node in older.values())
        self._make_room()
        self._written = signs
