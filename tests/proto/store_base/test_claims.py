"""Keys and numbers are given away once, whoever asks, however many ask at once, and whatever is lost on the way."""

from __future__ import annotations

import json
import multiprocessing
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_proto.errors import Corrupt, FormatUnknown, InvalidName
from headrace_proto.ids import project_id, random_id
from headrace_proto.store import layout
from headrace_proto.store.backend import open_store
from headrace_proto.store.claims import claim_id, claim_number, claim_project, projects, read_project
from tests.proto.store_base.faults import FaultyStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace_proto.store.backend import Store

PROJECT = "vision/digits"


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(str(tmp_path_factory.mktemp("store")))


def _claims(store: Store, project: str = PROJECT) -> dict[int, str]:
    """Number -> experiment, read as a person would."""
    return {
        int(name.removesuffix(".json")): json.loads(store.read(f"{project}/ids/{name}"))["owner"]
        for name in store.names(f"{project}/ids")
    }


def test_a_project_is_claimed_once(store: Store) -> None:
    """The record is made by the first call and found by the next; a store without the project has none."""
    assert read_project(store, PROJECT) is None
    record = claim_project(store, PROJECT)
    assert (record.name, record.key, record.id, record.shards) == (PROJECT, "DIG", project_id(PROJECT), 1)
    assert claim_project(store, PROJECT) == read_project(store, PROJECT) == record


def test_keys_that_clash_are_told_apart(store: Store) -> None:
    """Projects whose names begin alike have different keys in one store, whatever their workspace."""
    names = [PROJECT, "vision/digital", "audio/digits", "audio/dig", "audio/42", "audio/x"]
    keys = [claim_project(store, name).key for name in names]
    assert keys == ["DIG", "DIGI", "DIG2", "DIG3", "P42", "X"]
    assert projects(store) == sorted(names)


def test_a_claim_is_finished_by_the_next_call(store: Store) -> None:
    """A process killed after it claimed the key, and before it wrote the record, costs no second key."""
    faulty = FaultyStore(store, {1: "before"})
    with pytest.raises(TimeoutError):
        claim_project(faulty, PROJECT)
    assert read_project(store, PROJECT) is None
    assert claim_project(store, PROJECT).key == "DIG"
    assert store.names(layout.KEYS) == ["DIG.json"]


def test_concurrent_claims_of_projects_agree(store: Store) -> None:
    """Eight threads that claim four projects with one stem get one key each, the same for each thread."""
    names = [f"w{n}/digits" for n in range(4)]
    gate = threading.Barrier(8)

    def claim(number: int) -> dict[str, str]:
        gate.wait()
        return {name: claim_project(store, name).key for name in names[number % 4 :] + names[: number % 4]}

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(claim, range(8)))
    assert all(keys == found[0] for keys in found)
    assert len(set(found[0].values())) == 4


def test_what_lies_beside_projects_is_none(store: Store) -> None:
    """Folders without a record, and names that no project may have, are not listed."""
    claim_project(store, PROJECT)
    store.put("vision/other/notes.txt", b"")
    store.put("vision/.hidden/project.json", b"")
    store.put("README.md", b"")
    assert projects(store) == [PROJECT]


@pytest.mark.parametrize("name", ["digits", "../x", "a/b/c", "_headrace/keys"])
def test_bad_project_names_are_refused(store: Store, name: str) -> None:
    """A name that no project may have never becomes a path."""
    with pytest.raises(InvalidName):
        claim_project(store, name)


def test_damaged_and_newer_records_are_told_apart(store: Store) -> None:
    """A record of a newer release and one that is no record raise different errors, and neither is overwritten."""
    for name, data, error in (("a/newer", b'{"format": 2}', FormatUnknown), ("a/damaged", b"{", Corrupt)):
        store.put(layout.project_file(name), data)
        with pytest.raises(error):
            claim_project(store, name)
        assert store.read(layout.project_file(name)) == data


def test_numbers_count_up(store: Store) -> None:
    """Numbers are 1, 2, 3, ... with the experiment's id inside, whether or not the caller has a hint."""
    experiments = [random_id() for _ in range(20)]
    numbers = [claim_number(store, PROJECT, experiment) for experiment in experiments[:10]]
    for experiment in experiments[10:]:
        numbers.append(claim_number(store, PROJECT, experiment, hint=numbers[-1] + 1))
    assert numbers == list(range(1, 21))
    assert _claims(store) == dict(zip(numbers, experiments, strict=True))


def test_a_wanted_id_is_given_where_it_is_free(store: Store) -> None:
    """An import brings its ids: to the same experiment again, to another one the next number, and never another project's key."""
    first, second = random_id(), random_id()
    assert claim_id(store, PROJECT, first, "SAN-12") == claim_id(store, PROJECT, first, "SAN-12") == "SAN-12"
    taken = claim_id(store, PROJECT, second, "SAN-12")
    assert taken != "SAN-12"
    assert taken.startswith("SAN-")
    assert claim_id(store, PROJECT, random_id(), "OTHER-3").startswith("SAN-")
    assert claim_id(store, "else/where", random_id(), "SAN-5") == "WHE-1"
    assert claim_id(store, "third/one", random_id(), "not an id") == "ONE-1"
    owners = _claims(store)
    assert (owners[12], len(owners)) == (first, 3)


def test_the_end_is_found_in_few_steps(store: Store) -> None:
    """After 500 numbers the next one costs two dozen looks, not 500."""

    class Counting(FaultyStore):
        looks = 0

        def size(self, path: str) -> int | None:
            self.looks += 1
            return super().size(path)

    for number in range(1, 501):
        store.create(
            layout.claim_file(PROJECT, number), b'{"format": 1, "owner": "x", "claimed_at": "2026-01-01T00:00:00Z"}'
        )
    counting = Counting(store)
    assert claim_number(counting, PROJECT, random_id()) == 501
    assert counting.looks <= 24


def test_a_claim_cut_off_is_found_again(store: Store) -> None:
    """A claim whose answer was lost, or whose process died before the first commit, is taken up by the next call."""
    experiment = random_id()
    claim_number(store, PROJECT, random_id())
    with pytest.raises(TimeoutError):
        claim_number(FaultyStore(store, {1: "after"}), PROJECT, experiment)
    assert claim_number(store, PROJECT, experiment) == 2
    assert claim_number(store, PROJECT, experiment, hint=2) == 2
    assert sorted(_claims(store)) == [1, 2]


@settings(max_examples=10)
@given(hints=st.lists(st.integers(1, 40), min_size=2, max_size=8), each=st.integers(1, 4))
def test_no_number_twice_over_threads(tmp_path_factory: pytest.TempPathFactory, hints: list[int], each: int) -> None:
    """Claimers with any hints, all at once, never share a number, and each number has its claimer's experiment inside."""
    store = open_store(str(tmp_path_factory.mktemp("store")))
    gate = threading.Barrier(len(hints))

    def claim(hint: int) -> list[tuple[int, str]]:
        gate.wait()
        return [(claim_number(store, PROJECT, experiment, hint), experiment) for experiment in _ids(each)]

    with ThreadPoolExecutor(len(hints)) as pool:
        claimed = [pair for pairs in pool.map(claim, hints) for pair in pairs]
    assert len(dict(claimed)) == len(hints) * each
    assert _claims(store) == dict(claimed)


def _ids(count: int) -> Iterator[str]:
    return (random_id() for _ in range(count))


def _claim_many(url: str, count: int) -> list[tuple[int, str]]:
    store = open_store(url)
    return [(claim_number(store, PROJECT, experiment), experiment) for experiment in _ids(count)]


def test_no_number_twice_over_processes(store: Store) -> None:
    """Four processes that claim 25 numbers each have 100 numbers between them, 1 to 100."""
    with ProcessPoolExecutor(4, multiprocessing.get_context("spawn")) as pool:
        claimed = [pair for pairs in pool.map(_claim_many, [store.url] * 4, [25] * 4) for pair in pairs]
    assert sorted(number for number, _ in claimed) == list(range(1, 101))
    assert _claims(store) == dict(claimed)


def test_no_number_twice_on_s3(s3_url: str) -> None:
    """The same over S3: conditional creates decide."""
    with ThreadPoolExecutor(4) as pool:
        claimed = [pair for pairs in pool.map(_claim_many, [s3_url] * 4, [3] * 4) for pair in pairs]
    assert len(dict(claimed)) == 12
    assert _claims(open_store(s3_url)) == dict(claimed)
