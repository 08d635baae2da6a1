"""Files out of a store: streamed, checked against their digest, and never written outside the folder asked for."""

from __future__ import annotations

import os
import zipfile
import zlib
from contextlib import suppress
from hashlib import sha256
from itertools import chain
from typing import IO, TYPE_CHECKING, Final

from headrace.reading.progress import Meter, Progress
from headrace_proto import names
from headrace_proto.errors import ArtifactNotFound, Corrupt, NotAFolder
from headrace_proto.ids import random_id
from headrace_proto.limits import KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from headrace_proto.store.backend import Store
    from headrace_proto.store.documents import FileRecord

_BLOCK_BYTES: Final = MIB
_SAMPLE_BYTES: Final = 64 * KIB
"""Of a file, by which it is told whether deflating it is worth the time."""
_WORTH_IT: Final = 0.9
_DEFLATE_LEVEL: Final = 1
"""300 MB of random bytes into an archive took 10 s at the default of 6, which makes text a fifth smaller."""

_WHY_ABSENT: Final = {
    "pending": "its bytes are still on their way: wait('stored') in the program that logged it",
    "changed": "the file was changed while it was read, so that its bytes are not here",
}


def download_file(
    store: Store, source: str, path: str, record: FileRecord, destination_dir: str | None, progress: Progress = None
) -> str:
    """The file at `source` of the store, as the last part of `path`, in `destination_dir`; returns where it lies."""
    _require_stored(path, record)
    folder = _folder(destination_dir)
    target = os.path.join(folder, names.artifact_path(path).rpartition("/")[2])
    with Meter(os.path.basename(target), record.size, progress) as meter:

        def write(file: IO[bytes]) -> None:
            with store.open(source) as there:
                _copy(_blocks(there), file, record, meter, store.url_of(source))

        _replace(target, write)
    return target


def download_archive(
    store: Store,
    files: Mapping[str, FileRecord],
    places: Mapping[str, str],
    name: str,
    destination_dir: str | None,
    progress: Progress = None,
) -> str:
    """All `files` (path -> record) in the archive `name`.zip in `destination_dir`; returns where that lies.

    `places` tells where in the store each file lies.
    """
    for path, record in files.items():
        _require_stored(path, record)

    target = os.path.join(_folder(destination_dir), f"{name}.zip")
    meter = Meter(os.path.basename(target), sum(record.size for record in files.values()), progress)

    def write(file: IO[bytes]) -> None:
        with zipfile.ZipFile(file, "w", compresslevel=_DEFLATE_LEVEL) as archive:
            for path, record in files.items():
                _add(archive, store, places[path], names.artifact_path(path), record, meter)

    with meter:
        _replace(target, write)
    return target


def _add(archive: zipfile.ZipFile, store: Store, source: str, name: str, record: FileRecord, meter: Meter) -> None:
    """One file into the archive. Weights and images, which deflating makes no smaller, are put there as they are."""
    with store.open(source) as file:
        head = file.read(_SAMPLE_BYTES)
        shrinks = len(zlib.compress(head, _DEFLATE_LEVEL)) < _WORTH_IT * len(head)
        archive.compression = zipfile.ZIP_DEFLATED if shrinks else zipfile.ZIP_STORED
        with archive.open(name, "w", force_zip64=True) as entry:
            _copy(chain([head], _blocks(file)), entry, record, meter, store.url_of(source))


def below(files: Mapping[str, FileRecord], path: str | None) -> dict[str, FileRecord]:
    """The files at `path` or in the folder `path`; all, if it is None or "". Raises `ArtifactNotFound` if there are none."""
    if not path:
        return dict(files)
    wanted = path.strip("/")
    found = {name: record for name, record in files.items() if name == wanted or name.startswith(f"{wanted}/")}
    if not found:
        raise absent(files, path)
    return found


def absent(files: Mapping[str, FileRecord], path: str) -> ArtifactNotFound:
    """The error for a path that is not among `files`."""
    return ArtifactNotFound(f"no file {path!r}; there is: {', '.join(sorted(files)[:20]) or 'none'}")


def _require_stored(path: str, record: FileRecord) -> None:
    if record.state != "stored":
        raise ArtifactNotFound(f"{path!r} cannot be read: {_WHY_ABSENT[record.state]}")


def _folder(destination_dir: str | None) -> str:
    try:
        folder = os.path.abspath(destination_dir or "")
    except FileNotFoundError:
        raise NotAFolder("the current folder was deleted: name one to download into, from the root") from None
    try:
        os.makedirs(folder, exist_ok=True)
    except (FileExistsError, NotADirectoryError):  # itself, or what it would lie in, is a file or a link to nowhere
        raise NotAFolder(f"{folder!r} is no folder: name one to download into") from None
    return folder


def _replace(target: str, write: Callable[[IO[bytes]], None]) -> None:
    """Write beside `target` and rename: whoever reads it sees all or nothing, and a link of that name is replaced, not followed."""
    temporary = f"{target}.{random_id()[:8]}.part"
    try:
        with open(temporary, "xb") as file:
            write(file)
        os.replace(temporary, target)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    while block := file.read(_BLOCK_BYTES):
        yield block


def _copy(blocks: Iterable[bytes], target: IO[bytes], record: FileRecord, meter: Meter, url: str) -> None:
    digest = sha256()
    for block in blocks:
        digest.update(block)
        target.write(block)
        meter.add(len(block))
    if digest.hexdigest() != record.sha256:
        raise Corrupt(f"{url} has the digest {digest.hexdigest()}, not {record.sha256} as it was logged")
