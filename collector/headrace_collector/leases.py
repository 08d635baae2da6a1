"""Who works which partition: the plan, pure. `keeper` carries it out over NATS.

A collector that is alive announces itself every beat, with what it holds. Each aims at an equal share of the partitions,
rounded up: it gives back what it holds beyond that and claims what nobody holds. A lease is a message in HR_LEASES that lives
LEASE_TTL_S and is written by compare-and-set on its subject's last sequence. Nobody compares clocks of two hosts: a holder
doubts by its own monotonic clock at two thirds of the lease's life, counted from before it asked for it: it goes on with what it
has, since a broker that elects a leader renews nobody's lease and grants none, and takes nobody's place until its lease is
renewed, or refused. A holder that is seen dead, which only its own machine can see, is succeeded at once.

Leases only spare work. Two collectors on one partition are safe: the store's commits let one of them win.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgpack

from headrace_collector.process import UNKNOWN, Process

LEASE_TTL_S: Final = 3
"""Whole seconds, as the broker takes them. With two, a machine that was merely busy gave up its leases."""
HOLD_S: Final = LEASE_TTL_S * 2 / 3
"""A holder that could not renew doubts here, a third of the life before anyone else may start."""
BEAT_S: Final = LEASE_TTL_S / 6
"""Announcing, renewing, claiming: a renewal may fail three times before its holder doubts."""
_VERSION: Final = 2


class Owner(NamedTuple):
    """What a lease says: whose it is."""

    collector: str
    process: Process

    def encode(self) -> bytes:
        """The lease's payload."""
        packed: bytes = msgpack.packb({"v": _VERSION, **self._asdict()})
        return packed

    @classmethod
    def decode(cls, data: bytes | None) -> Owner | None:
        """The owner in `data`; None when it is anything else."""
        try:
            fields = _unpacked(data or b"")
            owner = cls(fields["collector"], Process(*fields["process"]))
        except Exception:  # hostile bytes raise a handful of unrelated types, and the reaction to each is the same
            return None
        return owner if type(owner.collector) is str and _is_process(owner.process) else None


class Member(NamedTuple):
    """What a collector says about itself."""

    collector: str
    partitions: int  # into how many it divides the experiments
    since_ns: int  # when it started, by its own clock: only ever used to choose, never to measure
    held: list[int]
    process: Process = UNKNOWN

    def encode(self) -> bytes:
        """The announcement as bytes."""
        packed: bytes = msgpack.packb({"v": _VERSION, **self._asdict()})
        return packed

    @classmethod
    def decode(cls, data: bytes) -> Member | None:
        """The announcement in `data`; None when it is anything else."""
        try:
            fields = _unpacked(data)
            member = cls(**{**fields, "process": Process(*fields["process"])})
        except Exception:  # hostile bytes raise a handful of unrelated types, and the reaction to each is the same
            return None
        rightly = [type(value) for value in member] == [str, int, int, list, Process] and _is_process(member.process)
        return member if rightly and all(type(partition) is int for partition in member.held) else None


def _unpacked(data: bytes) -> dict[str, Any]:
    """The fields of a message of this version. Raises anything, for anything else."""
    fields: dict[str, Any] = msgpack.unpackb(data, raw=False)
    if fields.pop("v") != _VERSION:
        raise ValueError("another version")
    return fields


def _is_process(process: Process) -> bool:
    return [type(value) for value in process] == [str, int, int, int]


class Plan(NamedTuple):
    """What to do at a beat."""

    claim: list[int]
    release: list[int]


class LeaseBook:
    """What one collector knows of the others and holds itself. Times are its own monotonic clock's."""

    def __init__(self, collector: str, partitions: int, since_ns: int, process: Process = UNKNOWN) -> None:
        self.collector: Final = collector
        self.partitions: Final = partitions
        self.process: Final = process
        self._since_ns: Final = since_ns
        self._held: dict[int, float] = {}  # partition -> when the claim or renewal that succeeded was sent
        self._others: dict[str, tuple[Member, float]] = {}
        self._refused: dict[int, float] = {}  # partition -> when a claim of it failed
        self.leaving = False
        """Set by a collector that stops: it wants no share any more."""

    @property
    def held(self) -> list[int]:
        """The partitions that this collector works."""
        return sorted(self._held)

    @property
    def me(self) -> Member:
        """What to announce."""
        return Member(self.collector, self.partitions, self._since_ns, self.held, self.process)

    def heard(self, member: Member, now: float) -> bool:
        """A collector announced itself. True when it is new here and should be told at once who else there is."""
        if member.collector == self.collector:
            return False
        new = member.collector not in self._others
        self._others[member.collector] = (member, now)
        return new

    def left(self, collector: str) -> None:
        """A collector said that it goes."""
        self._others.pop(collector, None)

    def granted(self, partition: int, sent_at: float) -> None:
        """A claim or a renewal that was sent at `sent_at` succeeded."""
        self._held[partition] = sent_at
        self._refused.pop(partition, None)

    def refused(self, partition: int, now: float) -> None:
        """A claim or a renewal failed: somebody else holds the partition."""
        self._held.pop(partition, None)
        self._refused[partition] = now

    def dropped(self, partition: int) -> None:
        """This collector does not work the partition any more."""
        self._held.pop(partition, None)

    def overdue(self, now: float) -> list[int]:
        """Partitions whose leases could not be renewed in time."""
        return [partition for partition, sent_at in self._held.items() if now - sent_at >= HOLD_S]

    def others(self, now: float) -> list[Member]:
        """The other collectors that are alive."""
        self._others = {name: known for name, known in self._others.items() if now - known[1] < LEASE_TTL_S}
        return [member for member, _ in self._others.values()]

    def misfit(self, now: float) -> Member | None:
        """The eldest collector, if it divides the experiments otherwise: until it is gone, this one must hold nothing."""
        eldest = min([self.me, *self.others(now)], key=lambda member: (member.since_ns, member.collector))
        return eldest if eldest.partitions != self.partitions else None

    def plan(self, now: float) -> Plan:
        """Which partitions to claim, and which to give back."""
        others = self.others(now)
        share = 0 if self.leaving or self.misfit(now) else -(-self.partitions // (1 + len(others)))
        held = self.held
        taken = {partition for member in others for partition in member.held}
        taken |= {partition for partition, at in self._refused.items() if now - at < BEAT_S}
        free = [partition for partition in self._preferred() if partition not in self._held and partition not in taken]
        return Plan(claim=free[: max(share - len(held), 0)], release=held[share:])

    def _preferred(self) -> list[int]:
        """All partitions, beginning at a place of one's own: collectors that start together seldom want the same."""
        start = sum(self.collector.encode()) % self.partitions
        return [*range(start, self.partitions), *range(start)]
