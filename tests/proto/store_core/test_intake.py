"""Exactly once: batches cut, repeated and lost anyhow give the store what the journal held."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_proto.events import Kind
from headrace_proto.frame import FrameKind
from headrace_proto.store.chain import Batch, CommitResult
from headrace_proto.store.columns import BadCut
from headrace_proto.store.documents import LostRange
from headrace_proto.store.intake import add_lost, without
from tests.proto.store_core.script import NOW_NS, Source, chain_of, memory_store, points_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace_proto.store.backend import Store
    from headrace_proto.store.chain import Chain


def _journal(points: int = 12) -> tuple[Batch, list[int]]:
    """A whole journal as one batch, and where its events end."""
    source = Source().create(params={"lr": 1})
    for i in range(points):
        source.point(f"c{i % 2}", None if i % 3 else float(i), float(i))
        if i % 4 == 0:
            source.text("note", None, f"line {i}").row({"c0": 0.5, "c1": 1.5}, None).check()
    source.close()
    ends = source.ends
    return source.batch(), ends


def _slice(batch: Batch, first: int, end: int) -> Batch:
    return Batch(batch.source, first, end, batch.raw[first:end])


def _stored(chain: Chain) -> tuple[object, ...]:
    return points_of(chain), chain.read("text").to_pydict(), chain.document.model_dump(exclude={"id", "artifacts"})


@settings(max_examples=25)
@given(data=st.data())
def test_any_delivery_of_a_journal_stores_it_once(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Batches cut anywhere between events, overlapping, repeated, late or in any order: the store holds each event once.

    The test plays the caller: what lies above a gap waits, as the contract says.
    """
    whole, ends = _journal()
    edges = st.sampled_from([0, *ends])
    ranges = data.draw(st.lists(st.tuples(edges, edges).map(sorted).filter(lambda r: r[0] < r[1]), max_size=12))
    redelivered = data.draw(st.permutations([*ranges, [0, ends[len(ends) // 2]], [ends[len(ends) // 3], ends[-1]]]))
    store = memory_store()
    chain = chain_of(store)
    waiting = [_slice(whole, first, end) for first, end in redelivered]
    while chain.watermark(whole.source) < whole.end:
        ready = next(batch for batch in waiting if batch.first <= chain.watermark(whole.source) < batch.end)
        chain.commit([ready, *(batch for batch in waiting if batch.end <= ready.end)], now_ns=NOW_NS)
    for batch in waiting:
        chain.commit([batch], now_ns=NOW_NS)
    model = chain_of(memory_store())
    model.commit([whole], now_ns=NOW_NS)
    assert _stored(chain) == _stored(model) == _stored(chain_of(store))


def test_a_batch_above_a_gap_is_refused(files: Store) -> None:
    """Waiting is the caller's: nothing is stored out of order."""
    whole, ends = _journal()
    with pytest.raises(ValueError, match="above its watermark"):
        chain_of(files).commit([_slice(whole, ends[3], ends[5])], now_ns=NOW_NS)
    assert chain_of(files).number == 0


def test_a_batch_that_is_not_its_range_is_refused(files: Store) -> None:
    """A caller that mixes up bytes and positions hears of it before anything is stored."""
    with pytest.raises(ValueError, match="claims"):
        chain_of(files).commit([Batch("a" * 32, 0, 10, b"123")], now_ns=NOW_NS)


def test_a_cut_inside_an_event_is_refused(files: Store) -> None:
    """A watermark that is no boundary in the batch means that the batch is not of this journal."""
    whole, ends = _journal()
    chain = chain_of(files)
    chain.commit([_slice(whole, 0, ends[4])], now_ns=NOW_NS)
    foreign = Batch(whole.source, ends[4] - 3, ends[6], whole.raw[ends[4] - 3 : ends[6]])
    with pytest.raises(BadCut):
        chain.commit([foreign], now_ns=NOW_NS)
    assert chain.watermark(whole.source) == ends[4]


def test_nothing_new_makes_no_commit(files: Store) -> None:
    """A redelivered batch, an empty one, or nothing at all answers with what stands."""
    whole, _ = _journal()
    chain = chain_of(files)
    first = chain.commit([whole], now_ns=NOW_NS)
    empty = Batch(whole.source, whole.end, whole.end)
    again = chain.commit([whole, empty], now_ns=NOW_NS)
    assert (again.number, again.watermarks) == (first.number, {whole.source: whole.end})


# -- Lost ranges --------------------------------------------------------------------------------------------------------


def test_a_lost_range_lets_the_watermark_pass_and_is_remembered(files: Store) -> None:
    """LOST bytes are shown with their reason; what comes after them is stored."""
    whole, ends = _journal()
    chain = chain_of(files)
    gap = Batch(whole.source, ends[3], ends[9], b"", FrameKind.LOST, "damaged")
    result = chain.commit([_slice(whole, 0, ends[3]), gap, _slice(whole, ends[9], whole.end)], now_ns=NOW_NS)
    assert result.watermarks == {whole.source: whole.end}
    assert chain.lost(whole.source) == (LostRange(first=ends[3], end=ends[9], reason="damaged"),)
    assert result.document.notes.lost_bytes == ends[9] - ends[3]
    assert result.document.state == "succeeded"


@settings(max_examples=25)
@given(data=st.data())
def test_good_bytes_fill_a_lost_range(data: st.DataObject) -> None:
    """Whatever arrives of a lost range after all is stored once and shrinks it, until nothing is lost."""
    source = Source()
    for i in range(12):
        source.event(Kind.PROPERTY, NOW_NS + i, f"p{i}", "x").text("note", i, f"{i}")
    ends = source.ends
    whole = source.batch()
    low, high = sorted(data.draw(st.lists(st.sampled_from(range(2, len(ends))), min_size=2, max_size=2, unique=True)))
    chain = chain_of(memory_store())
    lost = Batch(whole.source, ends[low], ends[high], b"", FrameKind.LOST, "not there")
    chain.commit([_slice(whole, 0, ends[low]), lost, _slice(whole, ends[high], whole.end)], now_ns=NOW_NS)
    edges = st.sampled_from(ends).flatmap(lambda a: st.tuples(st.just(a), st.sampled_from(ends)))
    late = data.draw(st.lists(edges.filter(lambda r: r[0] < r[1]), max_size=5))
    for first, end in (*late, (0, whole.end)):
        chain.commit([_slice(whole, first, end)], now_ns=NOW_NS)
    assert chain.lost(whole.source) == ()
    assert chain.document.notes.lost_bytes == 0
    assert chain.read("text")["step"].to_pylist() == list(range(12))
    assert len(chain.document.properties) == 12


def test_poison_is_lost_exactly_and_once(files: Store) -> None:
    """A frame that arrived whole and does not decode: quarantined, lost as [first, end), and repeating it changes nothing."""
    chain = chain_of(files)
    a = Source().point("x", 1, 1.0)
    good, bad = a.batch(), a.write(b"\xc1\xc1\xc1").batch()
    after = a.point("x", 2, 2.0).batch()
    result = chain.commit([good, bad, after], now_ns=NOW_NS)
    assert [(gap.first, gap.end, gap.reason) for gap in chain.lost(a.id)] == [(bad.first, bad.end, "does not decode")]
    assert [step for _, step, _, _ in points_of(chain)] == [1, 2]
    assert chain.commit([bad], now_ns=NOW_NS).number == result.number


_ranges = st.tuples(st.integers(0, 30), st.integers(1, 8)).map(lambda r: (r[0], r[0] + r[1]))


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5), st.sampled_from("ab")), max_size=6),
    st.lists(_ranges, max_size=6),
)
def test_lost_ranges_are_sets_of_bytes(gaps: list[tuple[int, int, str]], fills: list[tuple[int, int]]) -> None:
    """Adding and filling ranges is adding and removing their bytes; ranges stay sorted and apart."""
    lost: tuple[LostRange, ...] = ()
    model: dict[int, str] = {}
    at = 0
    for skip, length, reason in gaps:
        at += skip
        lost = add_lost(lost, at, at + length, reason)
        model |= dict.fromkeys(range(at, at + length), reason)
        at += length
    for first, end in fills:
        lost = without(lost, first, end)
        model = {byte: reason for byte, reason in model.items() if not first <= byte < end}
    assert {byte: gap.reason for gap in lost for byte in range(gap.first, gap.end)} == model
    assert all(a.end <= b.first for a, b in pairwise(lost))
    assert all(gap.first < gap.end for gap in lost)


# -- Order across sources -----------------------------------------------------------------------------------------------

_moment = st.integers(0, 6).map(lambda second: NOW_NS + second * 1_000_000)
_told = st.one_of(
    st.tuples(st.just("point"), st.sampled_from("xy"), st.integers(0, 3), _moment),
    st.tuples(st.just("row"), st.integers(0, 3), _moment),
    st.tuples(st.just("text"), st.sampled_from("tx"), st.integers(0, 3), _moment),
    st.tuples(st.just("property"), st.sampled_from("pq"), st.one_of(st.none(), st.sampled_from("12")), _moment),
    st.tuples(st.just("tags"), st.sampled_from([(["u"], []), ([], ["u"]), (["v"], ["u"])]), _moment),
    st.tuples(st.just("params"), st.sampled_from("lm"), st.integers(0, 2), _moment),
    st.tuples(st.just("facts"), st.sampled_from(["name", "description", "group"]), st.sampled_from("ab"), _moment),
    st.tuples(st.just("reset"), st.sampled_from("xt"), _moment),
    st.tuples(st.just("artifact"), st.sampled_from("fg"), st.sampled_from([b"1", b"22"]), _moment),
    st.tuples(st.just("unlink"), st.sampled_from("fg"), _moment),
    st.tuples(st.just("gap"), st.integers(1, 3)),
    st.tuples(st.just("close"), st.sampled_from(["succeeded", "failed", "aborted"]), _moment),
)


def _tell(source: Source, told: list[tuple[object, ...]]) -> list[Batch]:
    writers: dict[object, Callable[..., object]] = {
        "point": lambda name, step, t: source.point(name, step, step + 0.5, t),
        "row": lambda step, t: source.row({"x": step, "z": step}, step, t),
        "text": lambda name, step, t: source.text(name, step, f"{step}", t),
        "property": lambda name, value, t: source.event(Kind.PROPERTY, t, name, value),
        "tags": lambda change, t: source.event(Kind.TAGS, t, *change),
        "params": lambda name, value, t: source.event(Kind.PARAMETERS, t, {name: value}),
        "facts": lambda name, value, t: source.event(Kind.FACTS, t, {name: value}),
        "reset": lambda name, t: source.event(Kind.RESET, t, name),
        "artifact": lambda path, data, t: source.artifact(path, data, t),
        "unlink": lambda path, t: source.event(Kind.UNLINK, t, [path]),
        "gap": lambda count: source.event(Kind.GAP, NOW_NS, count, "full"),
        "close": lambda outcome, t: source.close(outcome, outcome, t),
    }
    batches = [source.batch()]
    for kind, *fields in told:
        writers[kind](*fields)
        batches.append(source.batch())
    return batches


@settings(max_examples=100)
@given(
    st.lists(st.lists(_told, max_size=6), min_size=2, max_size=3),
    st.lists(st.sampled_from(["owner", "rank", "worker"]), min_size=3, max_size=3),
    st.randoms(use_true_random=False),
)
def test_the_order_of_batches_across_sources_does_not_matter(
    told: list[list[tuple[object, ...]]], roles: list[str], random: object
) -> None:
    """One document and one set of points, whatever the order in which sources' batches arrive and are committed."""
    found: list[object] = []
    for attempt in range(3):
        queues = []
        for index, events in enumerate(told):
            source = Source("abc"[index], roles[index], time_ns=NOW_NS + index)
            if index < 2:
                source.create(f"n{index}", params={"l": index}, tags=["u"], properties={"p": f"{index}"})
            queues.append(_tell(source, events))
        chain = chain_of(memory_store())
        if attempt == 0:
            chain.commit([batch for queue in queues for batch in queue], now_ns=NOW_NS)
        else:
            _commit_shuffled(chain, queues, random)
        found.append((chain.document.model_dump(exclude={"id"}), sorted(points_of(chain)), _files(chain)))
    assert found[0] == found[1] == found[2]


def _commit_shuffled(chain: Chain, queues: list[list[Batch]], random: object) -> None:
    left = [list(queue) for queue in queues if queue]
    results: list[CommitResult] = []
    while left:
        queue = random.choice(left)  # type: ignore[attr-defined]  # hypothesis's Random
        count = random.randint(1, len(queue))  # type: ignore[attr-defined]
        results.append(chain.commit(queue[:count], now_ns=NOW_NS))
        del queue[:count]
        left = [queue for queue in left if queue]


def _files(chain: Chain) -> dict[str, bytes]:
    return {path: chain.store.read(f"{chain.folder}/artifacts/{path}") for path in chain.document.artifacts}
