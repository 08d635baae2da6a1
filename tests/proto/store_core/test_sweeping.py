"""Sweeping: what no commit names goes, what any may still name stays, whoever sleeps wherever in between."""

from __future__ import annotations

import time
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

from headrace_proto.errors import CommitConflict
from headrace_proto.events import Kind
from headrace_proto.limits import COMMITS_KEPT, RETENTION_S
from headrace_proto.store import layout
from headrace_proto.store.chain import LATE_S, FileDone, boot_clock
from headrace_proto.store.sweeping import find_orphans, sweep
from headrace_proto.store.uploads import Upload
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
from tests.proto.store_core.sweeps import COMMITS, FOLDER, HOUR_S, TimedStore, missing

if TYPE_CHECKING:
    from headrace_proto.store.backend import Store


@pytest.fixture
def store(files: Store) -> TimedStore:
    return TimedStore(files)


def commit(store: TimedStore, *sources: Source, **options: Any) -> None:
    store.chain().commit([source.batch() for source in sources], now_ns=NOW_NS, **options)


def grown(store: TimedStore, commits: int = 3) -> Source:
    """An experiment of so many commits of a point each."""
    source = Source().create()
    for step in range(commits):
        commit(store, source.point("x", step, float(step)))
    return source


def leave_a_part(store: TimedStore, source: Source | None = None) -> str:
    """Write a part as a committer does that is killed before its commit; returns where."""

    class Killed(BaseException):
        pass

    def kill(_: int) -> None:
        if store.calls[-1] == ("create", layout.commit_file(PROJECT, EXPERIMENT, chain.number + 1)):
            raise Killed

    before = store.files()
    chain = store.chain()
    store.interrupt = kill
    with pytest.raises(Killed):
        chain.commit([(source or Source("f", "rank")).point("x", 1, 0.5).batch()], now_ns=NOW_NS)
    store.interrupt = None
    (place,) = store.files() - before
    return place


# -- What goes, and when ------------------------------------------------------------------------------------------------


def test_a_part_that_no_commit_names_goes_after_the_grace_time(store: TimedStore) -> None:
    """A killed committer's part is left alone while somebody might be at it, then removed; the experiment is as it was."""
    grown(store)
    place = leave_a_part(store)
    before = points_of(store.chain())
    store.now_s += 60
    assert store.sweep(grace_s=900).paths == ()
    assert store.chain().number == 3, "nothing to sweep, nothing written"
    store.now_s += 900
    assert store.sweep(grace_s=900).paths == (f"{FOLDER}/{place}",)
    assert place not in store.files()
    assert points_of(store.chain()) == before
    assert (store.chain().head.sweep, store.chain().head.swept) == (1, 4)  # type: ignore[union-attr]
    assert store.sweep(grace_s=900).paths == ()


def test_orphans_are_told_and_nothing_is_touched(store: TimedStore) -> None:
    """`find_orphans` lists what a sweep would remove, with sizes, and what is still too young; it writes nothing."""
    grown(store)
    old = leave_a_part(store)
    store.now_s += 1000
    young = leave_a_part(store, Source("e", "rank"))
    before = store.files()
    found = {orphan.path: orphan for orphan in find_orphans(store.chain(), now_ns=store.now_ns)}
    assert found.keys() == {f"{FOLDER}/{old}", f"{FOLDER}/{young}"}
    assert [found[f"{FOLDER}/{place}"].old for place in (old, young)] == [True, False]
    assert all(orphan.bytes == store.size(path) for path, orphan in found.items())
    assert store.files() == before


def test_replaced_parts_live_as_long_as_the_commits_that_named_them(store: TimedStore) -> None:
    """What a merge replaced stays for an hour, for who reads an older commit, and goes then."""
    grown(store, 4)
    store.now_s += 10
    old = {f"{FOLDER}/{part.path}" for part in store.chain().head.parts.numeric}  # type: ignore[union-attr]
    assert store.chain().compact(now_ns=NOW_NS, final=True)
    store.now_s += RETENTION_S - 1
    assert store.sweep().paths == ()
    store.now_s += 2
    assert set(store.sweep().paths) == old
    assert missing(store) == set()


def test_replaced_parts_of_a_chain_of_merges(store: TimedStore) -> None:
    """Several merges within the hour: each one's parts stay for their own hour, found without reading the commits between."""
    source = Source().create()
    replaced: list[set[str]] = []
    for _ in range(3):
        for step in range(3):
            commit(store, source.point("x", step, 0.5))
        replaced.append({part.path for part in store.chain().head.parts.numeric})  # type: ignore[union-attr]
        store.chain().compact(now_ns=NOW_NS, final=True)
        store.now_s += 1200
    for _ in range(3):
        assert all(place in store.files() for places in replaced for place in places)
        store.now_s += 1
        gone = {path.removeprefix(f"{FOLDER}/") for path in store.sweep().paths}
        assert gone == replaced.pop(0) - {place for places in replaced for place in places}
        assert missing(store) == set()
        store.now_s += 1199


def test_an_ended_and_swept_experiment_is_safe_to_glob(store: TimedStore) -> None:
    """After the final merge and an hour, the folder of parts holds the live part and nothing else."""
    source = grown(store, 5)
    leave_a_part(store)
    commit(store, source.close())
    store.chain().compact(now_ns=NOW_NS, final=True)
    store.now_s += RETENTION_S + 1
    store.sweep(grace_s=900)
    live = [part.path for part in store.chain().head.parts.numeric]  # type: ignore[union-attr]
    assert [f"channels/{name}" for name in store.names(f"{FOLDER}/channels")] == live
    assert len(live) == 1


def test_commits_stay_an_hour_and_the_last_sixteen_longer(store: TimedStore) -> None:
    """Young commits stay however many they are, and the newest however old: only what is both old and many goes."""
    source = Source().create()
    for step in range(40):
        commit(store, source.point("x", step, 0.5))
        store.now_s += 100
    # commits 1..40 at 0, 100, ...; now is 4000: commits 1..5 are older than an hour, the newest of them is kept
    assert store.sweep().commits == 4
    assert [layout.commit_number(name) for name in store.names(COMMITS)] == list(range(5, 42))
    store.now_s += 10 * HOUR_S
    store.sweep()
    assert [layout.commit_number(name) for name in store.names(COMMITS)] == list(range(43 - COMMITS_KEPT, 43))
    assert len(points_of(store.chain())) == 40


def test_removed_artifacts_go_and_replaced_ones_stay(store: TimedStore) -> None:
    """The bytes of an unlinked artifact go after the retention; those of one that was logged again do not."""
    source = Source().create().artifact("a.txt", b"a").artifact("deep/b.txt", b"b").artifact("c.txt", b"c")
    commit(store, source)
    commit(store, source.artifact("c.txt", b"later"))
    commit(store, source.event(Kind.UNLINK, source.time_ns + SECOND_NS, ["a.txt", "deep/b.txt"]))
    store.now_s += RETENTION_S - 1
    assert store.sweep().paths == ()
    store.now_s += 2
    assert set(store.sweep().paths) == {f"{FOLDER}/artifacts/a.txt", f"{FOLDER}/artifacts/deep/b.txt"}
    assert missing(store) == set()
    assert store.inner.read(f"{FOLDER}/artifacts/c.txt") == b"later"


def test_a_path_that_was_swept_is_never_used_again(store: TimedStore) -> None:
    """An artifact logged under a swept path lies elsewhere, and the document says where: the sweeper may be slow."""
    source = Source().create().artifact("a.txt", b"1")
    commit(store, source)
    commit(store, source.event(Kind.UNLINK, source.time_ns + SECOND_NS, ["a.txt"]))
    store.now_s += RETENTION_S + 1
    store.sweep()
    for data in (b"2", b"3"):
        source.time_ns += 2 * SECOND_NS
        commit(store, source.artifact("a.txt", data))
        place = store.chain().artifacts()["a.txt"].file
        assert place is not None
        assert place.startswith("again/")
        assert store.inner.read(f"{FOLDER}/{place}") == data
        assert missing(store) == set()
    store.now_s += RETENTION_S + 1
    (second,) = store.sweep().paths
    assert second.startswith(f"{FOLDER}/again/")
    assert missing(store) == set()


def test_files_of_rows_go_only_when_their_event_can_never_come(store: TimedStore) -> None:
    """An image that no row names goes when its source is stored beyond it; one that may still come stays, and so do live ones."""
    source = Source().create().image("shots", 1, b"png").text("log", 1, "x" * 10)
    commit(store, source)
    dead = f"images/shots/9-{source.id[:12]}-3.png"
    awaited = f"images/shots/9-{source.id[:12]}-{source.position + 50}.png"
    stranger = f"images/shots/9-{'b' * 12}-3.png"
    for place in (dead, awaited, stranger):
        store.put(f"{FOLDER}/{place}", b"left")
    store.now_s += 1000
    assert store.sweep(grace_s=900).paths == (f"{FOLDER}/{dead}",)
    assert missing(store) == set()


def test_pieces_stay_until_their_file_is_finished_or_can_never_be(store: TimedStore) -> None:
    """Pieces whose event is still to come stay for ever; those of finished files, and of closed sources, go."""
    source, other = Source().create(), Source("b", "rank")
    data = b"x" * 1000
    digest = sha256(data).hexdigest()

    def gather(owner: Source, number: int) -> Upload:
        file = spooled(number)["file"]
        upload = Upload(store, PROJECT, EXPERIMENT, owner.id, file, size=len(data), sha256=digest)
        upload.add(0, data)
        return upload

    finished = gather(source, 0)
    commit(store, source.artifact("m.bin", spooled(0, len(data), digest)), other)
    store.now_s += 2 * HOUR_S
    gather(other, 3)
    assert store.sweep().paths == (), "all of them are still awaited"
    finished.finish(f"{FOLDER}/artifacts/m.bin")
    commit(store, source.point("x", 1, 0.5), files_done=[FileDone(source.id, spooled(0)["file"])])
    gather(source, 1)
    store.now_s += 2 * HOUR_S
    assert {path.split("/")[-2] for path in store.sweep().paths} == {spooled(0)["file"]}
    commit(store, source.close())
    store.now_s += 1000
    assert {path.split("/")[-2] for path in store.sweep(900).paths} == {spooled(1)["file"]}
    assert len(store.names(f"{FOLDER}/artifacts/{layout.UPLOADS}")) == 1, "the open source's are here still"
    assert missing(store) == set()


def test_a_folder_without_commits_is_swept_and_becomes_no_experiment(store: TimedStore) -> None:
    """What a writer left that never committed goes; the commit that this takes shows nothing, and the first real one follows."""
    source = Source().create()
    place = leave_a_part(store, source)
    store.now_s += 1000
    assert store.sweep(900).paths == (f"{FOLDER}/{place}",)
    head = store.chain().head
    assert head is not None
    assert head.blank
    late = Source("b").create().point("x", 1, 0.5)
    commit(store, late)
    assert (store.chain().number, store.chain().document.id) == (2, "DIG-1")
    assert not store.chain().head.blank  # type: ignore[union-attr]
    assert missing(store) == set()


def test_an_empty_folder_stays_empty(store: TimedStore) -> None:
    """Sweeping what is not there makes nothing."""
    assert store.sweep() == ((), 0)
    assert store.files("") == set()


def test_nothing_of_strangers_is_touched(store: TimedStore) -> None:
    """Files whose names are not ours stay, in whatever folder they lie."""
    grown(store)
    for place in ("channels/notes.txt", "side/readme", "commits/copy.json", "mine/x", "texts/part-1.parquet"):
        store.put(f"{FOLDER}/{place}", b"mine")
    before = store.files()
    store.now_s += 10 * HOUR_S
    store.sweep()
    assert store.files() == before


def test_a_sweep_reads_no_other_commit_and_costs_what_is_new(store: TimedStore) -> None:
    """Requests of a sweep: listings, one commit, a logarithm of ages, and what is removed; live parts and commits cost nothing."""
    source = grown(store, 30)
    store.now_s += 3 * HOUR_S
    for step in range(200):
        commit(store, source.point("x", step, 0.5))
    leave_a_part(store)
    store.now_s += 1000
    chain = store.chain()
    store.calls.clear()
    swept = sweep(chain, now_ns=NOW_NS)
    made = [call for call, _ in store.calls]
    assert (len(swept.paths), swept.commits) == (1, 29)
    assert made.count("delete") == 30 + 1  # and the probe of the store's clock
    assert made.count("names") <= 12
    assert made.count("modified_ns") <= 20
    assert made.count("read") <= 3
    assert made.count("size") <= 1


# -- Committers that sleep ----------------------------------------------------------------------------------------------


def rich(source: Source) -> Source:
    """Everything that a commit may write: points, a text, an image, artifacts."""
    source.point("x", 1, 0.5).text("log", 1, "hello").image("shots", 1, b"png")
    return source.artifact("a.txt", b"1").artifact("code.py", b"2", kind="source")


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("slept_s", [0.0, 1000.0, 10 * HOUR_S])
def test_a_committer_may_sleep_before_any_of_its_writes(first: bool, slept_s: float) -> None:
    """While it sleeps before each write in turn, everything is swept: its commit then names nothing that is missing."""
    n = 0
    while True:
        store = TimedStore(memory_store())
        source = Source().create()
        if not first:
            commit(
                store, *(Source(f"{number:032x}", "rank").close() for number in range(70))
            )  # so that there is a side file
            commit(store, source.artifact("old.txt", b"0"))
            commit(store, source.event(Kind.UNLINK, source.time_ns + SECOND_NS, ["old.txt", "a.txt"]))
        source.time_ns += 2 * SECOND_NS
        chain, batch = store.chain(), rich(source).batch()
        store.calls.clear()
        reached: list[int] = []

        def nap(at: int, store: TimedStore = store, n: int = n, reached: list[int] = reached) -> None:
            if at == n and not reached:
                reached.append(at)
                store.now_s += slept_s
                store.sweep()
                store.now_s += slept_s
                store.sweep()

        store.interrupt = nap
        settle(chain, batch)
        store.interrupt = None
        assert missing(store) == set(), f"slept before write {n}"
        assert len(points_of(store.chain())) == 1
        assert set(store.chain().artifacts()) == {"a.txt"}
        if not reached:
            break
        n += 1
    assert n > 7


def settle(chain: Any, batch: Any, **options: Any) -> None:
    """Give a batch until it is stored, as a collector does."""
    for _ in range(3):
        try:
            chain.commit([batch], now_ns=NOW_NS, **options)
        except CommitConflict:
            continue
        return
    raise AssertionError("a commit was lost three times")


@pytest.mark.parametrize("slept_s", [0.0, 1000.0, 10 * HOUR_S])
def test_a_merger_may_sleep_before_any_of_its_writes(slept_s: float) -> None:
    """While it sleeps between its part and its commit, everything is swept and others commit: no merged part is missing."""
    for n in range(3):
        store = TimedStore(memory_store())
        source = grown(store)
        chain = store.chain()
        store.calls.clear()

        def nap(at: int, store: TimedStore = store, source: Source = source, n: int = n) -> None:
            if at == n and store.now_s < 1_000_001:
                store.now_s += slept_s + 1
                store.sweep()
                commit(store, source.point("x", 9, 9.0))
                store.now_s += slept_s + 1
                store.sweep()

        store.interrupt = nap
        chain.compact(now_ns=NOW_NS, final=True)
        store.interrupt = None
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
    n = 0
    while True:
        store = TimedStore(memory_store())
        source = Source().create().artifact("m.bin", spooled(0, len(data), digest))
        commit(store, source)
        chain = store.chain()
        store.calls.clear()
        reached: list[int] = []

        def nap(
            at: int, store: TimedStore = store, source: Source = source, n: int = n, r: list[int] = reached
        ) -> None:
            if at != n or r:
                return
            r.append(at)
            if removed:
                commit(store, source.event(Kind.UNLINK, source.time_ns + SECOND_NS, ["m.bin"]))
            store.now_s += slept_s
            store.sweep()
            if removed:
                commit(store, Source("b", "rank", time_ns=source.time_ns + 2 * SECOND_NS).artifact("m.bin", b"again"))
            store.now_s += slept_s
            store.sweep()

        store.interrupt = nap
        for _ in range(3):
            try:
                finish(store, chain, source, data)
            except CommitConflict:
                continue
            break
        store.interrupt = None
        if not (
            removed and slept_s < RETENTION_S
        ):  # else the path is the same, and the sleeper's bytes may land on the later ones
            assert missing(store) == set(), f"slept before write {n}"
        place = store.chain().artifacts()["m.bin"].file or "artifacts/m.bin"
        assert store.size(f"{FOLDER}/{place}") is not None
        if not reached:
            break
        n += 1
    assert n >= 4


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


def test_a_sweeper_may_sleep_before_any_of_its_calls(store: TimedStore) -> None:
    """While a sweeper sleeps, what it wants to remove is logged again, merged and swept by others: nothing live is removed."""
    n = 0
    while True:
        store = TimedStore(memory_store())
        source = Source().create().artifact("a.txt", b"1").artifact("code.py", b"2", kind="source")
        commit(store, source)
        commit(store, source.event(Kind.UNLINK, source.time_ns + SECOND_NS, ["a.txt"]))
        leave_a_part(store)
        store.now_s += RETENTION_S + 1
        chain = store.chain()
        store.calls.clear()
        reached: list[int] = []

        def nap(
            at: int, store: TimedStore = store, source: Source = source, n: int = n, r: list[int] = reached
        ) -> None:
            if at == n and not r:
                r.append(at)
                source.time_ns += 2 * SECOND_NS
                commit(store, rich(source))
                store.chain().compact(now_ns=NOW_NS, final=True)
                store.now_s += 10 * HOUR_S
                store.sweep()

        store.interrupt = nap
        sweep(chain, now_ns=NOW_NS, grace_s=0.0)
        store.interrupt = None
        assert missing(store) == set(), f"slept before call {n}"
        if not reached:
            break
        commit(store, source.point("x", 2, 0.5))
        assert set(store.chain().artifacts()) == {"a.txt"}
        assert len(points_of(store.chain())) == 2
        n += 1
    assert n >= 5


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
