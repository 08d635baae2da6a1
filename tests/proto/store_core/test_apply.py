"""What events mean: the document, the series and the files that come of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from headrace_proto import events
from headrace_proto.events import Kind
from headrace_proto.frame import ABORTED, FrameKind
from headrace_proto.store.chain import Batch, FileDone
from headrace_proto.store.documents import ExperimentDocument
from headrace_proto.store.plain import unplain
from headrace_proto.store.times import at_us
from tests.proto.store_core.script import (
    EXPERIMENT,
    NOW_NS,
    PROJECT,
    SECOND_NS,
    Source,
    chain_of,
    frame_of,
    points_of,
    spooled,
)
from tests.stores import head_of

if TYPE_CHECKING:
    from headrace_proto.store.backend import Store
    from headrace_proto.store.chain import Chain

FOLDER = f"{PROJECT}/experiments/{EXPERIMENT}"


def _commit(chain: Chain, *sources: Source) -> ExperimentDocument:
    return chain.commit([source.batch() for source in sources], now_ns=NOW_NS).document


# -- The definition -----------------------------------------------------------------------------------------------------


def test_create_defines_the_experiment(files: Store) -> None:
    """Name, parameters, properties, tags, times and people are in the document."""
    a = Source().create("mlp", params={"lr": 1e-3, "bad": math.nan, 1: [math.inf]}, tags=["x"], properties={"p": "1"})
    a.event(Kind.FACTS, NOW_NS, {"git": {"commit": "abc"}, "entrypoint": "train.py", "group": "sweep"})
    document = _commit(chain_of(files), a)
    assert (document.id, document.internal_id, document.project) == ("DIG-1", EXPERIMENT, PROJECT)
    assert (document.name, document.owner, document.hostname, document.entrypoint) == ("mlp", "me", "node", "train.py")
    assert document.params["bad"] == {"$float": "nan"}
    assert unplain(document.params)["1"] == [math.inf]
    assert (document.tags, document.properties, document.git) == (("x",), {"p": "1"}, {"commit": "abc"})
    assert document.facts == {"group": "sweep"}
    assert (document.created_at, document.state, document.finished_at) == (at_us(NOW_NS // 1000), "running", None)


def test_parameters_of_the_definition_are_fixed(files: Store) -> None:
    """PARAMETERS adds and may change what it added, whatever came first; what CREATE named stays."""
    a = Source()
    a.event(Kind.PARAMETERS, NOW_NS, {"lr": 9, "late": 1})
    a.create(params={"lr": 1})
    a.event(Kind.PARAMETERS, NOW_NS + 1, {"lr": 8, "late": 2})
    assert _commit(chain_of(files), a).params == {"lr": 1, "late": 2}


def test_a_restart_does_not_undo_what_was_set_since(files: Store) -> None:
    """A second CREATE of the same key changes nothing that the first or a later call said, and adds what is new."""
    a = Source().create("first", params={"lr": 1}, properties={"p": "old"}, tags=["x"])
    a.event(Kind.PROPERTY, NOW_NS + 5, "p", "set by hand")
    a.event(Kind.TAGS, NOW_NS + 5, [], ["x"])
    b = Source("b", time_ns=NOW_NS + SECOND_NS)
    b.create("second", params={"lr": 2, "new": 3}, properties={"p": "old"}, tags=["x"])
    document = _commit(chain_of(files), a, b)
    assert (document.name, document.params, document.properties) == ("first", {"lr": 1, "new": 3}, {"p": "set by hand"})
    assert document.tags == ()
    assert document.created_at == at_us(NOW_NS // 1000)


def test_the_latest_event_wins_not_the_latest_arrival(files: Store) -> None:
    """A journal carried in late changes nothing that was set after its events."""
    chain = chain_of(files)
    b = Source("b").event(Kind.PROPERTY, NOW_NS + 2, "p", "tuesday").event(Kind.TAGS, NOW_NS + 2, [], ["x"])
    b.event(Kind.PROPERTY, NOW_NS + 2, "gone", None)
    _commit(chain, b)
    a = Source("a").event(Kind.PROPERTY, NOW_NS, "p", "sunday").event(Kind.TAGS, NOW_NS, ["x"], [])
    a.event(Kind.PROPERTY, NOW_NS, "gone", "sunday")
    document = _commit(chain, a)
    assert (document.properties, document.tags) == ({"p": "tuesday"}, ())


# -- Series -------------------------------------------------------------------------------------------------------------


def test_points_come_back_as_they_went_in(files: Store) -> None:
    """NaN, infinities, any finite step; sorted by channel, step and time."""
    a = Source()
    for step, value in ((2.0, math.nan), (-1.5, math.inf), (1e300, -math.inf), (0.0, 5e-324)):
        a.point("b", step, value)
    a.point("a", 0, -0.0)
    chain = chain_of(files)
    document = _commit(chain, a)
    found = points_of(chain)
    assert [(name, step) for name, step, _, _ in found] == [("a", 0), ("b", -1.5), ("b", 0), ("b", 2), ("b", 1e300)]
    assert math.copysign(1, found[0][3]) == -1
    assert [repr(value) for *_, value in found[1:]] == ["inf", "5e-324", "nan", "-inf"]
    last = document.channels.numeric["b"].last
    assert last is not None
    assert (last.step, last.value, document.channels.numeric["b"].count) == (1e300, {"$float": "-inf"}, 4)


def test_last_is_the_highest_step_then_the_latest_time_then_source_and_position(files: Store) -> None:
    """B13, within a commit and over commits."""
    chain = chain_of(files)
    b = Source("b").point("x", 5, 1.0, NOW_NS + 1000).point("x", 5, 2.0, NOW_NS + 1000)
    _commit(chain, b)
    a = Source("a").point("x", 4, 3.0, NOW_NS + 9000).point("x", 5, 4.0, NOW_NS + 1000)
    last = _commit(chain, a).channels.numeric["x"].last
    assert last is not None
    assert last.value == 2.0
    last = _commit(chain, a.point("x", 5, 5.0, NOW_NS + 2000)).channels.numeric["x"].last
    assert last is not None
    assert last.value == 5.0


def test_a_point_without_a_finite_step_is_a_gap(files: Store) -> None:
    """It cannot be sorted: dropped, counted and shown."""
    a = Source().point("x", math.nan, 1.0).point("x", math.inf, 1.0).point("x", 1, 1.0).text("t", math.nan, "no")
    a.event(Kind.GAP, NOW_NS, 7, "disk full")
    chain = chain_of(files)
    document = _commit(chain, a)
    assert len(points_of(chain)) == 1
    assert document.notes.gaps == {"a step is not finite": 3, "disk full": 7}
    assert document.sources[a.id].dropped == 10


def test_automatic_steps_go_on_over_ranks_and_commits(files: Store) -> None:
    """Two ranks that log without steps never get the same one; a row is above all its channels."""
    chain = chain_of(files)
    a, b = Source("a"), Source("b", "rank")
    _commit(chain, a.point("x", None, 0.0).point("x", None, 0.1), b.point("x", None, 0.2))
    _commit(chain, b.point("x", None, 0.3).row({"x": 1.0, "y": 2.0}, None), a.point("y", None, 0.4))
    steps = [(name, step, value) for name, step, _, value in points_of(chain)]
    x = [("x", 0, 0.0), ("x", 1, 0.1), ("x", 2, 0.2), ("x", 3, 0.3), ("x", 4, 1.0)]
    assert steps == [*x, ("y", 0, 0.4), ("y", 4, 2.0)]


def test_one_name_may_be_of_two_types(files: Store) -> None:
    """A name that is numeric in one rank and text in another is two channels, and neither is lost."""
    chain = chain_of(files)
    document = _commit(chain, Source("a").point("out", 1, 0.5), Source("b", "rank").text("out", None, "hello"))
    assert (document.channels.numeric["out"].count, document.channels.text["out"].count) == (1, 1)
    assert frame_of(chain, "text")["value"].tolist() == ["hello"]


def test_reset_hides_points_up_to_its_time_whenever_they_come(files: Store) -> None:
    """Counts and last values are those of the visible points; nothing is deleted; automatic steps go on."""
    chain = chain_of(files)
    a = Source("a")
    for i in range(5):
        a.point("x", None, float(i), NOW_NS + i * SECOND_NS)
    _commit(chain, a)
    document = _commit(chain, a.event(Kind.RESET, NOW_NS + 2 * SECOND_NS, "x"))
    record = document.channels.numeric["x"]
    assert record.last is not None
    assert (record.count, record.last.step, record.max_step) == (2, 4, 4)
    late = Source("b", "rank").point("x", 50, 9.0, NOW_NS + SECOND_NS).point("x", 3.5, 9.5, NOW_NS + 3 * SECOND_NS)
    record = _commit(chain, late).channels.numeric["x"]
    assert record.last is not None
    assert (record.count, record.last.step, record.max_step) == (3, 4, 50)
    document = _commit(
        chain, a.event(Kind.RESET, NOW_NS + 9 * SECOND_NS, "x").point("x", None, 1.0, NOW_NS + 8 * SECOND_NS)
    )
    record = document.channels.numeric["x"]
    assert (record.count, record.last, record.max_step) == (0, None, 51)
    assert len(points_of(chain)) == 8


def test_texts_and_images_have_series_too(files: Store) -> None:
    """Texts lie in their parts, images as files with an index; long ones wait for their bytes."""
    chain = chain_of(files)
    a = Source().text("note", None, "one").text("note", None, "two").text("note", 9, spooled(0))
    a.image("pic/ä", None, b"\x89PNG", name="first", description="d").image("pic/ä", 7, spooled(1))
    document = _commit(chain, a)
    texts, images = frame_of(chain, "text"), frame_of(chain, "image")
    assert texts["step"].tolist() == [0, 1, 9]
    assert texts["value"].tolist()[:2] == ["one", "two"]
    assert files.read(f"{FOLDER}/{images['file'][0]}") == b"\x89PNG"
    assert (images["name"][0], images["description"][0], images["size"].tolist()) == ("first", "d", [4, 100_000])
    assert document.channels.text["note"].count == 3
    waiting = {file.kind: file for file in chain.commit([], now_ns=NOW_NS).pending_files}
    assert waiting["text"].path == f"{FOLDER}/{texts['file'][2]}"
    assert waiting["image"].path == f"{FOLDER}/{images['file'][1]}"


def test_points_whose_definition_was_lost_are_kept_under_a_placeholder(files: Store) -> None:
    """Damage costs the damaged block only: later points of a channel that it defined are stored, without its name."""
    chain = chain_of(files)
    a = Source()
    a.point("x", 1, 1.0).row({"x": 2.0, "y": 3.0}, 2)
    a.batch()
    lost = Batch(a.id, 0, a.first, b"", FrameKind.LOST, "damaged")
    a.point("x", 3, 4.0).row({"x": 5.0, "y": 6.0}, 4).text("x", 1, "t")
    chain.commit([lost, a.batch()], now_ns=NOW_NS)
    assert [(name, value) for name, _, _, value in points_of(chain)] == [
        ("unnamed/aaaaaaaa/0", 4.0),
        ("unnamed/aaaaaaaa/row0/0", 5.0),
        ("unnamed/aaaaaaaa/row0/1", 6.0),
    ]
    assert chain.document.channels.text.keys() == {"unnamed/aaaaaaaa/0"}


# -- Files --------------------------------------------------------------------------------------------------------------


def test_a_small_artifact_is_there_with_its_commit(files: Store) -> None:
    """The payload of the event is the file; source files have a folder of their own."""
    document = _commit(
        chain_of(files), Source().artifact("out/model.bin", b"weights").artifact("train.py", "print()", kind="source")
    )
    assert files.read(f"{FOLDER}/artifacts/out/model.bin") == b"weights"
    assert files.read(f"{FOLDER}/sources/train.py") == b"print()"
    record = document.artifacts["out/model.bin"]
    assert (record.size, record.state, record.mode) == (7, "stored", 0o644)
    assert document.source_files.keys() == {"train.py"}


def test_a_large_artifact_is_pending_until_its_file_is_in_place(files: Store) -> None:
    """The event passes the watermark; the document says `pending` until the verified file is reported."""
    chain = chain_of(files)
    a = Source().artifact("model.bin", spooled(3))
    assert _commit(chain, a).artifacts["model.bin"].state == "pending"
    file = spooled(3)["file"]
    pending = chain.pending(a.id, file)
    assert pending is not None
    assert (pending.path, pending.size) == (f"{FOLDER}/artifacts/model.bin", 100_000)
    assert not chain.has_file(a.id, file)
    result = chain.commit([], files_done=[FileDone(a.id, file)], now_ns=NOW_NS)
    assert (result.document.artifacts["model.bin"].state, result.pending_files) == ("stored", frozenset())
    assert chain.has_file(a.id, file)
    assert chain_of(files).has_file(a.id, file)
    assert chain.commit([], files_done=[FileDone(a.id, file)], now_ns=NOW_NS).number == result.number


def test_a_file_that_changed_while_it_was_read_is_said_to_have(files: Store) -> None:
    """Its bytes are not here, and the document does not pretend."""
    chain = chain_of(files)
    a = Source().artifact("model.bin", spooled(0)).text("note", 1, spooled(1))
    _commit(chain, a)
    bad = [FileDone(a.id, spooled(n)["file"], "its digest differs") for n in (0, 1)]
    document = chain.commit([], files_done=bad, now_ns=NOW_NS).document
    assert document.artifacts["model.bin"].state == "changed"
    assert document.notes.refused == {"a file of channel 'note': its digest differs": 1}


@pytest.mark.parametrize("newer_first", [False, True])
def test_an_artifact_logged_again_is_the_later_one(files: Store, newer_first: bool) -> None:
    """Whichever event arrives first, the later one's bytes are awaited and the earlier one's must not land on them."""
    chain = chain_of(files)
    old = Source("a").artifact("best.ckpt", spooled(0), NOW_NS)
    new = Source("b", "rank").artifact("best.ckpt", spooled(0, digest="1" * 64), NOW_NS + 1)
    for source in (new, old) if newer_first else (old, new):
        _commit(chain, source)
    assert chain.document.artifacts["best.ckpt"].sha256 == "1" * 64
    assert chain.pending("a" * 32, spooled(0)["file"]) is None
    assert chain.has_file("a" * 32, spooled(0)["file"])
    assert chain.pending("b" * 32, spooled(0)["file"]) is not None


def test_an_unlinked_artifact_is_listed_no_more(files: Store) -> None:
    """It leaves the document and is named as dropped; logged again later, it is there again."""
    chain = chain_of(files)
    a = Source().artifact("a.txt", b"1").artifact("b.txt", spooled(0))
    _commit(chain, a)
    document = _commit(chain, a.event(Kind.UNLINK, a.time_ns + 1, ["a.txt", "b.txt", "never.txt"]))
    assert document.artifacts == {}
    assert head_of(chain).dropped == ("artifacts/a.txt", "artifacts/b.txt")
    assert chain.has_file(a.id, spooled(0)["file"])
    assert _commit(chain, a.artifact("a.txt", b"2")).artifacts["a.txt"].state == "stored"
    assert files.read(f"{FOLDER}/artifacts/a.txt") == b"2"


HOSTILE_PATHS = [
    "../x",
    "/etc/passwd",
    "a/../../x",
    "",
    "a//b",
    "C:/x",
    "a\\b",
    "a\x00b",
    ".uploads/x",
    "%2e%2e/x",
    "x" * 1000,
]


@pytest.mark.parametrize("path", HOSTILE_PATHS)
def test_a_hostile_path_ends_in_quarantine(files: Store, path: str) -> None:
    """No path from the wire leaves the experiment's folder; its payload is kept aside, and the document says so."""
    chain = chain_of(files)
    document = _commit(chain, Source().artifact(path, b"payload").artifact(path, spooled(0)).artifact("good", b"1"))
    assert document.artifacts.keys() == {"good"}
    assert sum(document.notes.refused.values()) == 2
    kept = _quarantined(files)
    assert any(b"payload" in data for data in kept)
    (waiting,) = chain.commit([], now_ns=NOW_NS).pending_files
    assert waiting.path.startswith("_headrace/quarantine/")


def test_a_path_cannot_be_a_file_and_a_folder(files: Store) -> None:
    """A file system could not hold both: the second one is kept aside, and commits go on."""
    chain = chain_of(files)
    _commit(chain, Source("a").artifact("a", b"1").artifact("d/e/f", b"1"))
    document = _commit(chain, Source("b").artifact("a/b", b"2").artifact("d/e", b"2").artifact("d/g", b"2"))
    assert document.artifacts.keys() == {"a", "d/e/f", "d/g"}
    assert sum(document.notes.refused.values()) == 2


def _quarantined(store: Store) -> list[bytes]:
    root = "_headrace/quarantine"
    paths = [f"{root}/{token}/{name}" for token in store.names(root) for name in store.names(f"{root}/{token}")]
    return [store.read(path) for path in paths if path.endswith(".bin")]


# -- What is odd --------------------------------------------------------------------------------------------------------


def test_events_of_a_newer_release_are_counted_and_kept(files: Store) -> None:
    """An unknown kind blocks nothing: skipped, counted, its bytes in quarantine."""
    chain = chain_of(files)
    new = events.pack(Kind.CHANNEL, 0, "x", 1).replace(b"\x94\x05", b"\x94\x63", 1)
    document = _commit(chain, Source().write(new).point("x", 1, 0.5))
    assert document.notes.unknown_kinds == {"99": 1}
    assert _quarantined(files) == [new]
    assert len(points_of(chain)) == 1


@pytest.mark.parametrize(
    "event",
    [
        (Kind.CHANNEL, 0, "bad\nname", 1),
        (Kind.CHANNEL, 0, "x" * 2000, 1),
        (Kind.PROPERTY, NOW_NS, "", "x"),
        (Kind.TAGS, NOW_NS, ["a\x07b"], []),
        (Kind.PARAMETERS, NOW_NS, {"": 1}),
        (Kind.FACTS, NOW_NS, {"name": 7}),
        (Kind.FACTS, NOW_NS, {"git": "no map"}),
        (Kind.FACTS, NOW_NS, {"created_at": 7}),
        (Kind.UNLINK, NOW_NS, ["../.."]),
    ],
)
def test_hostile_names_and_facts_are_refused_one_by_one(files: Store, event: tuple[Any, ...]) -> None:
    """What cannot be stored under its name is noted and kept aside; everything around it is stored."""
    chain = chain_of(files)
    document = _commit(chain, Source().create("mlp").event(*event).event(Kind.PROPERTY, NOW_NS, "p", "1"))
    assert (document.name, document.properties) == ("mlp", {"p": "1"})
    assert sum(document.notes.refused.values()) == 1
    assert len(_quarantined(files)) == 1


@pytest.mark.parametrize("depth", [40, 500, 1000, 5000])
def test_values_that_nest_without_end_are_cut(files: Store, depth: int) -> None:
    """Values nested so deep that only hostile bytes hold them neither stop the commit nor any reader."""
    facts = {
        "name": "mlp",
        "params": {"deep": "HERE"},
        "properties": {"deep": "HERE"},
        "git": {"deep": "HERE"},
        "deep": "HERE",
    }
    nested = b"\x91" * depth + b"\x01"
    create = events.pack(Kind.CREATE, NOW_NS, facts).replace(b"\xa4HERE", nested)
    picture = events.pack(Kind.IMAGE, 0, 1.0, NOW_NS, b"1", {"name": "HERE", "suffix": "HERE"}).replace(
        b"\xa4HERE", nested
    )
    model = events.pack(Kind.ARTIFACT, NOW_NS, "m", b"1", {"kind": "HERE", "mode": "HERE"}).replace(b"\xa4HERE", nested)
    chain = chain_of(files)
    source = Source()
    for raw in (source.batch().raw + create, picture, model):
        first = chain.watermark(source.id)
        chain.commit([Batch(source.id, first, first + len(raw), raw)], now_ns=NOW_NS)
    assert chain_of(files).document == chain.document
    assert (chain.document.name == "mlp") == (chain.lost(source.id) == ())


def test_a_number_that_means_two_channels_is_poison(files: Store) -> None:
    """Its points could mean anything: the batch is kept aside as a whole, and exactly its range is lost."""
    chain = chain_of(files)
    a = Source().point("x", 1, 1.0)
    _commit(chain, a)
    bad = a.event(Kind.CHANNEL, 0, "y", 1).point("x", 2, 2.0).batch()
    result = chain.commit([bad, a.point("x", 3, 3.0).batch()], now_ns=NOW_NS)
    assert [(gap.first, gap.end) for gap in chain.lost(a.id)] == [(bad.first, bad.end)]
    assert result.document.notes.lost_bytes == bad.end - bad.first
    assert _quarantined(files) == [bad.raw]
    assert [step for _, step, _, _ in points_of(chain)] == [1, 3]


# -- Death --------------------------------------------------------------------------------------------------------------


def test_a_death_is_withdrawn_by_later_bytes(files: Store) -> None:
    """`dead` is an observation: the experiment has failed until the source turns out to have said more."""
    chain = chain_of(files)
    a = Source().create().point("x", 1, 1.0)
    result = chain.commit([a.batch(), a.dead()], now_ns=NOW_NS)
    assert (result.document.state, result.document.sources[a.id].state) == ("failed", "dead")
    assert result.document.finished_at == result.document.sources[a.id].last_seen_at
    assert chain.commit([a.dead()], now_ns=NOW_NS).number == result.number
    assert _commit(chain, a.point("x", 2, 1.0)).state == "running"
    document = _commit(chain, a.close("succeeded"))
    assert (document.state, document.sources[a.id].state) == ("succeeded", "succeeded")
    assert chain.commit([a.dead()], now_ns=NOW_NS).document.state == "succeeded"


def test_a_death_that_was_asked_for_is_an_abort_and_is_withdrawn_like_any(files: Store) -> None:
    """The reason is kept; bytes that come later, with the writer's own word, say otherwise."""
    chain = chain_of(files)
    a = Source().create().point("x", 1, 1.0)
    result = chain.commit([a.batch(), a.dead(f"{ABORTED}aborted by ann: diverged")], now_ns=NOW_NS)
    record = result.document.sources[a.id]
    assert (result.document.state, record.state, record.detail) == ("aborted", "aborted", "aborted by ann: diverged")
    assert (result.document.traceback, result.document.finished_at) == (None, record.last_seen_at)
    assert chain.dead(a.id)
    assert chain.commit([a.dead()], now_ns=NOW_NS).number == result.number
    document = _commit(chain, a.point("x", 2, 1.0))
    assert (document.state, document.sources[a.id].detail) == ("running", None)
    document = _commit(chain, a.close("aborted", "by hand"))
    assert (document.state, document.sources[a.id].detail) == ("aborted", "by hand")
    assert chain.commit([a.dead()], now_ns=NOW_NS).document.sources[a.id].detail == "by hand"


def test_one_rank_that_was_aborted_aborts_a_run_whose_others_failed_of_it(files: Store) -> None:
    """Peers that stumble over the end of one are not what went wrong."""
    chain = chain_of(files)
    a, b = Source().create(), Source("b", "rank", rank=1).point("x", 1, 1.0)
    chain.commit([a.close("failed", "a peer has gone").batch(), b.batch()], now_ns=NOW_NS)
    assert chain.commit([b.dead(f"{ABORTED}aborted")], now_ns=NOW_NS).document.state == "aborted"


def test_what_is_lost_of_a_dead_source_does_not_wake_it(files: Store) -> None:
    """LOST is no sign of life, nor are old bytes that fill a lost range; the death stands where the watermark does."""
    chain = chain_of(files)
    a = Source().create()
    head = a.batch()
    filling = a.point("x", 1, 1.0).batch()
    gap = Batch(a.id, filling.first, filling.end, b"", FrameKind.LOST, "damaged")
    chain.commit([head, gap, a.dead()], now_ns=NOW_NS)
    assert chain.dead(a.id)
    assert chain.commit([filling], now_ns=NOW_NS).document.state == "failed"
    assert chain.lost(a.id) == ()
    more = Batch(a.id, a.position, a.position + 40, b"", FrameKind.LOST, "damaged")
    chain.commit([more], now_ns=NOW_NS)
    assert not chain.dead(a.id)
    chain.commit([Batch(a.id, more.end, more.end, b"", FrameKind.DEAD)], now_ns=NOW_NS)
    assert chain.dead(a.id)
    assert chain.document.state == "failed"


def test_a_traceback_is_kept_by_its_end(files: Store) -> None:
    """Of a traceback over the limit the last part says what happened."""
    document = _commit(chain_of(files), Source().create().close("failed", "x" * 50_000 + "ValueError: no"))
    assert document.state == "failed"
    assert document.traceback is not None
    assert document.traceback.endswith("ValueError: no")
    assert len(document.traceback) == 16 * 1024
