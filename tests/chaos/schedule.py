"""What is done to whom and when: a function of the seed alone, so that a run can be had again.

Only the schedule is repeatable, not what it meets: where in its work a process is when the signal comes, the machine decides.
"""

from __future__ import annotations

import random
from typing import Final, NamedTuple

TRAINERS: Final = ("trainer-0", "trainer-1", "trainer-2")
COLLECTORS: Final = ("collector-0", "collector-1")
AGENT: Final = "agent"
BROKER: Final = "nats-server"
LINKS: Final = ("agent", *COLLECTORS)


class Fault(NamedTuple):
    """One fault. `for_s`: how long the process stays dead or stopped, or the link useless."""

    at_s: float
    what: str
    target: str
    for_s: float


class Kind(NamedTuple):
    """A kind of fault: how often it is drawn, and how long it lasts."""

    what: str
    targets: tuple[str, ...]
    weight: float
    least_s: float
    most_s: float


KINDS: Final = (
    Kind("kill", TRAINERS, 5, 0.0, 1.0),
    Kind("stop", TRAINERS, 1, 0.1, 2.0),
    Kind("finish", TRAINERS, 1, 0.0, 0.5),
    Kind("kill", (AGENT,), 4, 0.0, 2.0),
    Kind("stop", (AGENT,), 1, 0.1, 4.0),
    Kind(
        "damage", (AGENT,), 1, 0.8, 2.0
    ),  # and while it is dead, one of its trainers dies, and a byte of that journal flips
    Kind("kill", COLLECTORS, 6, 0.0, 3.0),
    Kind(
        "stop", COLLECTORS, 3, 0.1, 6.0
    ),  # beyond the life of a lease: another takes over, and it comes back to find that out
    Kind("kill", (BROKER,), 3, 0.0, 2.0),
    Kind("stop", (BROKER,), 1, 0.1, 4.0),
    Kind("cut", LINKS, 1, 0.0, 0.0),
    Kind("deaf", LINKS, 2, 0.1, 3.0),  # acknowledgements are eaten
    Kind("silent", LINKS, 2, 0.1, 12.0),  # beyond the pings: the link is given up
)
STORE: Final = "store"
FLAKY: Final = tuple(
    Kind(what, (STORE,), 0.7, 0.2, 4.0)
    for what in ("500", "503", "409", "served, 500", "reset", "served, reset", "half", "silent")
)
"""What a store over the network does; see `tests.faults.http_proxy`."""
LOSSY: Final = (
    Kind("lose newest", (BROKER,), 2, 0.0, 0.5),
    Kind("lose all", (BROKER,), 1, 0.0, 0.5),
)
"""The broker is killed, and what it had acknowledged is gone when it comes back: the end of its newest blocks, or everything."""
LOSSY_EACH: Final = 8
"""In a lossy run every so many-th fault is one of those."""
FINALE_S: Final = 2.0
ROUNDING_S: Final = 0.01
"""Times are told in milliseconds: a part's next fault comes that much after its last."""
KILLS: Final = frozenset({"kill", "damage", "lose newest", "lose all"})


def schedule(seed: int, seconds: float, mean_s: float, *, lossy: bool = False, remote: bool = False) -> list[Fault]:
    """Faults from now until `seconds`, one in `mean_s` on average. The last are the worst: see `_finale`."""
    dice = random.Random(seed)
    busy_until: dict[str, float] = {}
    faults: list[Fault] = []
    now, last = mean_s, seconds - FINALE_S
    while now < last:
        kinds = LOSSY if lossy and len(faults) % LOSSY_EACH == LOSSY_EACH // 2 else KINDS + FLAKY * remote
        fault = _draw(dice, kinds, now, busy_until, last - ROUNDING_S)
        if fault is not None:
            faults.append(fault)
        now += dice.uniform(0.2, 1.8) * mean_s
    return [*faults, *_finale(seconds, lossy=lossy)]


def _finale(seconds: float, *, lossy: bool) -> list[Fault]:
    """Nobody empties the stream for a moment, and then the broker goes, with what it has or without: how long does healing take?"""
    began, down_s = seconds - FINALE_S, FINALE_S / 4
    stops = [Fault(began, "stop", collector, FINALE_S) for collector in COLLECTORS]
    return [*stops, Fault(seconds - down_s, "lose all" if lossy else "kill", BROKER, down_s)]


def _draw(
    dice: random.Random, kinds: tuple[Kind, ...], now: float, busy_until: dict[str, float], seconds: float
) -> Fault | None:
    kind = dice.choices(kinds, [kind.weight for kind in kinds])[0]
    target = dice.choice(kind.targets)
    part = f"link of {target}" if kind.what in ("cut", "deaf", "silent") else target
    for_s = min(dice.uniform(kind.least_s, kind.most_s), max(seconds - now, 0.0))
    if busy_until.get(part, 0.0) > now:
        return None
    busy_until[part] = now + for_s + ROUNDING_S
    return Fault(round(now, 3), kind.what, target, round(for_s, 3))
