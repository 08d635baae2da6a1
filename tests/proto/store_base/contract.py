"""The contract of `Store`, as a class: a new back end subclasses it and gives the fixtures `url` and `outsider`.

`outsider` reads the back end without the subject, by the back end's own means, so that a test never asks a store about itself.
"""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from headrace_proto.errors import InvalidName
from headrace_proto.store.backend import open_store
from tests.proto.store_base.faults import FaultyStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headrace_proto.store.backend import Store

MIB = 1024 * 1024


class StoreContract:
    """What every back end must do."""

    @pytest.fixture
    def url(self) -> str:
        raise NotImplementedError

    @pytest.fixture
    def outsider(self, url: str) -> Callable[[str], bytes]:
        raise NotImplementedError

    @pytest.fixture
    def store(self, url: str) -> Store:
        return open_store(url)

    def test_create_makes_an_object_once(self, store: Store, outsider: Callable[[str], bytes]) -> None:
        """The first create makes the object, the second changes nothing and says so."""
        assert store.create("a/b/c.json", b"first")
        assert not store.create("a/b/c.json", b"second")
        assert outsider("a/b/c.json") == b"first"

    def test_one_of_many_concurrent_creates_wins(self, url: str, outsider: Callable[[str], bytes]) -> None:
        """Of 8 threads with a store each that create the same 5 objects at once, one wins each, with its own bytes."""
        stores = [open_store(url) for _ in range(8)]
        for round_ in range(5):
            path = f"commits/{round_:020d}.json"
            gate = threading.Barrier(len(stores))

            def contend(number: int, path: str = path, gate: threading.Barrier = gate) -> bool:
                gate.wait()
                return stores[number].create(path, b"writer %d" % number)

            with ThreadPoolExecutor(len(stores)) as pool:
                won = list(pool.map(contend, range(len(stores))))
            assert sum(won) == 1
            assert outsider(path) == b"writer %d" % won.index(True)

    def test_put_replaces(self, store: Store, outsider: Callable[[str], bytes]) -> None:
        """Put makes an object or replaces it whole, with a shorter one too."""
        store.put("experiment.json", b"a longer document")
        store.put("experiment.json", b"short")
        assert outsider("experiment.json") == b"short"

    def test_readers_never_see_part_of_a_put(self, url: str, store: Store) -> None:
        """While one thread replaces an object, readers see one whole version or another."""
        versions = [bytes([n]) * (256 * 1024 + n) for n in range(6)]
        store.put("document", versions[0])
        done = threading.Event()

        def replace() -> None:
            for version in versions[1:]:
                store.put("document", version)
            done.set()

        reader = open_store(url, writable=False)
        seen = []
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(replace)
            while not done.is_set() and not writing.done():
                seen.append(reader.read("document"))
            writing.result()
        seen.append(reader.read("document"))
        assert all(data in versions for data in seen)
        assert seen[-1] == versions[-1]

    def test_a_stream_of_blocks_becomes_one_object(self, store: Store) -> None:
        """40 MiB in blocks of any size arrive as they were, and an empty stream makes an empty object."""
        digest = hashlib.sha256()

        def blocks() -> Iterator[bytes]:
            for number in range(40):
                block = number.to_bytes(2, "big") * (MIB // 2)
                digest.update(block)
                yield block

        store.put_stream("artifacts/model.bin", blocks())
        assert store.size("artifacts/model.bin") == 40 * MIB
        with store.open("artifacts/model.bin") as file:
            found = hashlib.sha256(file.read())
        assert found.digest() == digest.digest()
        store.put_stream("artifacts/empty", iter(()))
        assert store.read("artifacts/empty") == b""

    def test_a_broken_stream_changes_nothing(self, store: Store) -> None:
        """When the blocks raise, at once or after many bytes, their own exception comes out and the old object stays."""

        class Broken(Exception):
            pass

        def broken(blocks: int) -> Iterator[bytes]:
            for _ in range(blocks):
                yield bytes(MIB)
            raise Broken

        store.put("kept", b"old")
        for blocks in (0, 20):
            with pytest.raises(Broken):
                store.put_stream("kept", broken(blocks))
            with pytest.raises(Broken):
                store.put_stream("new", broken(blocks))
        assert store.read("kept") == b"old"
        assert store.size("new") is None

    def test_open_gives_a_seekable_file(self, store: Store) -> None:
        """An open object can be read from its end backward, as Parquet readers do."""
        store.put("part", bytes(range(256)) * 64)
        with store.open("part") as file:
            assert file.seek(-4, 2) == 256 * 64 - 4
            assert file.read() == bytes((252, 253, 254, 255))
            file.seek(256)
            assert file.read(3) == bytes((0, 1, 2))

    def test_absent_objects(self, store: Store) -> None:
        """What is not there has no bytes, no size and no names, and deleting it is fine; a folder is no object."""
        store.put("folder/object", b"")
        for path in ("absent", "folder", "folder/object/below"):
            with pytest.raises(FileNotFoundError):
                store.read(path)
            assert store.size(path) is None
        with pytest.raises(FileNotFoundError), store.open("absent") as file:
            file.read()
        assert store.names("absent") == []
        assert store.names("absent/deeper") == []
        store.delete(["absent", "absent/deeper"])

    def test_names_are_direct_children_sorted(self, store: Store) -> None:
        """A listing has objects and folders directly below, sorted, no deeper one and no temporary one."""
        for path in ("x/b.json", "x/a.json", "x/sub/deep/c", "x2/d", "x/ü [1]*.txt"):
            store.put(path, b"1")
        assert store.names("x") == ["a.json", "b.json", "sub", "ü [1]*.txt"]
        assert [name for name in store.names("") if not name.startswith("_")] == ["x", "x2"]

    def test_listings_are_fresh(self, url: str) -> None:
        """An instance that has listed a folder sees what another makes and deletes there afterwards."""
        one, other = open_store(url), open_store(url)
        for number in range(3):
            assert one.names("commits") == [f"{n}" for n in range(number)]
            other.create(f"commits/{number}", b"")
            assert one.names("commits")[-1] == f"{number}"
            assert one.size(f"commits/{number}") == 0
        other.delete(["commits/0", "commits/1"])
        assert one.names("commits") == ["2"]
        assert one.size("commits/0") is None

    def test_ages_are_of_one_clock(self, store: Store) -> None:
        """The times of objects follow the order in which they were written; what is absent, or a folder, has none."""
        store.put("ages/first", b"1")
        assert store.create("ages/second", b"1")
        store.put_stream("ages/third", [b"1"])
        times = [store.modified_ns(f"ages/{name}") or 0 for name in ("first", "second", "third")]
        assert times == sorted(times)
        assert 0 < times[0] <= times[-1] < times[0] + 3600 * 10**9
        assert store.modified_ns("absent") is store.modified_ns("ages") is None

    def test_deleted_objects_are_gone(self, store: Store) -> None:
        """Delete removes what it names and nothing else, and an emptied folder is no name any more."""
        for number in range(5):
            store.put(f"parts/{number}", b"1")
        store.delete([f"parts/{number}" for number in range(4)])
        assert store.names("parts") == ["4"]
        store.delete(["parts/4"])
        assert "parts" not in store.names("")

    @pytest.mark.parametrize(
        "path", ["", "/etc/passwd", "../out", "a/../../out", "a//b", "a/", "./a", "a\\b", "a\0b", ".."]
    )
    def test_paths_that_leave_the_root_are_refused(self, store: Store, path: str) -> None:
        """No method takes a path with '..', an absolute one, or one with empty parts."""
        for call in (store.read, store.open, store.size, store.modified_ns, store.url_of):
            with pytest.raises(InvalidName):
                call(path)
        with pytest.raises(InvalidName):
            store.create(path, b"")
        with pytest.raises(InvalidName):
            store.put(path, b"")
        with pytest.raises(InvalidName):
            store.put_stream(path, [b""])
        with pytest.raises(InvalidName):
            store.delete([path])
        if path:
            with pytest.raises(InvalidName):
                store.names(path)

    def test_a_lost_answer_looks_like_exists(self, store: Store) -> None:
        """A create whose answer is lost has made the object: the second try says False and the nonce inside is ours."""
        faulty = FaultyStore(store, {0: "before", 1: "after"})
        for _ in range(2):
            with pytest.raises(TimeoutError):
                faulty.create("commits/1", b"nonce 1")
        assert not faulty.create("commits/1", b"nonce 1")
        assert faulty.read("commits/1") == b"nonce 1"

    def test_a_url_opens_the_same_store_again(self, store: Store) -> None:
        """`url` is what `open_store` takes, and `url_of` begins with it."""
        store.put("a", b"1")
        assert open_store(store.url, writable=False).read("a") == b"1"
        assert store.url_of("a/b") == f"{store.url}/a/b"
