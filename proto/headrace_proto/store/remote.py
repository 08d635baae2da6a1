"""A store behind fsspec: S3, GCS and whatever else can create an object only if it is absent.

How each promise of `Store` is kept
- `create` is fsspec's `pipe_file(mode="create")`, which s3fs sends as If-None-Match and gcsfs as ifGenerationMatch=0. A back
  end whose class does not have that mode of its own is refused: fsspec's default looks first and writes then, which the
  probe of two creates in a row would not notice.
- S3 answers a racing create with 409 as well as 412. 409 decides nothing: the same create is sent again.
- Listings and instances are not cached: s3fs would show another process's first commit for ever and never its second.
- Every failure of a client library becomes an `OSError`; botocore's for an unreachable endpoint is none, and neither is
  aiohttp's for a body that ends in the middle. `FileNotFoundError` stands for an absent object only: a writer that meets one
  has lost its bucket or its upload.
- A store that does not answer is given up in bounded time. s3fs tries again around botocore, which tries again itself: 5 x 5
  times for a write and 5 x 5 x 5 for a read (one connection that was always reset: 250 requests in 179 s; a silent one, at
  15 s each: half an hour). Whoever calls has work to do meanwhile and tries again itself.
- `read` is one request. s3fs looks for the size first and then fetches large objects in ranges, which may be of two versions.
"""

from __future__ import annotations

import inspect
import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from errno import EIO
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

from headrace_proto.errors import StoreUnsuitable, UnknownStore
from headrace_proto.limits import MIB
from headrace_proto.store.layout import checked_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_CONFLICT: Final = 409
_PRECONDITION_FAILED: Final = 412
_CONFLICT_ATTEMPTS: Final = 10
_CONFLICT_WAIT_S: Final = 0.05
"""Times the attempt: 2.3 s in all. A conflict lasts as long as the other writer's request."""

_STREAM_BLOCK_BYTES: Final = 16 * MIB
"""One part of a multi-part upload: S3 takes 10,000 of them (156 GiB), and about two are in memory."""
_READ_BLOCK_BYTES: Final = 1 * MIB
"""Read ahead in an open object. s3fs' own 50 MiB would fetch a whole part for its footer."""
_DELETE_THREADS: Final = 16
_S3_TRIES: Final = 2
"""Of s3fs, around the 5 of botocore (AWS_MAX_ATTEMPTS, AWS_RETRY_MODE): one more for a body that broke, which only s3fs sees."""
_S3_READ: Final = {"max_concurrency": 1}
"""Makes s3fs read an object by one GET."""


def open_remote(url: str) -> FsspecStore:
    """The store at a URL of fsspec. Raises `UnknownStore` and `StoreUnsuitable`."""
    if "::" in url:
        raise UnknownStore(f"the store {url!r} is chained: name the store itself, caches and archives cannot hold one")
    try:
        file_system, root = fsspec.url_to_fs(url, skip_instance_cache=True, use_listings_cache=False)
    except (ValueError, TypeError) as error:
        raise UnknownStore(f"the store {url!r} cannot be read as a URL: {error}") from error
    if not root.strip("/"):
        raise UnknownStore(f"the store {url!r} names no bucket or folder: add one, for example {url.rstrip('/')}/runs")
    return (MemoryStore if isinstance(file_system, MemoryFileSystem) else FsspecStore)(url, file_system, root)


class FsspecStore:
    """A `Store` below one prefix of an fsspec file system."""

    local: Final = False

    def __init__(self, url: str, file_system: Any, root: str) -> None:
        self.url: Final = url.rstrip("/")
        self._fs: Final = file_system
        self._root: Final = root.rstrip("/")
        self._creates: Final = _can_create(file_system)
        self._read_options: Final[dict[str, Any]] = _S3_READ if _is_s3(file_system) else {}
        if _is_s3(file_system):
            file_system.retries = _S3_TRIES

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def create(self, path: str, data: bytes) -> bool:
        """Make the object if there is none of this path."""
        self._require_create()
        target = self._target(path)
        for attempt in range(1, _CONFLICT_ATTEMPTS + 1):
            try:
                with _os_errors(path, writing=True):
                    self._fs.pipe_file(target, data, mode="create")
                return True
            except FileExistsError:
                return False
            except OSError as error:
                status = _http_status(error)
                if status == _PRECONDITION_FAILED:
                    return False
                if status != _CONFLICT or attempt == _CONFLICT_ATTEMPTS:
                    raise
            time.sleep(_CONFLICT_WAIT_S * attempt)
        raise AssertionError("the last attempt returns or raises")

    def put(self, path: str, data: bytes) -> None:
        """Make or replace the object."""
        with _os_errors(path, writing=True):
            self._fs.pipe_file(self._target(path), data)

    def put_stream(self, path: str, blocks: Iterable[bytes]) -> None:
        """Make or replace the object by a multi-part upload, which shows nothing until it is complete."""
        with _os_errors(path, writing=True):
            file = self._fs.open(self._target(path), "wb", block_size=_STREAM_BLOCK_BYTES, autocommit=False)
        try:
            for block in blocks:  # what this raises is the caller's own and passes unchanged
                with _os_errors(path, writing=True):
                    file.write(block)
            with _os_errors(path, writing=True):
                file.close()
                file.commit()
        except BaseException:
            with suppress(Exception):  # the first failure is the one to report; S3 forgets the parts in time
                file.discard()
            file.closed = True  # or its finalizer would upload what is left
            raise

    def read(self, path: str) -> bytes:
        """The object's bytes."""
        with _os_errors(path):
            return cast("bytes", self._fs.cat_file(self._target(path), **self._read_options))

    def open(self, path: str) -> BinaryIO:
        """The object, open for reading in blocks."""
        with _os_errors(path):
            return cast(
                "BinaryIO", _Object(path, self._fs.open(self._target(path), "rb", block_size=_READ_BLOCK_BYTES))
            )

    def names(self, folder: str) -> list[str]:
        """The sorted names below the prefix, up to the next '/'."""
        target = self._target(folder) if folder else self._root
        with _os_errors(folder):
            try:
                found = self._fs.ls(target, detail=False)
            except FileNotFoundError:
                return []
        prefix = f"{target}/"
        return sorted({name[len(prefix) :].rstrip("/") for name in found if name.startswith(prefix)} - {""})

    def size(self, path: str) -> int | None:
        """The object's size."""
        with _os_errors(path):
            try:
                info = self._fs.info(self._target(path))
            except FileNotFoundError:
                return None
        return None if info["type"] == "directory" else int(info["size"])

    def modified_ns(self, path: str) -> int | None:
        """When the object was written: S3 tells it to the second."""
        with _os_errors(path):
            try:
                modified = self._fs.modified(self._target(path))
            except (FileNotFoundError, IsADirectoryError):
                return None
        return int(modified.timestamp() * 1_000_000) * 1000

    def delete(self, paths: Iterable[str]) -> None:
        """Remove objects, several at a time."""
        targets = [self._target(path) for path in paths]
        if len(targets) < 2:
            for target in targets:
                self._delete(target)
            return
        with ThreadPoolExecutor(min(_DELETE_THREADS, len(targets)), "headrace-delete") as pool:
            for _ in pool.map(self._delete, targets):
                pass

    def url_of(self, path: str) -> str:
        """The object's URL."""
        return f"{self.url}/{checked_path(path)}"

    def _delete(self, target: str) -> None:
        with _os_errors(target), suppress(FileNotFoundError):
            self._fs.rm_file(target)

    def _target(self, path: str) -> str:
        return f"{self._root}/{checked_path(path)}"

    def _require_create(self) -> None:
        if not self._creates:
            raise StoreUnsuitable(
                f"the store {self.url!r}: fsspec's {type(self._fs).__name__} cannot create an object only if it is absent, "
                "so that two writers could overwrite each other: use a local folder, S3 or GCS"
            )


class MemoryStore(FsspecStore):
    """A store in this process's memory (`memory://`), for trials and tests: it ends with the process.

    fsspec's own looks first and writes then, and hands every reader the same file object: a lock and copies make it one
    that many threads may use.
    """

    _lock: Final = threading.RLock()  # one for all: fsspec keeps one dict for all

    def create(self, path: str, data: bytes) -> bool:
        """Make the object if there is none of this path."""
        with self._lock:
            return super().create(path, data)

    def put(self, path: str, data: bytes) -> None:
        """Make or replace the object."""
        with self._lock:
            super().put(path, data)

    def put_stream(self, path: str, blocks: Iterable[bytes]) -> None:
        """Make or replace the object."""
        self.put(path, b"".join(blocks))

    def read(self, path: str) -> bytes:
        """The object's bytes."""
        with self._lock:
            return super().read(path)

    def open(self, path: str) -> BinaryIO:
        """A copy of the object."""
        return io.BytesIO(self.read(path))


class _Object(io.RawIOBase):
    """An open object whose failures are `OSError`s, too."""

    def __init__(self, path: str, file: Any) -> None:
        self._path: Final = path
        self._file: Final = file

    def read(self, size: int | None = -1, /) -> bytes:
        with _os_errors(self._path):
            return cast("bytes", self._file.read(-1 if size is None else size))

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: Any, /) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _is_s3(file_system: Any) -> bool:
    protocol = file_system.protocol
    return "s3" in ((protocol,) if isinstance(protocol, str) else protocol)


def _can_create(file_system: Any) -> bool:
    """Whether the class has a mode "create" of its own; what it inherits looks first and writes then."""
    method = getattr(file_system, "_pipe_file", file_system.pipe_file)
    inherited = getattr(method, "__func__", method) is fsspec.AbstractFileSystem.pipe_file
    return not inherited and "mode" in inspect.signature(method).parameters


@contextmanager
def _os_errors(path: str, *, writing: bool = False) -> Iterator[None]:
    """Let a client library's own exceptions out as `OSError`, with the library's as its cause."""
    try:
        yield
    except FileNotFoundError as error:
        if not writing:
            raise
        raise OSError(EIO, f"the bucket, or an upload in it, is gone: {error}", path) from error
    except (OSError, ValueError, TypeError, MemoryError):
        raise
    except Exception as error:
        raise OSError(EIO, f"{type(error).__name__}: {error}", path) from error


def _http_status(error: BaseException | None) -> int | None:
    """The HTTP status that an error or one of its causes stands for: botocore keeps it in `response`, gcsfs in `code`."""
    while error is not None:
        response = getattr(error, "response", None)
        status = (
            response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if isinstance(response, dict)
            else getattr(error, "code", None)
        )
        if isinstance(status, int):
            return status
        error = error.__cause__
    return None
