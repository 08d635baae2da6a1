"""The files of a run: found below the export's folder, and never anywhere else; and payloads that are too large for an event."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from typing import Any, Final, NamedTuple

from headrace.moving.contents import is_image, path_of, suffix_of
from headrace.moving.meaning import SOURCES, artifact_name
from headrace_proto.errors import Corrupt
from headrace_proto.events import Kind, pack
from headrace_proto.limits import IMAGE_BYTES_MAX, INLINE_BYTES_MAX, MIB

MISSING: Final = "files that are not in the export"
OUTSIDE: Final = "files outside the export's folder"
_BLOCK: Final = MIB


class Attachment(NamedTuple):
    """A payload that a commit waits for, under the name that its event gives it."""

    file: str
    size: int
    sha256: str
    data: bytes | None = None
    path: str | None = None

    def blocks(self) -> Iterator[bytes]:
        """Its bytes. Raises `Corrupt` when they are no longer those that the event names."""
        if self.data is not None:
            yield self.data
            return
        digest = sha256()
        with open(self.path or "", "rb", buffering=0) as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                yield block
        if digest.hexdigest() != self.sha256:
            raise Corrupt(f"{self.path} was changed while it was imported: run the import again")


Event = tuple[bytes, Attachment | None]


class Attachments:
    """Those of one source of a run: numbered as they come."""

    def __init__(self, folder: str, artifacts: dict[str, str]) -> None:
        """`folder` holds the export's files; `artifacts` says what the path of each attribute is called."""
        self._folder: Final = os.path.realpath(folder)
        self._artifacts: Final = artifacts
        self._count = 0
        self.left_out: Final[Counter[str]] = Counter()

    def begin(self) -> None:
        """Count from the beginning: another source, or the same one anew."""
        self._count = 0
        self.left_out.clear()

    def of_bytes(self, data: bytes, inline: bytes | str) -> tuple[Any, Attachment | None]:
        """A payload for an event: `inline`, which is `data`, or a reference when that is too large."""
        if len(data) <= INLINE_BYTES_MAX:
            return inline, None
        return self._reference(len(data), sha256(data).hexdigest(), data=data)

    def events(
        self, row: dict[str, Any], channel: int | None, step: float, time_ns: int, *, owner: bool
    ) -> Iterator[Event]:
        """The events of a row that names a file or a folder: images of a channel, else artifacts, which are the owner's."""
        relative = path_of(row)
        kind = row["attribute_type"]
        image = kind == "file_series" and is_image(relative)
        if (channel is None) if image else not owner:
            return  # another source's
        path = self._found(relative)
        if path is None:
            return
        if image and channel is not None and os.path.getsize(path) <= IMAGE_BYTES_MAX:
            payload, attachment = self._of_file(path)
            yield pack(Kind.IMAGE, channel, step, time_ns, payload, {"suffix": suffix_of(path)}), attachment
            return
        name = self._artifacts.get(row["attribute_path"], row["attribute_path"])
        if kind == "file_series":
            suffix = suffix_of(path)
            name = f"{name}/{step:.15g}{'.' if suffix else ''}{suffix}"
        for inside, file in _walk(path):
            yield self._artifact(f"{name}/{inside}" if inside else name, file, time_ns)

    def _artifact(self, name: str, file: str, time_ns: int) -> Event:
        source = name.startswith(SOURCES)
        payload, attachment = self._of_file(file)
        called = artifact_name(name.removeprefix(SOURCES) if source else name)
        return pack(Kind.ARTIFACT, time_ns, called, payload, {"kind": "source" if source else "artifact"}), attachment

    def _found(self, relative: str | None) -> str | None:
        if relative is None:
            self.left_out[MISSING] += 1
            return None
        path = os.path.realpath(os.path.join(self._folder, relative))
        if os.path.isabs(relative) or not path.startswith(self._folder + os.sep):
            self.left_out[OUTSIDE] += 1
        elif not os.path.exists(path):
            self.left_out[MISSING] += 1
        else:
            return path
        return None

    def _of_file(self, path: str) -> tuple[Any, Attachment | None]:
        size = os.path.getsize(path)
        if size <= INLINE_BYTES_MAX:
            with open(path, "rb") as file:
                data = file.read()
            return self.of_bytes(data, data)
        with open(path, "rb", buffering=0) as file:
            digest, size = sha256(), 0
            while block := file.read(_BLOCK):
                digest.update(block)
                size += len(block)
        return self._reference(size, digest.hexdigest(), path=path)

    def _reference(
        self, size: int, digest: str, *, data: bytes | None = None, path: str | None = None
    ) -> tuple[dict[str, Any], Attachment]:
        file = f"{self._count:06d}-{digest[:8]}"
        self._count += 1
        return {"file": file, "size": size, "sha256": digest}, Attachment(file, size, digest, data, path)


def _walk(path: str) -> Iterator[tuple[str, str]]:
    """The files below a folder, each with its name from there; a file itself has none."""
    if not os.path.isdir(path):
        yield "", path
        return
    for folder, folders, files in os.walk(path):
        folders.sort()
        for name in sorted(files):
            file = os.path.join(folder, name)
            if os.path.isfile(file) and not os.path.islink(file):
                yield os.path.relpath(file, path).replace(os.sep, "/"), file
