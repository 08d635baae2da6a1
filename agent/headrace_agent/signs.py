"""Signs of life: the agent says, every few seconds, that it is there, and which experiments have writers on its node.

It costs one message for 200 experiments, kept by no stream: whoever misses one hears the next. Collectors remember when they heard
it last, and readers call an experiment that is running without such signs *not responding*.
"""

from __future__ import annotations

import os
import time
from hashlib import sha256
from typing import Final

from headrace_agent.tail import Tail
from headrace_agent.ticks import tick
from headrace_agent.uplink import Uplink
from headrace_proto import subjects
from headrace_proto.home import Home
from headrace_proto.journal import machine
from headrace_proto.messages import EXPERIMENTS_A_SIGN, Sign, encode

BEAT_S: Final = 10.0
LOOK_S: Final = 1.0
"""How soon it is said that an experiment has begun."""
HOST_CHARACTERS_MAX: Final = 100


class SignsOfLife:
    """Says that this agent is there, as long as `run` runs."""

    def __init__(self, home: Home, tail: Tail, uplink: Uplink, site: str) -> None:
        self._tail = tail
        self._uplink = uplink
        self._subject = subjects.sign(site)
        self._node = sha256(f"{machine.host_name()}:{home.root}".encode()).hexdigest()[:16]
        self._host = os.uname().nodename[:HOST_CHARACTERS_MAX]
        self._said: set[str] = set()
        self._seen: set[str] = set()  # sources
        self._due_s = 0.0
        self._links = 0

    async def run(self) -> None:
        """Say so every BEAT_S, sooner when an experiment or a link is a new one, and once more when cancelled."""
        try:
            while True:
                due = self._uplink.links != self._links or time.monotonic() >= self._due_s
                if due or not self._tail.lanes.keys() <= self._seen:
                    experiments = self._alive()
                    if due or not experiments <= self._said:
                        await self._say(experiments)
                await tick(LOOK_S)
        finally:
            await self._say(self._alive())

    async def _say(self, experiments: set[str]) -> None:
        self._said, self._links, self._due_s = experiments, self._uplink.links, time.monotonic() + BEAT_S
        ids = [bytes.fromhex(experiment) for experiment in sorted(experiments)]
        for first in range(0, max(len(ids), 1), EXPERIMENTS_A_SIGN):
            sign = Sign(self._node, self._host, b"".join(ids[first : first + EXPERIMENTS_A_SIGN]))
            await self._uplink.tell(self._subject, encode(sign))

    def _alive(self) -> set[str]:
        """The experiments that a process of this machine is logging to."""
        self._seen = set(self._tail.lanes)
        sources = (lane.source for lane in self._tail.lanes.values())
        return {source.header.experiment for source in sources if source.is_written_here}
