"""An experiment of noisy channels at 20 Hz, committed and compacted as a collector does it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import numpy as np

from headrace_proto import events
from headrace_proto.events import ChannelType, Kind, Role
from headrace_proto.ids import random_id
from headrace_proto.store.chain import Batch, Chain
from headrace_proto.store.columns import encoded_points

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace_proto.store.backend import Store

CHANNELS: Final = [f"channel {n}" for n in range(8)]
RATE_HZ: Final = 20
_PERIOD_NS: Final = 10**9 // RATE_HZ
_JITTER_NS: Final = 2_000_000


def written(
    store: Store,
    project: str,
    steps: int,
    commit_steps: int,
    born: type[np.floating] = np.float64,
    look: Callable[[Chain], None] = lambda _: None,
) -> Chain:
    """The chain after so many steps of all channels, of values that were `born` as such floats. `look` is shown each commit."""
    chain, noise = Chain(store, project, random_id()), np.random.default_rng(1)
    start_ns, source, position = time.time_ns(), random_id(), 0
    first = b"".join(
        [
            events.pack(Kind.OPEN, start_ns, {"role": Role.OWNER}),
            events.pack(Kind.CREATE, start_ns, {"name": "bench", "created_ns": start_ns}),
            *(events.pack(Kind.CHANNEL, n, name, int(ChannelType.NUMERIC)) for n, name in enumerate(CHANNELS)),
        ]
    )
    for step in range(0, steps, commit_steps):
        raw = (first if step == 0 else b"") + _points(step, commit_steps, start_ns, noise, born)
        chain.commit([Batch(source, position, position + len(raw), raw)], now_ns=time.time_ns())
        position += len(raw)
        look(chain)
        if chain.compact(now_ns=time.time_ns()):
            look(chain)
    return chain


def _points(first_step: int, steps: int, start_ns: int, noise: np.random.Generator, born: type[np.floating]) -> bytes:
    """So many steps of all channels, as a loop logs them."""
    numbers = np.arange(steps * len(CHANNELS))
    at = first_step + numbers // len(CHANNELS)
    times_ns = start_ns + at * _PERIOD_NS + noise.integers(0, _JITTER_NS, len(numbers))
    values = (noise.normal(size=len(numbers)) / (1 + at * 1e-6)).astype(born).astype(np.float64)
    return encoded_points(numbers % len(CHANNELS), at.astype(np.float64), times_ns, values)
