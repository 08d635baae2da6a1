"""Writers that sleep at any place, for any time, while others commit, sweep and remove: nothing live is lost by it."""

from __future__ import annotations

import time
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

from headrace_proto.errors import CommitConflict
from headrace_proto.events import Kind
from headrace_proto.limits import RETENTION_S
from headrace_proto.store import layout
from headrace_proto.store.chain import LATE_S, Chain, FileDone, boot_clock
from headrace_proto.store.sweeping import sweep
from headrace_proto.store.uploads import Upload
from tests.proto.store_base.faults import Call, FaultyStore
from tests.proto.store_core.script import (
    EXPERIMENT,
    NOW_NS,
    PROJECT,
    SECOND_NS,
    Source,
    memory_store,
    points_of,
    spooled,
)
from tests.proto.store_core.sweeps import (
    COMMITS,
    FOLDER,
    HOUR_S,
    TimedStore,
    commit,
    grown,
    leave_a_part,
    missing,
    naps,
)

if TYPE_CHECKING:
    from headrace_proto.store.backend import Store


@pytest.fixture
def store(files: Store) -> TimedStore:
    return TimedStore(files)


# -- Committers that sleep ----------------------------------------------------------------------------------------------


def rich(source: Source) -> Source:
    """Everything that a commit may write: points, a text, an image, artifacts."""
    source.point("x", 1, 0.5).text("log", 1, "hello").image("shots", 1, b"png")
    return source.artifact("a.txt", b"1").artifact("code.py", b"2", kind="source")


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("slept_s", [0.0, 1000.0, 10 * HOUR_S])
def test_a_committer_may_sleep_before_any_of_its_writes(first: bool, slept_s: float) -> None:
    """While it sleeps before each write in turn, everything is swept: its commit then names nothing that is missing."""

    def slept_before(n: int) -> bool:
        store = TimedStore(memory_store())
        source = Source().create()
        if not first:
            # so that there is a side file
            commit(store, *(Source(f"{number:032x}", "rank").close() for number in range(70)))
            commit(store, source.artifact("old.txt", b"0"))
            commit(store, source.event(Kind.UNLINK, source.time_ns + SECOND_NS, ["old.txt", "a.txt"]))
        source.time_ns += 2 * SECOND_NS
        chain, batch = store.chain(), rich(source).batch()

        def meanwhile() -> None:
            for _ in range(2):
                store.now_s += slept_s
                store.sweep()

        with store.nap(n, meanwhile) as nap:
            settle(chain, batch)
        assert missing(store) == set(), f"slept before write {n}"
        assert len(points_of(store.chain())) == 1
        assert set(store.chain().artifacts()) == {"a.txt"}
        return nap.reached

    assert naps(slept_before) > 7


def settle(chain: Any, batch: Any, **options: Any) -> None:
    """Give a batch until it is stored, as a collector does."""
    for _ in range(3):
        try:
            chain.commit([batch], now_ns=NOW_NS, **options)
        except CommitConflict:
            continue
        return
    raise AssertionError("a commit was lost three times")


def test_a_committer_that_slept_puts_no_older_bytes_over_newer_ones() -> None:
    """An artifact is logged, and logged again, by others while a committer that holds the first sleeps: the second stays.

    Wherever it sleeps, but between its look at the newest commit and the write right after: no store replaces on a condition.
    """
    n, reached = 0, True
    while reached:
        store = TimedStore(memory_store())
        source = grown(store, 1)
        first, second = source.artifact("a.txt", b"1").batch(), source.artifact("a.txt", b"2").batch()
        reached = False

        def nap(call: Call, store: TimedStore = store, n: int = n, batches: tuple[Any, Any] = (first, second)) -> None:
            nonlocal reached
            if call.number == n and not (call.method == "put" and call.path.endswith("a.txt")):
                reached = True
                for batch in batches:
                    store.chain().commit([batch], now_ns=NOW_NS)

        chain = Chain(FaultyStore(store, plan=nap), PROJECT, EXPERIMENT, clock=store.clock)
        settle(chain, first)
        settle(chain, second)
        assert store.inner.read(f"{FOLDER}/artifacts/a.txt") == b"2", f"slept before call {n}"
        assert missing(store) == set()
        n += 1
        reached |= n < 8
    assert n >= 8


@pytest.mark.parametrize("slept_s", [0.0, 1000.0, 10 * HOUR_S])
def test_a_merger_may_sleep_before_any_of_its_writes(slept_s: float) -> None:
    """While it sleeps between its part and its commit, everything is swept and others commit: no merged part is missing."""
    for n in range(3):
        store = TimedStore(memory_store())
        source = grown(store)
        chain = store.chain()

        def meanwhile(store: TimedStore = store, source: Source = source) -> None:
            store.now_s += slept_s + 1
            store.sweep()
            commit(store, source.point("x", 9, 9.0))
            store.now_s += slept_s + 1
            store.sweep()

        with store.nap(n, meanwhile):
            chain.compact(now_ns=NOW_NS, final=True)
        assert missing(store) == set()
        store.chain().compact(now_ns=NOW_NS, final=True)
        assert [step for _, step, _, _ in points_of(store.chain())] == [0, 1, 2, 9]
        store.now_s += 10 * HOUR_S
        store.sweep()
        assert missing(store) == set()


@pytest.mark.parametrize("slept_s", [0.0, 1000.0, 10 * HOUR_S])
@pytest.mark.parametrize("removed", [False, True])
def test_a_file_put_in_place_before_a_nap_is_there_when_the_commit_says_so(slept_s: float, removed: bool) -> None:
    """A collector sleeps anywhere from a file's first piece to its commit; the artifact may be removed and logged again."""
    data = b"x" * 1000
    digest = sha256(data).hexdigest()

    def slept_before(n: int) -> bool:
        store = TimedStore(memory_store())
        source = Source().create().artifact("m.bin", spooled(0, len(data), digest))
        commit(store, source)
        chain = store.chain()

        def meanwhile() -> None:
            if removed:
                commit(store, source.event(Kind.UNLINK, source.time_ns + SECOND_NS, ["m.bin"]))
            store.now_s += slept_s
            store.sweep()
            if removed:
                commit(store, Source("b", "rank", time_ns=source.time_ns + 2 * SECOND_NS).artifact("m.bin", b"again"))
            store.now_s += slept_s
            store.sweep()

        with store.nap(n, meanwhile) as nap:
            for _ in range(3):
                with suppress(CommitConflict):
                    finish(store, chain, source, data)
                    break
        # within the retention the path is the same, and the sleeper's bytes may land on the later ones
        if not removed or slept_s >= RETENTION_S:
            assert missing(store) == set(), f"slept before write {n}"
        place = store.chain().artifacts()["m.bin"].file or "artifacts/m.bin"
        assert store.size(f"{FOLDER}/{place}") is not None
        return nap.reached

    assert naps(slept_before) >= 4


def finish(store: TimedStore, chain: Any, source: Source, data: bytes) -> None:
    """What a collector does with a whole file, and again from the start."""
    file = spooled(0)["file"]
    upload = Upload(store, PROJECT, EXPERIMENT, source.id, file, size=len(data), sha256=sha256(data).hexdigest())
    if not upload.complete:
        upload.add(upload.received, data[upload.received :])
    pending = chain.pending(source.id, file)
    if pending is not None:
        bad = upload.finish(pending.path, lambda: chain.awaits(pending))
        chain.commit([], files_done=[FileDone(source.id, file, bad)], now_ns=NOW_NS)
    upload.discard()


def test_a_sweeper_may_sleep_before_any_of_its_writes() -> None:
    """While a sweeper sleeps, what it wants to remove is logged again, merged and swept by others: nothing live is removed."""

    def slept_before(n: int) -> bool:
        store = TimedStore(memory_store())
        source = Source().create().artifact("a.txt", b"1").artifact("code.py", b"2", kind="source")
        commit(store, source)
        commit(store, source.event(Kind.UNLINK, source.time_ns + SECOND_NS, ["a.txt"]))
        leave_a_part(store)
        store.now_s += RETENTION_S + 1
        chain = store.chain()

        def meanwhile() -> None:
            source.time_ns += 2 * SECOND_NS
            commit(store, rich(source))
            store.chain().compact(now_ns=NOW_NS, final=True)
            store.now_s += 10 * HOUR_S
            store.sweep()

        with store.nap(n, meanwhile) as nap:
            sweep(chain, now_ns=NOW_NS, grace_s=0.0)
        assert missing(store) == set(), f"slept before write {n}"
        if nap.reached:
            commit(store, source.point("x", 2, 0.5))
            assert set(store.chain().artifacts()) == {"a.txt"}
            assert len(points_of(store.chain())) == 2
        return nap.reached

    assert naps(slept_before) >= 5


# -- Commits that come late ---------------------------------------------------------------------------------------------


def asleep_before_create(store: TimedStore, meanwhile: Any) -> Any:
    """A chain whose next commit is created only after `meanwhile`."""
    chain = store.chain()
    path = layout.commit_file(PROJECT, EXPERIMENT, chain.number + 1)

    def nap(_: int) -> None:
        if store.calls[-1] == ("create", path) and not done:
            done.append(path)
            meanwhile()

    done: list[str] = []
    store.interrupt = nap
    return chain


def test_a_commit_far_below_the_newest_is_lost(store: TimedStore) -> None:
    """A writer wakes when its number is long swept: the create succeeds, counts as lost, and nobody takes it for the head."""
    source = grown(store, 1)

    def others() -> None:
        for _ in range(20):
            commit(store, Source("b", "rank", time_ns=store.now_ns).point("y", 1, 0.5))
            other = store.chain()
            other.curate([(Kind.PROPERTY, other.number, "n", str(other.number))], now_ns=NOW_NS)
        store.now_s += RETENTION_S + 1
        store.sweep()

    chain = asleep_before_create(store, others)
    batch = source.point("x", 1, 0.5).batch()
    result = chain.commit([batch], now_ns=NOW_NS)
    store.interrupt = None
    numbers = [layout.commit_number(name) or 0 for name in store.names(COMMITS)]
    assert numbers[0] == 2, "the late one lies there"
    assert numbers[1] > 3, "those above it are swept"
    assert result.number == store.chain().number == max(numbers)
    assert [name for name, *_ in points_of(store.chain())] == ["x", "x", "y"]
    store.sweep()
    assert layout.commit_number(store.names(COMMITS)[0]) != 2, "the stale commit goes with the next sweep"
    assert missing(store) == set()
    assert chain.commit([batch], now_ns=NOW_NS).number == chain.number, "given again, it is stored already"


def test_a_late_commit_that_is_the_newest_keeps_its_files(store: TimedStore) -> None:
    """Nobody else committed while it slept: the commit is real, its writer is told to look, and finds all of it stored once."""
    source = grown(store, 1)

    def nap() -> None:
        store.now_s += LATE_S + 1

    chain = asleep_before_create(store, nap)
    batch = source.point("x", 1, 0.5).batch()
    with pytest.raises(CommitConflict):
        chain.commit([batch], now_ns=NOW_NS)
    store.interrupt = None
    assert missing(store) == set()
    assert chain.commit([batch], now_ns=NOW_NS).number == 2
    assert len(points_of(store.chain())) == 2


def test_a_late_document_is_not_published(store: TimedStore) -> None:
    """`experiment.json` is not touched by a commit that counts as lost."""
    source = grown(store, 1)
    before = store.inner.read(f"{FOLDER}/experiment.json")
    shown: list[bytes] = []

    def nap() -> None:
        store.now_s += LATE_S + 1
        shown.append(store.inner.read(f"{FOLDER}/experiment.json"))

    chain = asleep_before_create(store, nap)
    with pytest.raises(CommitConflict):
        chain.commit([source.point("x", 1, 0.5).batch()], now_ns=NOW_NS)
    assert shown == [before] == [store.inner.read(f"{FOLDER}/experiment.json")]


def test_a_head_that_was_loaded_long_ago_is_loaded_again(store: TimedStore) -> None:
    """A handle that rested for hours looks first, and its commit then is no late one."""
    source = grown(store, 1)
    chain = store.chain()
    for step in range(20):
        commit(store, Source("b", "rank").point("y", step, 0.5) if step == 0 else source.point("x", step, 0.5))
    store.now_s += 5 * HOUR_S
    store.sweep()
    late = Source("c", "rank").point("z", 1, 0.5)
    result = chain.commit([late.batch()], now_ns=NOW_NS)
    assert result.number == store.chain().number == 23
    store.now_s += 5 * HOUR_S
    assert chain.compact(now_ns=NOW_NS, final=True)
    assert missing(store) == set()


def test_a_late_sweep_removes_nothing(store: TimedStore) -> None:
    """A sweep whose own commit came late is no fence for anybody: it begins again from the newest commit."""
    source = grown(store, 2)
    commit(store, source.artifact("a.txt", b"1"))
    commit(store, source.event(Kind.UNLINK, source.time_ns + SECOND_NS, ["a.txt"]))
    store.now_s += RETENTION_S + 1

    def others() -> None:
        source.time_ns += 2 * SECOND_NS
        commit(store, source.artifact("a.txt", b"2"))
        for step in range(20):
            commit(store, source.point("x", step, 0.5))
        store.now_s += RETENTION_S + 1
        store.sweep()

    chain = asleep_before_create(store, others)
    sweep(chain, now_ns=NOW_NS, grace_s=0.0)
    store.interrupt = None
    assert missing(store) == set()
    assert store.inner.read(f"{FOLDER}/artifacts/a.txt") == b"2"


def test_the_clock_of_a_chain_goes_on_while_it_is_stopped() -> None:
    """The writer's own clock is the one that counts the time in which a process is stopped or its host sleeps."""
    assert abs(boot_clock() - time.clock_gettime(time.CLOCK_BOOTTIME)) < 1
