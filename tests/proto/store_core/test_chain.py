"""The chain: one commit after another, each made once, whoever else writes and whatever fails."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from headrace_proto.errors import CommitConflict, Corrupt, FormatUnknown
from headrace_proto.events import Kind
from headrace_proto.store import layout
from headrace_proto.store.backend import open_store
from headrace_proto.store.chain import CURATION_SOURCE, Chain, FileDone
from headrace_proto.store.commits import Commit
from headrace_proto.store.publishing import DocumentFile
from headrace_proto.store.times import at_us
from tests.proto.store_base.faults import FaultyStore, Meddler
from tests.proto.store_core.script import EXPERIMENT, NOW_NS, PROJECT, SECOND_NS, Source, chain_of, points_of, spooled
from tests.stores import head_of

if TYPE_CHECKING:
    from headrace_proto.store.backend import Store

COMMITS = layout.commits_folder(PROJECT, EXPERIMENT)
FOLDER = layout.experiment_folder(PROJECT, EXPERIMENT)


class Repeater(FaultyStore):
    """A back end that repeats every create, as clients do when an answer is lost: the second finds the first's object."""

    def create(self, path: str, data: bytes) -> bool:
        super().create(path, data)
        return super().create(path, data)


class Remote(FaultyStore):
    """A store in which every write is a request."""

    @property
    def local(self) -> bool:
        return False


# -- One writer ---------------------------------------------------------------------------------------------------------


def test_a_commit_is_found_again(files: Store) -> None:
    """Whoever loads the chain sees what was committed: head, document, watermark, points."""
    a = Source().create(params={"lr": 0.1}).point("x", 1, 0.5)
    chain = chain_of(files)
    chain.commit([a.batch()], now_ns=NOW_NS)
    result = chain.commit([a.point("x", 2, 0.25).batch()], now_ns=NOW_NS)
    again = chain_of(files)
    assert (again.number, again.head, again.document) == (2, chain.head, result.document)
    assert again.watermark(a.id) == a.position == result.watermarks[a.id]
    assert points_of(again) == points_of(chain)
    assert files.names(COMMITS) == [f"{1:020d}.json", f"{2:020d}.json"]


def test_an_experiment_without_commits_is_empty(files: Store) -> None:
    """Nothing is made by looking."""
    chain = chain_of(files)
    assert (chain.head, chain.number, chain.watermark("a" * 32), chain.lost("a" * 32)) == (None, 0, 0, ())
    assert chain.read("numeric").num_rows == 0
    assert not chain.compact(now_ns=NOW_NS, final=True)
    assert files.names("vision") == []


def test_the_short_id_is_claimed_once(files: Store) -> None:
    """KEY-1 for the first experiment, KEY-2 for the second, and the same for ever."""
    first, second = chain_of(files), chain_of(files, "f" * 32)
    ids = [c.commit([Source(n).create().batch()], now_ns=NOW_NS).document.id for c in (first, second) for n in "ab"]
    assert ids == ["DIG-1", "DIG-1", "DIG-2", "DIG-2"]


def test_a_commit_of_another_format_is_left_alone(files: Store) -> None:
    """A newer release's commit is not understood: nothing is read from it, nothing is written upon it."""
    chain_of(files).commit([Source().batch()], now_ns=NOW_NS)
    newest = json.loads(files.read(f"{COMMITS}/{1:020d}.json")) | {"format": 2, "number": 2}
    files.put(f"{COMMITS}/{2:020d}.json", json.dumps(newest).encode())
    with pytest.raises(FormatUnknown):
        Chain(files, PROJECT, EXPERIMENT).load()
    with pytest.raises(FormatUnknown):
        Chain(files, PROJECT, EXPERIMENT).commit([Source("b").batch()], now_ns=NOW_NS)
    assert len(files.names(COMMITS)) == 2


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"format": 1}', b'{"format": 1, "number": "x"}'])
def test_a_damaged_commit_is_said_to_be(data: bytes) -> None:
    """Bytes that are no commit are `Corrupt`, never half a commit."""
    with pytest.raises(Corrupt):
        Commit.decode(data, "commits/1.json")


def test_a_commit_is_strict_json(files: Store) -> None:
    """NaN and infinities never stand bare in a document, so that any JSON parser reads it."""
    a = Source().create(params={"a": float("nan")}).point("x", 1, float("inf"))
    chain_of(files).commit([a.batch()], now_ns=NOW_NS)
    for path in (f"{COMMITS}/{1:020d}.json", f"{FOLDER}/experiment.json"):

        def refuse(constant: str) -> None:
            raise AssertionError(f"{constant} stands bare")

        json.loads(files.read(path), parse_constant=refuse)


# -- What fails ---------------------------------------------------------------------------------------------------------


def _life(chain: Chain) -> None:
    """A short experiment in four commits, each tried until it is stored."""
    a = Source().create().point("x", None, 0.0).artifact("a.txt", b"1").artifact("b.bin", spooled(0))
    told = [[a.batch()], [a.point("x", None, 1.0).batch()], [], [a.point("x", None, 2.0).close().batch()]]
    for number, batches in enumerate(told):
        done = [FileDone(a.id, spooled(0)["file"])] if number == 2 else []
        for _ in range(3):
            try:
                chain.commit(batches, files_done=done, now_ns=NOW_NS + number * SECOND_NS)
            except (OSError, CommitConflict):
                continue
            break
        else:
            raise AssertionError("three failures for one fault")


@pytest.mark.parametrize("fault", ["before", "after"])
@pytest.mark.parametrize("remote", [False, True])
def test_any_write_may_fail_before_or_after_its_effect(tmp_path: Any, fault: Any, remote: bool) -> None:
    """Each write of an experiment's life fails in turn, before its effect or with its answer lost: all is stored once."""
    kind = Remote if remote else FaultyStore
    model = kind(open_store(str(tmp_path / "model")))
    _life(chain_of(model))
    expected = (points_of(chain_of(model)), chain_of(model).document)
    for n in range(model.writes):
        store = kind(open_store(str(tmp_path / f"{n}")), faults={n: fault})
        _life(chain_of(store))
        found = chain_of(store.inner)
        assert (points_of(found), found.document) == expected, f"write {n} failed {fault} its effect"
        assert len(store.names(COMMITS)) == found.number
    assert [step for _, step, _, _ in expected[0]] == [0, 1, 2]


def test_a_create_whose_answer_was_lost_is_known_by_its_nonce(files: Store) -> None:
    """`exists` with our own nonce inside is success, not somebody else."""
    store = Repeater(files)
    chain = chain_of(store)
    a = Source()
    for step in range(3):
        chain.commit([a.point("x", step, 0.5).batch()], now_ns=NOW_NS)
    assert chain_of(files).number == 3
    assert len(points_of(chain_of(files))) == 3


def test_a_document_that_cannot_be_refreshed_is_no_failed_commit(files: Store) -> None:
    """`experiment.json` is a copy: the commit stands, and the next one refreshes it."""

    class NoDocument(FaultyStore):
        broken = True

        def put(self, path: str, data: bytes) -> None:
            if self.broken and path.endswith("experiment.json"):
                raise TimeoutError("no answer")
            super().put(path, data)

    store = NoDocument(files)
    chain = chain_of(store)
    assert chain.commit([Source().create().batch()], now_ns=NOW_NS).number == 1
    store.broken = False
    chain.commit([Source("b").batch()], now_ns=NOW_NS)
    assert json.loads(files.read(f"{FOLDER}/experiment.json"))["commit"] == 2


# -- Two writers --------------------------------------------------------------------------------------------------------


def test_another_writer_of_other_sources_costs_a_second_try(files: Store) -> None:
    """A lost create whose sources have not moved is made again upon the new head: nothing is lost, nothing doubled."""
    store = Meddler(files)
    chain = chain_of(store)
    a, b = Source("a").create().point("x", None, 1.0), Source("b", "rank").point("x", None, 2.0)
    store.meddle = lambda: chain_of(files).commit([b.batch()], now_ns=NOW_NS)
    result = chain.commit([a.batch()], now_ns=NOW_NS)
    assert result.number == 2
    assert [(step, value) for _, step, _, value in points_of(chain_of(files))] == [(0, 2.0), (1, 1.0)]
    live = {part.path.split("/")[1] for part in head_of(chain_of(files)).parts.numeric}
    assert set(files.names(f"{FOLDER}/channels")) == live, "the part of the lost attempt is gone"


def test_a_curator_does_not_stop_a_collector(files: Store) -> None:
    """A tag set by hand between load and commit is kept, and so are the points."""
    store = Meddler(files)
    chain = chain_of(store)
    a = Source().create(tags=["x"])
    chain.commit([a.batch()], now_ns=NOW_NS)
    store.meddle = lambda: chain_of(files).curate([(Kind.TAGS, NOW_NS + 5, ["best"], ["x"])], now_ns=NOW_NS)
    document = chain.commit([a.point("x", 1, 0.5).batch()], now_ns=NOW_NS).document
    assert (document.tags, document.channels.numeric["x"].count) == (("best",), 1)


def test_two_writers_of_one_source_store_it_once(files: Store) -> None:
    """The loser of a race for one source is told so, has stored nothing, and stands on the winner's commit."""
    store = Meddler(files)
    loser = chain_of(store)
    batch = Source().create().point("x", None, 1.0).batch()
    store.meddle = lambda: chain_of(files).commit([batch], now_ns=NOW_NS)
    with pytest.raises(CommitConflict):
        loser.commit([batch], now_ns=NOW_NS)
    assert (loser.number, loser.watermark(batch.source)) == (1, batch.end)
    assert loser.commit([batch], now_ns=NOW_NS).number == 1
    assert len(points_of(chain_of(files))) == 1
    assert len(files.names(f"{FOLDER}/channels")) == 1


def test_many_racing_writers_store_every_point_once(files: Store) -> None:
    """Threads with a chain each, all given the same batches of three sources and a curator beside them: exactly once."""
    sources = [Source(name, "rank") for name in "abc"]
    batches = [[source.point("x", None, 1.0).batch() for _ in range(4)] for source in sources]

    def drain(order: int) -> None:
        chain = chain_of(files)
        queue = [list(own) for own in batches]
        queue = queue[order:] + queue[:order]
        while queue:
            with suppress(CommitConflict):
                chain.commit([queue[0][0], *(own[0] for own in queue[1:2])], now_ns=NOW_NS)
            queue = [[b for b in own if b.end > chain.watermark(b.source)] for own in queue]
            queue = [own for own in queue if own]

    def curate() -> None:
        for n in range(4):
            chain_of(files).curate([(Kind.PROPERTY, NOW_NS + n, f"p{n}", "x")], now_ns=NOW_NS)

    threads = [threading.Thread(target=drain, args=(order,)) for order in range(3)] + [threading.Thread(target=curate)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = chain_of(files)
    assert [step for _, step, _, _ in points_of(found)] == list(range(12))
    assert found.document.channels.numeric["x"].count == 12
    assert len(found.document.properties) == 4


# -- Curation -----------------------------------------------------------------------------------------------------------


def test_curation_is_the_same_events_in_one_commit(files: Store) -> None:
    """Stored handles change documents through the same apply, as a source of their own that decides no state."""
    chain = chain_of(files)
    chain.commit([Source().create("old").close().batch()], now_ns=NOW_NS)
    later = NOW_NS + SECOND_NS
    changes = [
        (Kind.FACTS, later, {"name": "new"}),
        (Kind.PROPERTY, later, "p", "1"),
        (Kind.ARTIFACT, later, "a", b"1", {}),
    ]
    result = chain_of(files).curate(changes, now_ns=later)
    assert (result.number, result.document.name, result.document.properties) == (2, "new", {"p": "1"})
    assert (result.document.state, result.document.artifacts["a"].state) == ("succeeded", "stored")
    assert result.watermarks.keys() == {CURATION_SOURCE}


@pytest.mark.parametrize(
    "change",
    [
        (Kind.TEXT, 0, None, NOW_NS, "x"),
        (Kind.TEXT, "notes", None, NOW_NS, 3),
        (Kind.CLOSED, NOW_NS, "failed", None),
        (Kind.TAGS, NOW_NS),
    ],
)
def test_curation_takes_only_what_changes_documents(files: Store, change: tuple[Any, ...]) -> None:
    """Lifecycles, channels without a name and malformed events are the caller's mistake, and change nothing."""
    with pytest.raises(ValueError):
        chain_of(files).curate([change], now_ns=NOW_NS)
    assert chain_of(files).number == 0


# -- experiment.json ----------------------------------------------------------------------------------------------------


def test_a_remote_document_is_refreshed_once_a_minute_and_at_every_change_of_state(files: Store) -> None:
    """Each refresh is a request: a running experiment's document may lag by a minute, an ended one's may not."""
    chain = chain_of(Remote(files))
    a = Source().create()
    seen = []
    for second in (0, 1, 59, 60, 61, 100):
        a.point("x", second, 0.5)
        if second == 100:
            a.close()
        chain.commit([a.batch()], now_ns=NOW_NS + second * SECOND_NS)
        seen.append(json.loads(files.read(f"{FOLDER}/experiment.json"))["commit"])
    assert seen == [1, 1, 1, 4, 4, 6]


def test_an_older_document_never_replaces_a_newer_one(files: Store) -> None:
    """A writer that slept between its commit and the document finds a newer one there and leaves it."""
    slow, a = chain_of(files), Source().create()
    slow.commit([a.batch()], now_ns=NOW_NS)
    old = slow.head
    assert old is not None
    chain_of(files).commit([a.close().batch()], now_ns=NOW_NS)
    DocumentFile(files, f"{FOLDER}/experiment.json").refresh(old, NOW_NS + SECOND_NS)
    document = json.loads(files.read(f"{FOLDER}/experiment.json"))
    assert (document["commit"], document["state"]) == (2, "succeeded")


def test_the_document_reads_well(files: Store) -> None:
    """People open it first: what it is, how it went, then the rest; times in ISO; indented."""
    a = Source().create("mlp", params={"lr": 0.1}).point("loss", 3, 0.25).close()
    chain_of(files).commit([a.batch()], now_ns=NOW_NS)
    text = files.read(f"{FOLDER}/experiment.json").decode()
    assert text.startswith('{\n  "format": 1,\n  "commit": 1,\n  "id": "DIG-1",')
    document = json.loads(text)
    keys = list(document)
    assert keys.index("state") < keys.index("params") < keys.index("channels") < keys.index("sources")
    assert document["created_at"] == "2025-11-21T02:40:00Z"
    assert document["channels"]["numeric"]["loss"]["last"]["value"] == 0.25
    assert document["parts"]["numeric"][0].startswith("channels/part-00000000000000000001-")
    assert chain_of(files).document.running_time == at_us(a.time_ns // 1000) - at_us(NOW_NS // 1000)


# -- The side file ------------------------------------------------------------------------------------------------------


def test_closed_sources_move_to_a_side_file_and_are_still_known(files: Store) -> None:
    """1,000 short sources: a commit stays small, and a redelivered batch of the first one is still a duplicate."""
    chain = chain_of(files)
    batches = [Source(f"{n:032x}", "rank", time_ns=NOW_NS + n).point("x", n, 0.5).close().batch() for n in range(200)]
    for first in range(0, 200, 20):
        chain.commit(batches[first : first + 20], now_ns=NOW_NS)
    assert head_of(chain).side is not None
    assert len(head_of(chain).sources) <= 64
    assert chain.document.elsewhere["sources"] == 200 - len(head_of(chain).sources)
    again = chain_of(files)
    assert len(again.sources()) == 200
    assert again.commit(batches, now_ns=NOW_NS).number == chain.number
    assert all(again.watermark(batch.source) == batch.end for batch in batches)
    assert again.document.state == "succeeded"
    assert len(points_of(again)) == 200


def test_an_archived_source_comes_back_with_its_late_bytes(files: Store) -> None:
    """A source that was observed dead and archived is known again when more of it arrives."""
    chain = chain_of(files)
    first = Source("f" * 32, "rank").point("x", None, 0.5)
    chain.commit([first.batch(), first.dead()], now_ns=NOW_NS)
    others = [Source(f"{n:032x}", "rank", time_ns=NOW_NS + SECOND_NS + n).close().batch() for n in range(70)]
    chain.commit(others, now_ns=NOW_NS)
    assert first.id not in chain.document.sources
    assert chain.document.state == "failed"
    again = chain_of(files)
    document = again.commit([first.point("x", None, 0.75).batch()], now_ns=NOW_NS).document
    assert document.sources[first.id].state == "open"
    assert document.state == "running"
    assert [(step, value) for _, step, _, value in points_of(again)] == [(0, 0.5), (1, 0.75)]
    assert len(chain_of(files).sources()) == 71


def test_many_artifacts_move_to_a_side_file_and_keep_their_registers(files: Store) -> None:
    """Artifacts beyond the limit are listed there; later events about them still meet their stamps."""
    chain = chain_of(files)
    a = Source()
    for n in range(600):
        a.artifact(f"f{n}.txt", b"%d" % n, NOW_NS + SECOND_NS + n)
    chain.commit([a.batch()], now_ns=NOW_NS)
    assert len(chain.document.artifacts) == 256
    assert chain.document.elsewhere == {"artifacts": 344}
    again = chain_of(files)
    assert len(again.artifacts()) == 600
    stale = (
        Source("b", "rank").artifact("f0.txt", b"older", NOW_NS).event(Kind.UNLINK, NOW_NS + 9 * SECOND_NS, ["f1.txt"])
    )
    again.commit([stale.batch()], now_ns=NOW_NS)
    assert "f1.txt" not in again.artifacts()
    assert len(again.artifacts()) == 599
    assert files.read(f"{FOLDER}/artifacts/f0.txt") == b"0"


# -- An object store ----------------------------------------------------------------------------------------------------


def test_a_chain_on_s3(s3_url: str) -> None:
    """The same on S3: commits by If-None-Match, a race for one number, a merge, a reset that reads parts, open files."""
    store = open_store(s3_url)
    a, b = Source("a").create(params={"lr": 0.1}).point("x", None, 1.0), Source("b", "rank").point("x", None, 2.0)
    meddler = Meddler(store)
    chain = chain_of(meddler)
    meddler.meddle = lambda: chain_of(store).commit([b.batch()], now_ns=NOW_NS)
    chain.commit([a.batch()], now_ns=NOW_NS)
    chain.commit([a.event(Kind.RESET, a.time_ns, "x").point("x", None, 3.0).artifact("m", b"1").batch()], now_ns=NOW_NS)
    assert chain.compact(now_ns=NOW_NS, final=True)
    found = chain_of(open_store(s3_url, writable=False))
    assert found.number == 4
    assert [(step, value) for _, step, _, value in points_of(found)] == [(0, 2.0), (1, 1.0), (2, 3.0)]
    assert found.document.channels.numeric["x"].count == 1
    assert store.read(f"{FOLDER}/artifacts/m") == b"1"
