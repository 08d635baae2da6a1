"""Sweeping: what no commit names goes, what any may still name stays, whoever sleeps wherever in between."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from headrace_proto.events import Kind
from headrace_proto.limits import COMMITS_KEPT, RETENTION_S
from headrace_proto.store import layout
from headrace_proto.store.backend import open_store
from headrace_proto.store.chain import FileDone
from headrace_proto.store.sweeping import find_orphans, sweep
from headrace_proto.store.uploads import Upload
from tests.proto.store_core.script import EXPERIMENT, NOW_NS, PROJECT, SECOND_NS, Source, chain_of, points_of, spooled
from tests.proto.store_core.sweeps import COMMITS, FOLDER, HOUR_S, TimedStore, commit, grown, leave_a_part, missing
from tests.stores import head_of

if TYPE_CHECKING:
    from headrace_proto.store.backend import Store


@pytest.fixture
def store(files: Store) -> TimedStore:
    return TimedStore(files)


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
    assert (head_of(store.chain()).sweep, head_of(store.chain()).swept) == (1, 4)
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
    """What a merge replaced stays for an hour, for whoever reads an older commit, and goes then."""
    grown(store, 4)
    store.now_s += 10
    old = {f"{FOLDER}/{part.path}" for part in head_of(store.chain()).parts.numeric}
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
        replaced.append({part.path for part in head_of(store.chain()).parts.numeric})
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
    live = [part.path for part in head_of(store.chain()).parts.numeric]
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
    head = head_of(store.chain())
    assert head.blank
    late = Source("b").create().point("x", 1, 0.5)
    commit(store, late)
    assert (store.chain().number, store.chain().document.id) == (2, "DIG-1")
    assert not head_of(store.chain()).blank
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


def test_a_sweep_on_s3(s3_url: str) -> None:
    """On S3, whose clock is the server's: a killed writer's part and a removed artifact go, and the rest is read as before."""
    store = open_store(s3_url)
    source = Source().create().artifact("deep/a.txt", b"1").image("shots", 1, b"png").point("x", 1, 0.5)
    chain = chain_of(store)
    chain.commit([source.batch()], now_ns=NOW_NS)
    orphan = f"{FOLDER}/channels/part-{2:020d}-{'f' * 32}.parquet"
    store.put(orphan, b"left")
    assert sweep(chain_of(store), now_ns=NOW_NS).paths == (), "it is young"
    assert sweep(chain_of(store), now_ns=NOW_NS, grace_s=-60.0).paths == (orphan,)
    assert store.size(orphan) is None
    assert missing(store) == set()
    assert len(points_of(chain_of(store))) == 1
    assert find_orphans(chain_of(store), now_ns=NOW_NS) == []
