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
from tests.proto.store_base.faults import FaultyStore, History, seeded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headrace_proto.store.backend import Store
    from tests.proto.store_base.faults import Fault

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

    def test_put_makes_or_replaces_whole(self, store: Store, outsider: Callable[[str], bytes]) -> None:
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

    def test_what_is_absent_has_no_bytes_size_or_names(self, store: Store) -> None:
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

    def test_a_url_opens_the_same_store_again(self, store: Store) -> None:
        """`url` is what `open_store` takes, and `url_of` begins with it."""
        store.put("a", b"1")
        assert open_store(store.url, writable=False).read("a") == b"1"
        assert store.url_of("a/b") == f"{store.url}/a/b"

    # -- Through faults -------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("fault", ["before", "after", "late"])
    def test_a_create_that_fails_has_happened_or_not(self, store: Store, fault: Fault) -> None:
        """Whoever was not answered looks again, and finds its own nonce or makes the object: once, whoever comes between."""
        faulty = FaultyStore(store, {0: fault})
        with pytest.raises(TimeoutError):
            faulty.create("commits/1", b"nonce 1")
        made = faulty.create("commits/1", b"nonce 1")
        assert made is (fault == "before")
        assert faulty.read("commits/1") == b"nonce 1"
        assert not store.create("commits/1", b"nonce 2")
        assert store.read("commits/1") == b"nonce 1"

    def test_creates_that_race_and_fail_have_one_winner(self, url: str) -> None:
        """Of 6 clients whose every call may fail, all of whom insist, each object has one winner's bytes for ever."""
        clients = [FaultyStore(open_store(url), plan=seeded(n, 0.4)) for n in range(6)]
        gate = threading.Barrier(len(clients))

        def insist(number: int) -> list[bytes]:
            seen = []
            for round_ in range(4):
                gate.wait()
                path, own = f"commits/{round_}", b"writer %d" % number
                while True:
                    try:
                        clients[number].create(path, own)
                        seen.append(clients[number].read(path))
                        break
                    except (TimeoutError, ConnectionResetError):
                        continue
            return seen

        with ThreadPoolExecutor(len(clients)) as pool:
            seen = list(pool.map(insist, range(len(clients))))
        for client in clients:
            client.heal()  # what was late arrives now, and finds the object there
        fresh = open_store(url, writable=False)
        assert {tuple(own) for own in seen} == {tuple(fresh.read(f"commits/{round_}") for round_ in range(4))}

    def test_a_put_that_fails_left_the_old_or_the_new(self, store: Store) -> None:
        """A put without an answer has replaced the object, or has not, and never in part; the next put mends it."""
        store.put("document", b"old")
        faulty = FaultyStore(store, {0: "before", 1: "after"})
        for expected in (b"old", b"new"):
            with pytest.raises(TimeoutError):
                faulty.put("document", b"new")
            assert store.read("document") == expected
        faulty.put("document", b"newer")
        assert store.read("document") == b"newer"

    def test_a_stream_torn_on_its_way_shows_nothing(self, store: Store) -> None:
        """An upload that breaks in the middle of a block leaves no object, leaves the old one, and does not stand in the way."""
        store.put("kept", b"old")
        blocks = [bytes([n]) * MIB for n in range(3)]
        for path in ("kept", "new"):
            faulty = FaultyStore(store, {0: "torn", 1: "before", 2: "after"})
            with pytest.raises(ConnectionResetError):
                faulty.put_stream(path, blocks)
            with pytest.raises(TimeoutError):
                faulty.put_stream(path, blocks)
            assert (store.read("kept"), store.size("new")) == (b"old", None) or path == "new"
            assert store.size(path) == (3 if path == "kept" else None)
            with pytest.raises(TimeoutError):
                faulty.put_stream(path, blocks)
            assert store.read(path) == b"".join(blocks)

    def test_a_delete_that_fails_can_be_repeated(self, store: Store) -> None:
        """A delete without an answer is given again: what is gone already is no failure."""
        for fault in ("before", "after"):
            store.put("parts/1", b"1")
            faulty = FaultyStore(store, {0: fault})
            with pytest.raises(TimeoutError):
                faulty.delete(["parts/1"])
            faulty.delete(["parts/1"])
            assert store.size("parts/1") is None

    def test_a_slow_reader_holds_up_nobody(self, store: Store) -> None:
        """While one client's read of a large object hangs, others create, replace, list and delete, that object too."""
        store.put("large", bytes(MIB))
        slow = store.open("large")
        slow.read(10)
        assert store.create("new", b"1")
        store.put("large", b"replaced")
        assert "new" in store.names("")
        store.delete(["large"])
        slow.close()
        assert store.size("large") is None

    def test_a_stale_listing_is_put_right_by_asking(self, store: Store) -> None:
        """A listing that lacks what is new, or shows what is gone: size and read tell the truth of each name."""
        faulty = FaultyStore(store, history=History())
        for number in range(2):
            faulty.create(f"commits/{number}", b"1")
        faulty.delete(["commits/0"])
        faulty.plan = lambda call: "stale" if call.method == "names" else None
        assert faulty.names("commits") == []
        assert (faulty.size("commits/0"), faulty.size("commits/1")) == (None, 1)
        faulty.create("commits/2", b"1")
        faulty.create("commits/3", b"1")
        assert faulty.names("commits") == ["0", "1"]
        with pytest.raises(FileNotFoundError):
            faulty.read("commits/0")
        assert not faulty.create("commits/1", b"2")
