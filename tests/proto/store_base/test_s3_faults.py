"""S3 as networks make it: a proxy in front of a real S3 API refuses, resets, cuts and holds back what goes through it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import s3fs

from headrace_proto.store.backend import open_store
from tests.faults.http_proxy import HttpProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headrace_proto.store.backend import Store
    from tests.faults.http_proxy import HttpFault

MIB = 1024 * 1024
FOR_EVER = 1_000_000
SILENCE_S = 0.5
PATIENCE_S = 30.0
REQUESTS_MAX = 8
"""Of one call to a store that is out of order, when botocore tries once: doubled by aiohttp on a connection that was in use,
times 2 of s3fs, twice for a read. s3fs' own settings came to 50 here, and to 250 with botocore's own 5."""


@pytest.fixture
def proxy(
    request: pytest.FixtureRequest, s3_url: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[HttpProxy]:
    """The proxy through which `store` reaches its bucket. Only where it falls silent is its answer not waited for."""
    with HttpProxy(s3_endpoint) as proxy:
        patience_s = SILENCE_S if "silent" in request.node.name or "down" in request.node.name else PATIENCE_S
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
        monkeypatch.setattr(s3fs.S3FileSystem, "read_timeout", patience_s)
        monkeypatch.setattr("headrace_proto.store.remote._CONFLICT_WAIT_S", 0.01)
        yield proxy


@pytest.fixture
def store(proxy: HttpProxy, s3_url: str) -> Store:
    """The store behind the proxy, while nothing fails yet."""
    store = open_store(s3_url)
    proxy.requests.clear()
    return store


@pytest.mark.parametrize("fault", ["500", "503", "409", "reset"])
def test_a_refused_create_is_sent_again(store: Store, proxy: HttpProxy, fault: HttpFault) -> None:
    """One error before the effect costs one more request: the object is made, and made once."""
    proxy.fail(fault)
    assert store.create("commits/1", b"ours")
    assert not store.create("commits/1", b"theirs")
    assert store.read("commits/1") == b"ours"


@pytest.mark.parametrize("fault", ["served, 500", "served, reset", "silent"])
def test_a_create_whose_answer_is_lost_has_made_the_object(store: Store, proxy: HttpProxy, fault: HttpFault) -> None:
    """The client's own second try finds the object there: whatever the call says, the bytes inside say whose it is."""
    proxy.fail(fault)
    store.create("commits/1", b"ours")
    assert store.read("commits/1") == b"ours"
    assert not store.create("commits/1", b"ours again")
    assert store.read("commits/1") == b"ours"


def test_conflict_decides_nothing_and_precondition_does(store: Store, proxy: HttpProxy) -> None:
    """Of 6 writers who create one object, each first answered 409, one wins with its own bytes, five hear that it is there."""
    proxy.fail("409", path="commits/1", times=6)
    with ThreadPoolExecutor(6) as pool:
        won = list(pool.map(lambda n: store.create("commits/1", b"%d" % n), range(6)))
    assert sum(won) == 1
    assert store.read("commits/1") == b"%d" % won.index(True)


def test_endless_conflicts_are_a_failure_not_an_answer(store: Store, proxy: HttpProxy) -> None:
    """A create that is always answered 409 raises: it is neither ours nor somebody else's."""
    proxy.fail("409", times=FOR_EVER)
    with pytest.raises(OSError, match="made by the proxy"):
        store.create("commits/1", b"")


@pytest.mark.parametrize("fault", ["500", "503", "reset", "half", "silent"])
def test_a_store_that_is_down_is_an_os_error_in_bounded_requests(
    s3_url: str, proxy: HttpProxy, fault: HttpFault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every method raises `OSError`, never says that an object is absent, and gives up soon enough for its caller to go on."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    store = open_store(s3_url)
    store.put("object", bytes(MIB))
    opened = store.open("object")
    for method in ("GET", "PUT", "POST", "DELETE", "HEAD"):
        if fault != "half" or method == "GET":
            proxy.fail(fault, method, times=FOR_EVER)
    calls: list[Callable[[], object]] = [lambda: store.read("object"), lambda: store.names(""), opened.read]
    if fault != "half":
        calls += [
            lambda: store.create("new", b""),
            lambda: store.put("new", b""),
            lambda: store.put_stream("new", [b"1"]),
            lambda: store.size("object"),
            lambda: store.delete(["other"]),
        ]
    for call in calls:
        proxy.requests.clear()
        with pytest.raises(OSError) as raised:
            call()
        assert not isinstance(raised.value, FileNotFoundError)
        assert 0 < len(proxy.requests) <= REQUESTS_MAX
    proxy.rules.clear()
    assert store.size("object") == MIB


def test_a_body_that_ends_in_the_middle_is_read_again(store: Store, proxy: HttpProxy) -> None:
    """No reader is ever given half of an object as if it were all of it."""
    data = bytes(range(256)) * 4096
    store.put("object", data)
    proxy.fail("half", "GET")
    assert store.read("object") == data
    proxy.fail("half", "GET")
    with store.open("object") as file:
        assert file.read() == data


def test_a_read_is_one_request(store: Store, proxy: HttpProxy) -> None:
    """An object is one GET and so one version of it, and no request goes before that only to ask for its size."""
    store.put("object", bytes(9 * MIB))
    proxy.requests.clear()
    assert len(store.read("object")) == 9 * MIB
    assert [method for method, _ in proxy.requests] == ["GET"]


@pytest.mark.parametrize("fault", ["500", "served, reset"])
@pytest.mark.parametrize("stage", ["uploads", "partNumber=2", "uploadId"])
def test_an_upload_in_parts_survives_a_fault_at_any_stage(
    store: Store, proxy: HttpProxy, stage: str, fault: HttpFault
) -> None:
    """Beginning an upload, a part of it, and its completion may each fail once: the object is whole all the same."""
    proxy.fail(fault, "PUT" if "part" in stage else "POST", stage)
    store.put_stream("model", (bytes([number]) * MIB for number in range(34)))
    assert store.read("model") == b"".join(bytes([number]) * MIB for number in range(34))


@pytest.mark.parametrize("stage", ["uploads", "partNumber=2", "uploadId"])
def test_an_upload_that_cannot_go_on_changes_nothing(store: Store, proxy: HttpProxy, stage: str) -> None:
    """When a stage fails for good, the call raises and the old object is still there, whole."""
    store.put("model", b"old")
    proxy.fail("500", "PUT" if "part" in stage else "POST", stage, times=FOR_EVER)
    with pytest.raises(OSError, match="made by the proxy"):
        store.put_stream("model", (bytes(MIB) for _ in range(34)))
    assert store.read("model") == b"old"


def test_a_bucket_that_is_gone_is_no_absent_object(s3_url: str, proxy: HttpProxy) -> None:
    """Writing into a bucket that does not exist raises `OSError`: "not found" stands for objects only."""
    store = open_store("s3://headrace-nowhere/runs", writable=False)
    writes: list[Callable[[], object]] = [
        lambda: store.create("a", b""),
        lambda: store.put("a", b""),
        lambda: store.put_stream("a", [b"1"]),
    ]
    for write in writes:
        with pytest.raises(OSError, match="bucket") as raised:
            write()
        assert not isinstance(raised.value, FileNotFoundError)
