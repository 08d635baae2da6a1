"""The one interface through which everything reaches a store, and how a store is opened and known.

The contract of every back end is tested by `tests/proto/store_base/contract.py`: a new one needs a short subclass there.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib import resources
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

from headrace_proto.errors import Corrupt, FormatUnknown, MissingExtra, StoreUnsuitable, UnknownStore
from headrace_proto.ids import random_id
from headrace_proto.store import layout

if TYPE_CHECKING:
    from collections.abc import Iterable

KNOWN_PROTOCOLS: Final = ("file", "gs", "memory", "s3")
"""Those that we test or document. Others of fsspec are taken when they can create an object only if it is absent."""

_EXTRAS: Final = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}


class Store(Protocol):
    """A store: whole objects under paths with '/' between their parts, relative to the store's root.

    Invariants
    1. `create`, `put` and `put_stream` are atomic: whoever reads sees all of an object or none of it, also after a kill.
    2. Of any number of concurrent `create`s of one path, by any process on any machine, at most one returns True.
    3. When a call that writes has returned, the object is as durable as the store can make it (files and their folders
       are synced), so that a commit may name it.
    4. Nothing is cached: `names`, `size` and `read` show what other processes did before the call.
    5. A call that raises may have taken effect (its answer may be lost). So may a `create` that returns False: the back
       end may have tried again after a lost answer of its own. Whoever must know reads the object and compares a nonce.
    6. Every failure is an `OSError`; `FileNotFoundError` means that the object is not there, and nothing else does.
    7. No path reaches outside the root: '..', absolute paths, empty parts and links out of it are refused.

    All methods may be called from many threads. None may be called on an event loop's thread: they block.
    """

    @property
    def url(self) -> str:
        """What `open_store` opens again."""

    @property
    def local(self) -> bool:
        """Whether this is a folder of this machine: a commit costs milliseconds, not a round trip and a fee."""

    def create(self, path: str, data: bytes) -> bool:
        """Make the object if there is none of this path. False, and no change, if there is one."""

    def put(self, path: str, data: bytes) -> None:
        """Make or replace the object."""

    def put_stream(self, path: str, blocks: Iterable[bytes]) -> None:
        """Make or replace the object with all `blocks`, in bounded memory. Nothing changes when `blocks` raises."""

    def read(self, path: str) -> bytes:
        """The object's bytes."""

    def open(self, path: str) -> BinaryIO:
        """The object as a seekable binary file, to be closed by the caller."""

    def names(self, folder: str) -> list[str]:
        """The sorted names of objects and folders directly in `folder` ("" is the root); none if it is absent."""

    def size(self, path: str) -> int | None:
        """The object's bytes; None if it is absent."""

    def modified_ns(self, path: str) -> int | None:
        """When the object was written, in nanoseconds since 1970 of the store's own clock; None if it is absent.

        Good for comparing objects of one store, never for comparing with a clock of this host.
        """

    def delete(self, paths: Iterable[str]) -> None:
        """Remove objects. One that is absent is fine."""

    def url_of(self, path: str) -> str:
        """The object's address for other tools: a plain path for files, a URL for others."""


def open_store(url: str, *, writable: bool = True) -> Store:
    """The store at `url`: a folder's path, or any URL of fsspec.

    Credentials, regions and endpoints come from the environment, as the protocol's own tools read it (AWS_ENDPOINT_URL,
    AWS_PROFILE, FSSPEC_S3_..., GOOGLE_APPLICATION_CREDENTIALS, ...). A `writable` store is tried first.

    Raises `UnknownStore` for a URL that means nothing, `MissingExtra` when a package is missing, `StoreUnsuitable` when
    the store cannot create an object only if it is absent, and `OSError` when it cannot be reached.
    """
    store = _store_at(url)
    if writable:
        _probe(store)
    return store


def _store_at(url: str) -> Store:
    protocol, separator, rest = url.partition("://")
    if not separator or protocol in ("file", "local"):
        from headrace_proto.store.local import LocalStore

        path = rest if separator else url
        if not path.strip() or "\0" in path:
            raise UnknownStore(f"the store {url!r} names no folder: give a path such as /data/runs")
        return LocalStore(path)
    return _remote_store(url, protocol)


def _remote_store(url: str, protocol: str) -> Store:
    try:
        import fsspec
    except ImportError as error:
        raise MissingExtra.named(f"the store {url!r}", _EXTRAS.get(protocol, "read")) from error
    try:
        fsspec.get_filesystem_class(protocol)
    except ValueError as error:
        known = ", ".join(f"{name}://" for name in KNOWN_PROTOCOLS)
        raise UnknownStore(
            f"the store {url!r} has the protocol {protocol!r}, which nothing here knows. Known are a plain path, {known} "
            "and what fsspec has (fsspec.available_protocols())"
        ) from error
    except ImportError as error:
        if protocol in _EXTRAS:
            raise MissingExtra.named(f"the store {url!r}", _EXTRAS[protocol]) from error
        raise MissingExtra(f"the store {url!r} needs a package that is not installed: {error}") from error
    from headrace_proto.store.remote import open_remote

    return open_remote(url)


def _probe(store: Store) -> None:
    """Try what every commit rests on: of two creates of one path the second must be refused and change nothing."""
    path = f"{layout.PROBES}/{random_id()}"
    first, second = store.create(path, b"1"), store.create(path, b"2")
    kept = store.read(path)
    store.delete([path])
    if not first or second or kept != b"1":
        raise StoreUnsuitable(
            f"the store {store.url!r} does not create an object only if it is absent, so that two writers could overwrite "
            "each other: use one that does (a local folder, S3 with If-None-Match, GCS)"
        )


def store_id(store: Store) -> str:
    """The store's own random id, made once by whoever comes first, together with FORMAT.md.

    Watermarks carry it: a store restored elsewhere, or another one, must never free a journal.
    """
    known = read_store_id(store)
    if known is not None:
        return known
    text = resources.files("headrace_proto.store").joinpath(layout.FORMAT_FILE).read_bytes()
    store.create(layout.FORMAT_FILE, text)
    record = {"format": layout.STORE_FORMAT, "id": random_id(), "created_at": datetime.now(UTC).isoformat()}
    store.create(layout.STORE_FILE, json.dumps(record, indent=2).encode())
    made = read_store_id(store)
    if made is None:
        raise StoreUnsuitable(f"the store {store.url!r} does not show {layout.STORE_FILE} after it was made")
    return made


def read_store_id(store: Store) -> str | None:
    """The store's own id, None if it was never written to. Raises `Corrupt` or `FormatUnknown`."""
    try:
        data = store.read(layout.STORE_FILE)
    except FileNotFoundError:
        return None
    try:
        record = json.loads(data)
        version, identity = record["format"], record["id"]
    except (ValueError, TypeError, KeyError) as error:
        raise Corrupt(f"{layout.STORE_FILE} of the store {store.url!r} is damaged: restore it from a copy") from error
    if version != layout.STORE_FORMAT:
        raise FormatUnknown(
            f"the store {store.url!r} has format {version}; this release knows {layout.STORE_FORMAT}. Use a newer one"
        )
    return str(identity)
