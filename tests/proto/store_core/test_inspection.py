"""Inspection: each kind of damage is found, named and, where nothing has to be invented, mended; a sound store has none."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from headrace_proto.limits import RETENTION_S
from headrace_proto.store import compaction, layout, parts, uploads
from headrace_proto.store.backend import open_store, store_id
from headrace_proto.store.catalog import Catalog, append_rows, read_rows, row_of
from headrace_proto.store.chain import FileDone
from headrace_proto.store.inspection import Depth, Finding, Options, Severity, inspect
from headrace_proto.store.inspection.findings import FRESH_S
from headrace_proto.store.times import us_of
from tests.proto.store_base.faults import Call, FaultyStore
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
from tests.proto.store_core.world import live
from tests.stores import head_of, list_newest

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace_proto.store.backend import Store

FOLDER = layout.experiment_folder(PROJECT, EXPERIMENT)
COMMITS = layout.commits_folder(PROJECT, EXPERIMENT)
LATER_NS = NOW_NS + 3600 * SECOND_NS
"""When nothing is fresh any more."""


def _find(store: Store, **how: Any) -> list[Finding]:
    return list(inspect(store, Options(**{"now_ns": LATER_NS, "depth": Depth.DIGESTS, **how})))


def _errors(store: Store, **how: Any) -> list[str]:
    return [f"{found.path}: {found.says}" for found in _find(store, **how) if found.severity is Severity.ERROR]


@pytest.fixture
def sound(files: Store) -> Store:
    """A store with an experiment of five commits, of which nothing is wrong."""
    chain, a = chain_of(files), Source().create()
    for n in range(5):
        a.point("x", n, 0.5).point("y", n, 1.5).text("log", n, f"{n}").image("img", n, b"%d" % n)
        a.artifact(f"{n}.txt", b"%d" % n)
        chain.commit([a.close().batch() if n == 4 else a.batch()], now_ns=NOW_NS + n)
        list_newest(chain)
    assert _find(files) == []
    return files


def _rewrite(files: Store, at: int, **changes: Any) -> None:
    """Write a commit anew, with some fields changed."""
    path = f"{COMMITS}/{layout.digits(at)}.json"
    files.put(path, json.dumps(json.loads(files.read(path)) | changes).encode())


def _part(store: Store, kind: str = "numeric", number: int = 2) -> str:
    parts_of = getattr(head_of(chain_of(store)).parts, kind)
    return f"{FOLDER}/{parts_of[number].path}"


def _swapped(store: Store, path: str) -> bytes:
    """A part with its rows in the wrong order, and the size and counts of the right one."""
    table = parts.read(store, "numeric", [path])
    return parts.encoded("numeric", table.take([1, 0])).ljust(store.size(path) or 0)


def _flipped(data: bytes) -> bytes:
    return data[:30] + bytes([data[30] ^ 1]) + data[31:]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda s: s.delete([_part(s)]), "it is missing; 2 points are gone, of x, y"),
        (lambda s: s.put(_part(s), s.read(_part(s))[:-5]), "bytes, not"),
        (lambda s: s.put(_part(s), b"x" * (s.size(_part(s)) or 0)), "it cannot be read"),
        (lambda s: s.put(_part(s), _flipped(s.read(_part(s)))), "it cannot be read"),
        (lambda s: s.delete([_part(s, "text")]), "1 points are gone, of log"),
        (lambda s: s.delete([f"{FOLDER}/artifacts/3.txt"]), "it is missing"),
        (lambda s: s.put(f"{FOLDER}/artifacts/3.txt", b"33"), "it has 2 bytes, not 1"),
        (lambda s: s.put(f"{FOLDER}/artifacts/3.txt", b"4"), "it has the digest"),
        (lambda s: s.delete([f"{FOLDER}/images/img/{s.names(f'{FOLDER}/images/img')[0]}"]), "a point names it"),
        (lambda s: s.put(f"{COMMITS}/{layout.digits(5)}.json", b"{"), "is no document"),
        (lambda s: s.put(f"{COMMITS}/{layout.digits(3)}.json", b"{"), "is no document"),
        (lambda s: _rewrite(s, 3, number=4), "it says that it is commit 4"),
        (lambda s: _rewrite(s, 5, store="other"), "it was written for the store other"),
        (lambda s: _rewrite(s, 4, sources={}), "goes back from"),
        (lambda s: s.delete([layout.STORE_FILE]), "it is missing"),
        (lambda s: s.put(layout.STORE_FILE, b"{}"), "is damaged"),
        (lambda s: s.delete([layout.claim_file(PROJECT, 1)]), "nobody has claimed DIG-1"),
        (lambda s: s.delete([layout.key_file("DIG")]), "the key of vision/digits is not claimed"),
        (lambda s: s.delete([layout.project_file(PROJECT)]), "no list shows the project"),
        (lambda s: s.put(layout.project_file(PROJECT), b"{}"), "is no document"),
    ],
)
def test_damage_is_found_and_not_made_up_for(sound: Store, damage: Callable[[Store], object], words: str) -> None:
    """What was written and is gone, or is not what it was, is an error with its meaning, also after a repair."""
    damage(sound)
    for repair in (False, True):
        assert any(words in told for told in _errors(sound, repair=repair)), _find(sound)


def _row(store: Store, commit: int, experiment: str = EXPERIMENT) -> None:
    row = row_of(head_of(chain_of(store)))
    append_rows(store, PROJECT, [row.model_copy(update={"commit": commit, "experiment": experiment})])


def _no_catalog(store: Store) -> None:
    store.delete(Catalog(store, PROJECT)._paths())


def _old_catalog(store: Store) -> None:
    _no_catalog(store)
    _row(store, 2)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_no_catalog, "no list shows it"),
        (_old_catalog, "shows commit 2, not 5"),
        (lambda s: _row(s, 9), "is of commit 9, the newest is 5"),
        (lambda s: _row(s, 1, "d" * 32), "1 rows of experiments that are not there"),
        (lambda s: s.put(f"{layout.catalog_folder(PROJECT, 0)}/delta-{1:010d}-{'0' * 32}.json", b"{"), "is damaged"),
        (lambda s: s.delete([f"{FOLDER}/experiment.json"]), "it is missing"),
        (lambda s: s.put(f"{FOLDER}/experiment.json", b"{"), "it cannot be read"),
        (
            lambda s: s.put(
                f"{FOLDER}/experiment.json", s.read(f"{FOLDER}/experiment.json").replace(b'"commit": 5', b'"commit": 7')
            ),
            "it shows commit 7, and the newest is 5",
        ),
        (
            lambda s: s.put(
                f"{FOLDER}/experiment.json", s.read(f"{FOLDER}/experiment.json").replace(b'"commit": 5', b'"commit": 3')
            ),
            "it shows commit 3, not 5",
        ),
        (
            lambda s: s.put(f"{FOLDER}/experiment.json", s.read(f"{FOLDER}/experiment.json").replace(b"mlp", b"plm")),
            "it says something else than commit 5",
        ),
    ],
)
def test_copies_of_the_truth_are_mended(sound: Store, damage: Callable[[Store], object], words: str) -> None:
    """A wrong catalog or `experiment.json` is an error; the repair writes it from the commits, and then nothing is wrong."""
    damage(sound)
    assert any(words in told for told in _errors(sound))
    assert all(found.mended for found in _find(sound, repair=True) if found.severity is Severity.ERROR)
    assert _find(sound) == []
    assert [(row.experiment, row.commit) for row in read_rows(sound, PROJECT)] == [(EXPERIMENT, 5)]


def test_what_is_fresh_is_given_time(sound: Store) -> None:
    """Beside a running collector a row may be missing for a moment: that is no finding."""
    _no_catalog(sound)
    head = head_of(chain_of(sound))
    young = us_of(head.written_at) * 1000 + round(FRESH_S * 1e9) - SECOND_NS
    assert _find(sound, now_ns=young) == []
    assert len(_errors(sound)) == 1


def test_leftovers_are_counted_and_swept(sound: Store) -> None:
    """A part that no commit names and a temporary file: fresh ones are left alone, old ones are removed by a repair."""
    orphan = layout.channel_part(PROJECT, EXPERIMENT, 3, "f" * 32)
    sound.put(orphan, b"12345")
    sound.put(f"{layout.TEMPORARY}/killed", b"123")
    [young] = _find(sound, now_ns=NOW_NS)
    assert (young.severity, sound.size(orphan)) == (Severity.NOTE, 5)
    modified_ns = sound.modified_ns(orphan)
    assert modified_ns is not None
    old_ns = modified_ns + round((RETENTION_S + 60) * 1e9)
    said = [(found.severity, found.says) for found in _find(sound, now_ns=old_ns)]
    assert [severity for severity, _ in said] == [Severity.WARNING] * 2
    assert "3 bytes" in said[0][1]
    assert "5 bytes" in said[1][1]
    assert all(found.mended for found in _find(sound, now_ns=old_ns, repair=True, grace_s=0.0))
    assert (sound.size(orphan), sound.names(layout.TEMPORARY)) == (None, [])
    assert _errors(sound) == []


def test_files_on_their_way_and_quarantine_are_told(files: Store) -> None:
    """A file of which half has come, and why events are in quarantine."""
    a = Source().create().artifact("model.bin", spooled(0, 3000)).artifact("../out", b"1")
    chain = chain_of(files)
    chain.commit([a.batch()], now_ns=NOW_NS)
    list_newest(chain)
    files.create(layout.piece_file(PROJECT, EXPERIMENT, a.id, spooled(0)["file"], 0), bytes(1000))
    said = "\n".join(found.says for found in _find(files))
    assert "1000 of 3000 bytes of 'model.bin' have come" in said
    assert "1 frames or events are in quarantine: 1 x artifact path '../out'" in said
    chain.commit([a.close().batch()], now_ns=NOW_NS)
    assert [found.severity for found in _find(files) if "have come" in found.says] == [Severity.WARNING]
    chain.commit([], files_done=[FileDone(a.id, spooled(0)["file"], "it was changed")], now_ns=NOW_NS)
    assert not any("have come" in found.says for found in _find(files))


def test_two_experiments_of_one_number(sound: Store) -> None:
    """A number that two experiments bear is an error that names both."""
    other = "f" * 32
    for name in sound.names(COMMITS):
        data = sound.read(f"{COMMITS}/{name}").replace(EXPERIMENT.encode(), other.encode())
        sound.put(f"{layout.commits_folder(PROJECT, other)}/{name}", data)
    assert any(f"DIG-1 is the number of {EXPERIMENT} and of {other}" in told for told in _errors(sound))


def test_a_part_that_is_merged_meanwhile_is_no_damage(sound: Store) -> None:
    """A compaction and a sweep between the look at a commit and at its parts: the newest commit is looked at instead."""

    class Merging(FaultyStore):
        times = 1

        def size(self, path: str) -> int | None:
            if self.times and "/channels/part" in path:
                self.times -= 1
                old = [f"{FOLDER}/{part.path}" for part in head_of(chain_of(sound)).parts.numeric]
                chain_of(sound).compact(now_ns=NOW_NS, final=True)
                sound.delete(old)
            return super().size(path)

    assert not [told for told in _errors(Merging(sound)) if "part" in told]


def test_commits_that_are_made_meanwhile_are_no_damage(files: Store) -> None:
    """A run that goes on while it is looked at shows a newer commit in its document than was there at the first look."""
    chain, a = chain_of(files), Source().create()
    chain.commit([a.point("x", 0, 0.5).batch()], now_ns=NOW_NS)
    list_newest(chain)
    made: list[int] = []

    def commit_meanwhile(call: Call) -> None:
        if call.path.endswith("/experiment.json") and len(made) < 5:
            made.append(call.number)
            chain.commit([a.point("x", len(made), 0.5).batch()], now_ns=LATER_NS)

    assert _errors(FaultyStore(files, plan=commit_meanwhile)) == []
    assert made
    assert _errors(files) == []


@pytest.mark.parametrize("seed", range(12))
def test_a_world_of_faults_leaves_nothing_to_find(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """After faults, deaths, rivals, merges and sweeps no commit, part, file, row, claim or document is wrong."""
    monkeypatch.setattr(compaction, "PARTS_MAX", 4)
    monkeypatch.setattr(uploads, "PIECE_BYTES", 1000)
    store = memory_store()
    live(store, seed, 0.1, 2)
    store_id(store)
    found = [told for told in _find(store, now_ns=NOW_NS + 10**15) if told.severity is not Severity.NOTE]
    assert not [told for told in found if told.severity is Severity.ERROR and not told.path.endswith("experiment.json")]
    _find(store, now_ns=NOW_NS + 10**15, repair=True)
    assert _errors(store, now_ns=NOW_NS + 10**15) == []


def test_a_repair_beside_writers_harms_nothing(tmp_path: Any) -> None:
    """Repairs without any grace while a collector commits, merges and lists: every point is stored once, all is listed."""
    url, done = str(tmp_path / "store"), threading.Event()
    store_id(open_store(url))
    repairs = 0

    def repair() -> None:
        nonlocal repairs
        while not done.is_set():
            list(inspect(open_store(url), Options(repair=True, grace_s=0.0, now_ns=LATER_NS)))
            repairs += 1

    thread = threading.Thread(target=repair)
    thread.start()
    try:
        store = open_store(url)
        chain, a = chain_of(store), Source().create()
        for n in range(60):
            a.point("x", n, 0.5).image("img", n, b"%d" % n).artifact(f"{n % 7}.txt", b"%d" % n)
            chain.commit([a.batch()], now_ns=NOW_NS + n)
            list_newest(chain)
            if n % 10 == 9:
                chain.compact(now_ns=NOW_NS + n, final=True)
        chain.commit([a.close().batch()], now_ns=NOW_NS)
        list_newest(chain)
    finally:
        done.set()
        thread.join()
    assert repairs > 0
    list(inspect(store, Options(repair=True, grace_s=0.0, now_ns=LATER_NS)))
    assert _errors(store) == []
    assert chain_of(store).read("numeric")["step"].to_pylist() == list(range(60))
