"""Files out of a store: streamed, checked against their digest, and never written outside the folder asked for."""

from __future__ import annotations

import os
import zipfile
from contextlib import suppress
from hashlib import sha256
from typing import IO, TYPE_CHECKING, Final

from headrace.reading.progress import Meter, Progress
from headrace_proto import names
from headrace_proto.errors import ArtifactNotFound, Corrupt, NotAFolder
from headrace_proto.ids import random_id

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from headrace_proto.store.backend import Store
    from headrace_proto.store.documents import FileRecord

_BLOCK_BYTES: Final = 1024 * 1024

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
        _replace(target, lambda file: _copy(store, source, file, record, meter))
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
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, record in files.items():
                with archive.open(names.artifact_path(path), "w", force_zip64=True) as entry:
                    _copy(store, places[path], entry, record, meter)

    with meter:
        _replace(target, write)
    return target


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
    folder = os.path.abspath(destination_dir) if destination_dir else os.getcwd()
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise NotAFolder(f"{folder!r} is no folder: name one to download into")
    os.makedirs(folder, exist_ok=True)
    return folder


def _replace(target: str, write: Callable[[IO[bytes]], None]) -> None:
    """Write beside `target` and rename: who reads it sees all or nothing, and a link of that name is replaced, not followed."""
    temporary = f"{target}.{random_id()[:8]}.part"
    try:
        with open(temporary, "xb") as file:
            write(file)
        os.replace(temporary, target)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def _copy(store: Store, source: str, target: IO[bytes], record: FileRecord, meter: Meter) -> None:
    digest = sha256()
    with store.open(source) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            target.write(block)
            meter.add(len(block))
    if digest.hexdigest() != record.sha256:
        raise Corrupt(
            f"{store.url_of(source)} has the digest {digest.hexdigest()}, not {record.sha256} as it was logged"
        )
