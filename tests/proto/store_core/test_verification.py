"""`verify`: what is complete, what is not and why, and a digest that anybody can compute."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from hashlib import sha256
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from headrace_proto.errors import ExperimentNotFound
from headrace_proto.events import Kind
from headrace_proto.frame import ABORTED, FrameKind
from headrace_proto.store import compaction
from headrace_proto.store.apply import finish
from headrace_proto.store.chain import Batch, FileDone
from headrace_proto.store.commits import PART_KINDS
from headrace_proto.store.verification import verify
from tests.proto.store_core.script import (
    EXPERIMENT,
    NOW_NS,
    PROJECT,
    SECOND_NS,
    Source,
    chain_of,
    memory_store,
    spooled,
)
from tests.stores import head_of

if TYPE_CHECKING:
    from headrace_proto.store.backend import Store
    from headrace_proto.store.chain import Chain
    from headrace_proto.store.verification import Verification

TEXT = "ä" * 50_000


def _proof(store: Store, **how: Any) -> Verification:
    return verify(store, PROJECT, EXPERIMENT, **how)


def _talkative(*, seconds: int = 12) -> Source:
    """A source that says a bit of everything: values of every kind, ties, hidden points, resets, removed files."""
    a = Source().create(params={"lr": 1e-05, "odd": math.nan, "deep": {"b": [1, 2.0], "a": "ü"}}, tags=["b", "a"])
    a.event(Kind.PROPERTY, NOW_NS, "data", "v3")
    for n in range(seconds):
        time_ns = NOW_NS + n * SECOND_NS
        a.point("loss", float(n % 5), 1 / (n + 1), time_ns)
        a.point("tie", 1.0, float(-n), NOW_NS)
        a.point("tie", -0.0, math.nan if n % 2 else -0.0, NOW_NS)
        a.point("auto", None, math.inf, time_ns)
        a.row({"system/cpu": n, "acc": n / 7}, n, time_ns)
        a.text("log", n, f"line {n % 3}", NOW_NS)
        a.image("pictures", n // 2, bytes([n]) * 30, name=f"p{n}" if n % 2 else None)
        a.artifact(f"notes/{n}.txt", b"%d" % n)
    long = sha256(TEXT.encode()).hexdigest()
    a.text("long", 1, spooled(0, len(TEXT.encode()), long))
    a.event(Kind.RESET, NOW_NS + 2 * SECOND_NS, "loss")
    a.event(Kind.UNLINK, NOW_NS + 99 * SECOND_NS, ["notes/3.txt"])
    return a.close()


def _store_all(chain: Chain, source: Source, cuts: int) -> Chain:
    """Store a source in about `cuts` commits, and its long text."""
    [batch], ends = [source.batch()], source.ends
    edges = [0, *sorted({ends[len(ends) * n // cuts - 1] for n in range(1, cuts + 1)})]
    for first, end in pairwise(edges):
        chain.commit([Batch(source.id, first, end, batch.raw[first:end])], now_ns=NOW_NS)
    for file in head_of(chain).pending.values():
        chain.store.put(file.path, TEXT.encode())
        chain.commit([], files_done=[FileDone(file.source, file.file)], now_ns=NOW_NS)
    return chain


# -- The verdict --------------------------------------------------------------------------------------------------------


def test_a_closed_experiment_of_which_all_is_here_is_complete(files: Store) -> None:
    """Positions from 0 to the watermark, no gaps, every point and file counted: complete, with a digest."""
    source = _talkative()
    _store_all(chain_of(files), source, 5)
    proof = _proof(files)
    assert (proof.verdict, proof.reasons) == ("complete", ())
    [told] = proof.sources
    assert (told.source, told.end, told.stored, told.bytes, told.lost) == (
        source.id,
        "closed",
        source.position,
        source.position,
        (),
    )
    assert {(channel.kind, channel.name): channel.points for channel in proof.channels} == {
        ("numeric", "acc"): 12,
        ("numeric", "auto"): 12,
        ("numeric", "loss"): 9,
        ("numeric", "system/cpu"): 12,
        ("numeric", "tie"): 24,
        ("text", "log"): 12,
        ("text", "long"): 1,
        ("image", "pictures"): 12,
    }
    assert proof.files == 11
    assert re.fullmatch("[0-9a-f]{64}", proof.digest or "")
    assert _proof(files, read=False)._replace(channels=proof.channels, digest=proof.digest) == proof


def test_an_open_source_means_running(files: Store) -> None:
    """What has not ended is running; a writer that was observed dead where its watermark stands has ended."""
    source = Source().create().point("x", 1, 0.5)
    chain = chain_of(files)
    chain.commit([source.batch()], now_ns=NOW_NS)
    assert _proof(files).verdict == "running"
    chain.commit([source.dead()], now_ns=NOW_NS)
    proof = _proof(files)
    assert (proof.verdict, proof.state, proof.sources[0].end) == ("complete", "failed", "dead")


def test_a_death_that_was_asked_for_is_an_end(files: Store) -> None:
    """Observed, as any death, and not its own word."""
    source = Source().create().point("x", 1, 0.5)
    chain_of(files).commit([source.batch(), source.dead(f"{ABORTED}aborted")], now_ns=NOW_NS)
    proof = _proof(files)
    assert (proof.verdict, proof.state, proof.sources[0].end) == ("complete", "aborted", "dead")


def test_what_is_missing_is_told(files: Store) -> None:
    """Lost ranges, dropped events, quarantined events and awaited files each make it incomplete, with the figures."""
    a = Source().create().point("x", 1, 0.5).event(Kind.GAP, NOW_NS, 12, "the disk is full")
    a.artifact("model.bin", spooled(3)).artifact("../out", b"1")
    chain = chain_of(files)
    chain.commit([a.batch()], now_ns=NOW_NS)
    end = a.position
    chain.commit([a.lost(end + 100, "damaged")], now_ns=NOW_NS)
    chain.commit([a.close().batch()], now_ns=NOW_NS)
    proof = _proof(files)
    assert proof.verdict == "incomplete"
    said = "\n".join(proof.reasons)
    for words in (
        f"100 bytes of aaaaaaaa at [{end}, {end + 100}) are lost: damaged",
        "12 events were dropped: the disk is full",
        "'model.bin' (artifact, 100000 bytes) are awaited",
        "1 events are in quarantine",
    ):
        assert words in said
    assert (proof.sources[0].stored, proof.sources[0].bytes) == (a.position, a.position - 100)
    assert proof.sources[0].record.dropped == 12


@pytest.mark.parametrize("what", ["part", "artifact", "bytes", "flipped"])
def test_damage_is_incomplete_and_has_no_digest(files: Store, what: str) -> None:
    """A part or file that is gone, too short or has another digest is named, and no digest is given for what cannot be read."""
    chain = _store_all(chain_of(files), _talkative(), 3)
    part = f"{chain.folder}/{head_of(chain).parts.numeric[0].path}"
    note = f"{chain.folder}/artifacts/notes/2.txt"
    if what == "part":
        files.delete([part])
    elif what == "artifact":
        files.delete([note])
    elif what == "bytes":
        files.put(part, files.read(part)[:-1])
    else:
        files.put(note, b"3")
    proof = _proof(files)
    assert (proof.verdict, proof.digest) == ("incomplete", None)
    assert any((part if "art" not in what else "2.txt") or part in reason for reason in proof.reasons)
    assert any("notes/2.txt" in reason or "channels/part" in reason for reason in proof.reasons)


def test_an_experiment_that_is_not_there(files: Store) -> None:
    """Verifying what was never stored is an error, not a verdict."""
    with pytest.raises(ExperimentNotFound):
        _proof(files)


# -- The digest ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cuts", [1, 3, 40])
def test_the_digest_does_not_depend_on_commits_and_parts(cuts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One commit or forty, before and after compaction, in blocks of any size: the same digest, and the same of each channel."""
    monkeypatch.setattr(compaction, "BLOCK_ROWS", 1 + cuts)
    model, store = memory_store(), memory_store()
    _store_all(chain_of(model), _talkative(), 2)
    chain = _store_all(chain_of(store), _talkative(), cuts)
    expected, before = _proof(model), _proof(store)
    assert chain.compact(now_ns=NOW_NS, final=True) is (cuts > 1)
    after = _proof(store)
    assert expected.digest == before.digest == after.digest is not None
    assert expected.channels == before.channels == after.channels


def test_the_digest_does_not_depend_on_which_source_came_first() -> None:
    """Two ranks whose batches arrive in either order, or together, with points of the same step and time."""
    digests = set()
    for order in ("ab", "ba", "both"):
        store = memory_store()
        ranks = {name: Source(name, "owner" if name == "a" else "rank") for name in "ab"}
        ranks["a"].create()
        for value, rank in enumerate(ranks.values()):
            rank.point("x", 1, value, NOW_NS).text("t", 1, str(value), NOW_NS).close(time_ns=NOW_NS)
        batches = [ranks[name].batch() for name in ("ab" if order == "both" else order)]
        for group in [batches] if order == "both" else [[batch] for batch in batches]:
            chain_of(store).commit(group, now_ns=NOW_NS)
        digests.add(_proof(store).digest)
    assert len(digests) == 1


def test_a_text_in_a_row_and_in_a_file_are_the_same_text() -> None:
    """Where the bytes of a text lie is not content."""
    digests = set()
    for payload in (TEXT, spooled(0, len(TEXT.encode()), sha256(TEXT.encode()).hexdigest())):
        store = memory_store()
        _store_all(chain_of(store), Source().create().text("long", 1, payload, NOW_NS).close(), 1)
        [channel] = _proof(store).channels
        digests.add(channel.digest)
    assert len(digests) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.point("acc", 50, 0.5),
        lambda a: a.text("log", 50, "x"),
        lambda a: a.artifact("notes/1.txt", b"other"),
        lambda a: a.event(Kind.TAGS, NOW_NS, ["c"], []),
        lambda a: a.event(Kind.PROPERTY, NOW_NS + 1, "data", "v4"),
        lambda a: a.event(Kind.PARAMETERS, NOW_NS + 1, {"more": 1}),
    ],
)
def test_any_change_of_content_changes_the_digest(change: Any) -> None:
    """A point, a text, a file's bytes, a tag, a property, a parameter: each is seen."""
    same, other = memory_store(), memory_store()
    _store_all(chain_of(same), _talkative(), 1)
    source = _talkative()
    change(source)
    _store_all(chain_of(other), source, 1)
    assert _proof(same).digest != _proof(other).digest


@pytest.mark.parametrize("final", [False, True])
def test_the_page_in_the_store_computes_the_digest(files: Store, final: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program on FORMAT.md, with pandas and hashlib and none of our code, comes to the digest that `verify` gives."""
    monkeypatch.setattr(finish, "INLINE_ARTIFACTS_MAX", 6)
    chain = _store_all(chain_of(files), _talkative(), 4)
    chain.compact(now_ns=NOW_NS, final=final)
    assert head_of(chain).side is not None
    page = resources.files("headrace_proto.store").joinpath("FORMAT.md").read_text(encoding="utf-8")
    [program] = [code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "sha256" in code]
    folder = Path(files.url, chain.folder)
    found = subprocess.run(
        [sys.executable, "-I", "-c", program], cwd=folder, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == _proof(files).digest


def test_lost_bytes_that_come_later_heal(files: Store) -> None:
    """A range that was lost and arrived after all leaves nothing to tell."""
    a = Source().create().point("x", 1, 0.5).close()
    batch = a.batch()
    chain = chain_of(files)
    chain.commit([Batch(a.id, 0, batch.end, b"", FrameKind.LOST, "damaged")], now_ns=NOW_NS)
    assert _proof(files).verdict == "incomplete"
    chain.commit([batch], now_ns=NOW_NS)
    assert _proof(files).verdict == "complete"
    assert sum(part.rows for kind in PART_KINDS for part in head_of(chain).parts.of(kind)) == 1
