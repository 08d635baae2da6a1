"""What one experiment may hold, whatever its sources say: a commit has a bound, and what is beyond is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace_proto.events import Kind
from headrace_proto.frame import FrameKind
from headrace_proto.limits import ASIDE_MAX, CHANNELS_MAX, COMMIT_EVENTS_MAX, EVENT_BYTES_MAX, EXPERIMENT_CHANNELS_MAX
from headrace_proto.names import PROPERTY_BYTES_MAX
from headrace_proto.store import layout
from headrace_proto.store.apply.draft import BEYOND
from headrace_proto.store.backend import Store
from headrace_proto.store.chain import Batch, Chain
from headrace_proto.store.commits import PART_KINDS
from headrace_proto.store.documents import ExperimentDocument
from tests.proto.store_core.script import NOW_NS, Source, chain_of, memory_store, points_of, spooled
from tests.stores import head_of

APPLY = "headrace_proto.store.apply"


def stored(*sources: Source, store: Store | None = None) -> Chain:
    """The experiment with what the sources wrote, as it is read back."""
    store = store or memory_store()
    chain_of(store).commit([source.batch() for source in sources], now_ns=NOW_NS)
    return chain_of(store)


def aside(store: Store) -> list[str]:
    """What lies in quarantine."""
    folders = [f"{layout.QUARANTINE}/{token}" for token in store.names(layout.QUARANTINE)]
    return [f"{folder}/{name}" for folder in folders for name in store.names(folder)]


def told(document: ExperimentDocument, words: str) -> int:
    """How many events were refused for a reason with these words."""
    return sum(count for reason, count in document.notes.refused.items() if words in reason)


def test_more_channels_than_an_experiment_may_have_share_one() -> None:
    """Sources that define channels without end: the list of names stays bounded, and every point is kept."""
    store = memory_store()
    for letter in "abc":
        source = Source(letter, role="rank")
        for number in range(CHANNELS_MAX):
            source.event(Kind.CHANNEL, number, f"{letter}/{number}", 1)
        source._channels = {f"{letter}/{number}": number for number in range(CHANNELS_MAX)}
        source.point(f"{letter}/0", 1, 0.5).point(f"{letter}/{CHANNELS_MAX - 1}", 1, 0.5)
        chain = stored(source, store=store)
    assert len(head_of(chain).names) == EXPERIMENT_CHANNELS_MAX + 1
    assert len(head_of(chain).encode()) < 2_000_000
    counted: dict[str, int] = {}
    for name, *_ in points_of(chain):
        counted[name] = counted.get(name, 0) + 1
    assert counted == {"a/0": 1, "a/9999": 1, "b/0": 1, "b/9999": 1, BEYOND: 2}


def test_undefined_numbers_find_no_end_of_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Points and texts of numbers that nothing defines make placeholders only as far as there is room for names."""
    monkeypatch.setattr(f"{APPLY}.draft.EXPERIMENT_CHANNELS_MAX", 5)
    source = Source("a")
    for number in range(20):
        source.event(Kind.TEXT, number, 1.0, NOW_NS, "text")
        source.raw_row(number, [0.5, 0.5, 0.5], 1.0, NOW_NS)
    chain = stored(source)
    assert len(head_of(chain).names) == 6
    assert chain.read("text").num_rows == 20
    assert chain.read("numeric").num_rows == 60


def test_words_of_all_sources_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers that leave holes make long tables: beyond the limit they are not learned, the points are kept, and it is told."""
    monkeypatch.setattr(f"{APPLY}.draft.EXPERIMENT_WORDS_MAX", 50)
    store = memory_store()
    for letter in "abcd":
        source = Source(letter, role="rank")
        for number in range(0, 40, 2):
            source.event(Kind.CHANNEL, number, f"c{number}", 1)
        source._channels = {"c4": 4}
        chain = stored(source.point("c4", 1, 0.5), store=store)
    assert sum(len(state.numbers) + len(state.channels) for state in head_of(chain).sources.values()) <= 50
    assert chain.read("numeric").num_rows == 4
    assert told(chain.document, "words") > 0


def test_tables_of_many_honest_ranks_are_learned() -> None:
    """Ranks that count their channels from 0 cost two runs each, however many channels they have."""
    sources = []
    for letter in "0123456789abcdef":
        source = Source(letter, role="rank")
        for number in range(1000):
            source.channel(f"layer{number}/norm")
        sources.append(source.point("layer999/norm", 1, 0.5))
    chain = stored(*sources)
    assert chain.document.notes.refused == {}
    assert chain.document.channels.numeric["layer999/norm"].count == 16


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ((Kind.PARAMETERS, NOW_NS, {"big": "x" * (PROPERTY_BYTES_MAX + 1)}), "params"),
        ((Kind.PARAMETERS, NOW_NS, {"big": [{}] * 20_000}), "params"),
        ((Kind.PROPERTY, NOW_NS, "big", "x" * (PROPERTY_BYTES_MAX + 1)), "properties"),
        ((Kind.FACTS, NOW_NS, {"description": "x" * 70_000}), "facts"),
        ((Kind.CREATE, NOW_NS, {"params": {"big": "x" * (PROPERTY_BYTES_MAX + 1)}}), "params"),
        ((Kind.RESET, NOW_NS, "x" * 2_000), "channel name"),
        ((Kind.RESET, NOW_NS, "a\0b"), "control"),
    ],
)
def test_value_that_is_too_large_for_a_document_is_refused(event: tuple[Any, ...], words: str) -> None:
    """One value beyond its limit goes to quarantine with its reason; the event after it counts."""
    chain = stored(Source("a").event(*event).event(Kind.PROPERTY, NOW_NS, "fine", "yes"))
    assert told(chain.document, words) == 1
    assert chain.document.properties == {"fine": "yes"}
    assert not {"big"} & {*chain.document.params, *chain.document.facts}


def test_registers_have_a_number_and_a_size_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names without end are refused, removed ones count; so are values whose sum is too large. What is there may be changed."""
    monkeypatch.setattr(f"{APPLY}.room.REGISTERS_MAX", 10)
    source = Source("a")
    for number in range(15):
        source.event(Kind.PROPERTY, NOW_NS + number, f"p{number}", None if number % 2 else "x")
        source.event(Kind.TAGS, NOW_NS + number, [f"t{number}"], [])
    source.event(Kind.PROPERTY, NOW_NS + 99, "p0", "changed")
    document = stored(source).document
    assert document.properties == {"p0": "changed", **{f"p{number}": "x" for number in (2, 4, 6, 8)}}
    assert len(document.tags) == 10
    assert told(document, "at most 10") == 10
    monkeypatch.setattr(f"{APPLY}.room.REGISTER_BYTES_MAX", 1_000)
    store = memory_store()
    for letter in "abc":
        document = stored(Source(letter).event(Kind.PARAMETERS, NOW_NS, {letter: "x" * 400}), store=store).document
    assert sorted(document.params) == ["a", "b"]
    assert told(document, "together") == 1


def test_files_and_what_is_awaited_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths without end are refused, so are files that never come; what is there may be replaced."""
    monkeypatch.setattr(f"{APPLY}.files.EXPERIMENT_FILES_MAX", 5)
    monkeypatch.setattr(f"{APPLY}.files.EXPERIMENT_PENDING_MAX", 3)
    source = Source("a")
    for number in range(8):
        source.artifact(f"a{number}", b"bytes")
    source.artifact("a0", b"other")
    for number in range(6):
        source.text("t", number, spooled(number))
    chain = stored(source)
    assert sorted(chain.artifacts()) == [f"a{number}" for number in range(5)]
    assert chain.artifacts()["a0"].size == 5
    assert len(head_of(chain).pending) == 3
    assert told(chain.document, "holds at most 5") == 3
    assert told(chain.document, "awaits at most 3") == 3


def test_numbers_of_finished_files_stay_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that counts its files with holes does not make every commit longer."""
    monkeypatch.setattr(f"{APPLY}.files.FILE_RUNS_MAX", 10)
    source = Source("a")
    for number in range(0, 100, 2):
        source.artifact("same", spooled(number), NOW_NS + number)
    chain = stored(source)
    assert len(head_of(chain).sources[source.id].files) == 10


def test_what_a_source_says_of_itself_is_short() -> None:
    """Texts are cut, numbers that are none are left out; tracebacks without end are short in the end."""
    store = memory_store()
    for number in range(100):
        source = Source(f"{number:032x}", role="worker", label="x" * 10_000, rank=1 << 63, attempt=True)
        chain = stored(source.close("failed", "y" * 20_000), store=store)
    records = chain.sources().values()
    assert {(record.label, record.rank, record.attempt) for record in records} == {("x" * 255, None, 0)}
    assert sum(len(record.detail or "") for record in records) < 1_200_000


def test_lost_ranges_side_by_side_become_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reasons that change with every frame do not make a list without end; not a byte of what is lost is forgotten."""
    monkeypatch.setattr(f"{APPLY}.sources.LOST_RANGES_MAX", 10)
    source = Source("a", role="")
    chain = chain_of(memory_store())
    chain.commit([source.lost(number * 10, f"reason {number}") for number in range(1, 50)], now_ns=NOW_NS)
    ranges = chain.lost(source.id)
    assert len(ranges) == 10
    assert (ranges[0].first, ranges[-1].end, chain.document.notes.lost_bytes) == (0, 490, 490)


def test_flood_of_strange_events_is_few_objects() -> None:
    """A frame of fifty thousand unknown events is kept whole in quarantine, as a handful of objects, with reasons to read."""
    store = memory_store()
    source = Source("a")
    flood = b"\x91\x7e" * 50_000
    source.write(flood)
    chain = stored(source.point("fine", 1, 0.5), store=store)
    names = aside(store)
    assert len(names) == 2 * (ASIDE_MAX + -(-50_000 // COMMIT_EVENTS_MAX))
    assert sum(store.size(name) or 0 for name in names if name.endswith(".bin")) == len(flood)
    reasons = [json.loads(store.read(name))["reason"] for name in names if name.endswith(".json")]
    assert any(f"{COMMIT_EVENTS_MAX} events" in reason and "kind 126" in reason for reason in reasons)
    assert chain.document.notes.unknown_kinds == {"126": 50_000}
    assert points_of(chain)[0][0] == "fine"


def test_more_events_than_a_batch_can_have_are_not_taken_apart() -> None:
    """A frame of events so small that only their number counts is lost as a whole, kept whole, and told."""
    store = memory_store()
    source = Source("a").write(b"\x91\x7e" * 100_000)
    chain = stored(source, store=store)
    chain.commit([source.point("fine", 1, 0.5).batch()], now_ns=NOW_NS)
    assert chain.document.notes.lost_bytes > 200_000
    assert len(aside(store)) == 2
    assert points_of(chain_of(store))[0][0] == "fine"


def test_commit_takes_up_few_events_and_the_rest_follows_in_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many small events in many batches become several commits, cut between events, and are stored as one commit would have."""

    def written() -> tuple[Chain, list[Batch]]:
        a, b = Source("a", role="rank"), Source("b", role="rank")
        batches = []
        for number in range(20):
            for source in (a, b):
                source.point("loss", number, 0.5).text("words", number, f"{source.id[0]}{number}").point(
                    "late", number, 1.5
                )
                if number % 7 == 6:
                    source.event(Kind.PROPERTY, NOW_NS + number, "last", f"{source.id[0]}{number}")
                    batches.append(source.batch())
        batches += [a.batch(), a.image("pictures", 1, b"bytes").batch(), a.close().batch(), b.batch()]
        batches.append(Batch(b.id, batches[-1].end, batches[-1].end, kind=FrameKind.DEAD))
        store = memory_store()
        chain_of(store).commit(batches, now_ns=NOW_NS)
        return chain_of(store), batches

    whole, _ = written()
    monkeypatch.setattr(f"{APPLY}.draft.COMMIT_EVENTS_MAX", 5)
    chain, batches = written()
    assert whole.number == 1
    assert chain.number > 10
    for kind in PART_KINDS:
        drop = ["time"] if kind == "image" else []
        assert chain.read(kind).drop_columns(drop).to_pylist() == whole.read(kind).drop_columns(drop).to_pylist()
    same = {"updated_at", "id"}
    assert chain.document.model_dump(exclude=same) == whole.document.model_dump(exclude=same)
    assert chain.dead(batches[-1].source)
    assert all(chain.watermark(batch.source) >= batch.end for batch in batches)


def test_lost_range_is_filled_by_more_events_than_a_commit_takes_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fills it is cut as well; nothing of it is doubled, and no range is left."""
    monkeypatch.setattr(f"{APPLY}.draft.COMMIT_EVENTS_MAX", 5)
    source = Source("a")
    first = source.text("words", 0, "x").batch()
    for number in range(1, 24):
        source.text("words", number, "x")
    middle = source.batch()
    last = source.text("words", 99, "x").batch()
    gone = middle._replace(raw=b"", kind=FrameKind.LOST, reason="gone")
    chain = chain_of(memory_store())
    chain.commit([first, gone, last], now_ns=NOW_NS)
    assert chain.lost(source.id) != ()
    chain.commit([middle], now_ns=NOW_NS)
    assert chain.lost(source.id) == ()
    assert chain.read("text")["step"].to_pylist() == [*range(24), 99]


def test_event_larger_than_any_may_be_is_not_looked_at() -> None:
    """An event beyond the limit would take seventy times its size as objects: it is put aside as it is, the next one counts."""
    source = Source("a").event(Kind.PARAMETERS, NOW_NS, {"maps": [{}] * EVENT_BYTES_MAX})
    chain = stored(source.event(Kind.PARAMETERS, NOW_NS, {"fine": 1}))
    assert chain.document.params == {"fine": 1}
    assert told(chain.document, str(EVENT_BYTES_MAX)) == 1


def test_same_words_are_not_anothers_place() -> None:
    """Two sources whose ids begin alike never write to one place: neither in quarantine nor as files of a channel."""
    store = memory_store()
    twins = [Source("a" * 31 + letter, role="worker") for letter in "01"]
    for twin in twins:
        twin.image("pictures", 1, twin.id.encode()).write(b"\x92\x7e" + b"\xa1" + twin.id[-1:].encode())
        stored(twin, store=store)
    chain = chain_of(store)
    files = chain.read("image")["file"].to_pylist()
    assert {store.read(f"{chain.folder}/{file}").decode() for file in files} == {twin.id for twin in twins}
    assert len([name for name in aside(store) if name.endswith(".bin")]) == 2
