"""Leases, the plan: everybody's share is fair, nothing is held twice for long, and who is alone holds everything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_collector.leases import HOLD_S, LEASE_TTL_S, LeaseBook, Member, Owner
from headrace_collector.process import Process

PARTITIONS = 16


def book(name: str, partitions: int = PARTITIONS, since_ns: int = 1) -> LeaseBook:
    return LeaseBook(name, partitions, since_ns)


class Broker:
    """Leases as the broker keeps them, without time: granted to the first who claims."""

    def __init__(self, *books: LeaseBook) -> None:
        self.books = list(books)
        self.owners: dict[int, str] = {}
        self.now = 100.0

    def beat(self) -> None:
        """One beat of everybody, in turn."""
        for book in self.books:
            for other in self.books:
                book.heard(other.me, self.now)
            plan = book.plan(self.now)
            for partition in plan.release:
                book.dropped(partition)
                del self.owners[partition]
            for partition in plan.claim:
                if self.owners.setdefault(partition, book.collector) == book.collector:
                    book.granted(partition, self.now)
                else:
                    book.refused(partition, self.now)
        self.now += 0.5

    def kill(self, book: LeaseBook) -> None:
        """A collector is gone; what it held has run out."""
        self.books.remove(book)
        self.owners = {partition: name for partition, name in self.owners.items() if name != book.collector}
        self.now += LEASE_TTL_S


def test_alone_takes_everything_at_once() -> None:
    """The only collector claims every partition at its first beat."""
    broker = Broker(book("a"))
    broker.beat()
    assert broker.books[0].held == list(range(PARTITIONS))


@given(st.lists(st.sampled_from(["join", "kill"]), max_size=8), st.integers(1, 32))
def test_shares_settle_whoever_comes_and_goes(changes: list[str], partitions: int) -> None:
    """After any comings and goings each partition has one holder, and no one more than its rounded-up share."""
    broker = Broker(book("c0", partitions))
    for number, change in enumerate(changes, 1):
        if change == "join":
            broker.books.append(book(f"c{number}", partitions, since_ns=number))
        elif len(broker.books) > 1:
            broker.kill(broker.books[0])
        broker.beat()
    for _ in range(4):
        broker.beat()
    held = [partition for each in broker.books for partition in each.held]
    assert sorted(held) == list(range(partitions))
    assert max(len(each.held) for each in broker.books) <= -(-partitions // len(broker.books))


def test_newcomer_gets_its_share_in_two_beats() -> None:
    """The holder of everything gives half of it back when it hears of a second collector."""
    broker = Broker(book("a"))
    broker.beat()
    broker.books.append(book("b", since_ns=2))
    for _ in range(2):
        broker.beat()
    assert [len(each.held) for each in broker.books] == [8, 8]


def test_holder_stops_before_anybody_else_may_start() -> None:
    """A lease that was not renewed is overdue on its holder's clock while the broker still keeps it."""
    mine = book("a")
    mine.granted(3, sent_at=100.0)
    assert mine.overdue(100.0 + HOLD_S - 0.01) == []
    assert mine.overdue(100.0 + HOLD_S) == [3]
    assert HOLD_S < LEASE_TTL_S


def test_silent_collector_is_forgotten() -> None:
    """Whoever has not announced itself for a lease's life has no share any more."""
    mine = book("a")
    mine.heard(book("b").me, 100.0)
    assert len(mine.plan(100.0).claim) == PARTITIONS // 2
    assert len(mine.plan(100.0 + LEASE_TTL_S).claim) == PARTITIONS


def test_other_division_waits_for_the_elder() -> None:
    """A collector that divides the experiments otherwise holds nothing while an older one is alive."""
    old, new = book("a", 16, since_ns=1), book("b", 8, since_ns=2)
    old.heard(new.me, 100.0)
    new.heard(old.me, 100.0)
    assert old.misfit(100.0) is None
    assert new.misfit(100.0) == old.me
    assert new.plan(100.0).claim == []


@pytest.mark.parametrize(
    "data",
    [b"", b"\xc1", b"\x80", b"\x81\xa1v\x02", Member("a", 16, 1, ["x"]).encode(), b"\x93\x01\x02\x03"],  # type: ignore[list-item]
)
def test_hostile_announcement_is_ignored(data: bytes) -> None:
    """Bytes that are no announcement of this version mean nothing."""
    assert Member.decode(data) is None


def test_announcement_comes_back_as_it_went() -> None:
    """What a collector says about itself is what others read."""
    me = Member("a", 16, 12, [1, 2], Process.own())
    assert Member.decode(me.encode()) == me


@pytest.mark.parametrize(
    "data",
    [None, b"", b"\xc1", b"x" * 32, Owner("a", Process(pid="1")).encode(), Owner(7, Process()).encode()],  # type: ignore[arg-type]
)
def test_lease_that_says_nothing_names_no_owner(data: bytes | None) -> None:
    """A lease of another version or of nobody's making is left to run out."""
    assert Owner.decode(data) is None


def test_lease_comes_back_as_it_went() -> None:
    """Whoever reads a lease learns whose it is."""
    owner = Owner("a", Process.own())
    assert Owner.decode(owner.encode()) == owner
