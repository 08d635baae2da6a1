"""Edits of files: artifacts that are added, replaced and deleted afterwards."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from hashlib import sha256
from tempfile import TemporaryFile
from time import time_ns
from typing import IO, Any

from headrace.editing.changes import Changes, Edit, Payload
from headrace.experiment import alive
from headrace.given import (
    DEFAULT_MODE,
    blocks_of,
    deletable,
    file_facts,
    files_of,
    is_path,
    named_stream,
    opened,
    warn_unlisted,
)
from headrace.live.stamps import stamp_ns
from headrace_proto.events import Kind
from headrace_proto.home import Home
from headrace_proto.limits import INLINE_BYTES_MAX, MIB
from headrace_proto.store.curation import Held


class FileEdits(Changes):
    """The calls that change the files of a stored experiment."""

    def artifacts_below(self, path: str) -> list[str]:
        """The artifact at `path`, or all in that folder. Raises `ArtifactNotFound` if there is none."""
        raise NotImplementedError

    def log_artifact(self, artifact: Any, destination: str | None = None) -> None:
        """Store a file, all files of a folder, or what an open file or a buffer holds.

        The arguments and errors are those of the live experiment's. A file is read twice, first for its digest; raises `Corrupt`
        when it was changed in between.
        """
        if is_path(artifact):
            homes = [Home(), *(experiment.origin.home for experiment in alive())]
            found = files_of(os.fspath(artifact), destination, homes, self.store.url, warn_unlisted)
            self._edit_all(_of_file(path, name, homes) for path, name in found)  # never a whole folder in memory
        else:
            self._edit_all([_of_stream(named_stream(destination), blocks_of(artifact))])

    def send_artifact(self, artifact: Any, destination: str | None = None) -> None:
        """`log_artifact`, as Neptune also called it."""
        self.log_artifact(artifact, destination)

    def delete_artifacts(self, path: str | Iterable[str]) -> None:
        """Delete artifacts.

        Args:
            path: One or several paths in the experiment, of files and folders. Never all of them.

        Raises:
            ArtifactNotFound: there is nothing at one of the paths; then nothing is deleted.
            InvalidName: the path leads out of the experiment, or is that of all artifacts.
        """
        deleted = [one for name in deletable(path) for one in self.artifacts_below(name)]
        self._edit(Kind.UNLINK, list(dict.fromkeys(deleted)))


def _of_file(path: str, name: str, homes: Collection[Home]) -> Edit:
    with opened(path, homes) as file:
        facts = file_facts(file, "artifact")
        head = file.read(INLINE_BYTES_MAX + 1)
        if len(head) <= INLINE_BYTES_MAX:
            return _edit(name, head, facts)
        file.seek(0)
        held = _digest(_blocks(file))

    def content() -> Iterator[bytes]:
        with opened(path, homes) as again:
            yield from _blocks(again)

    return _edit(name, held, facts, Payload(held, content))


def _of_stream(name: str, blocks: Iterator[bytes]) -> Edit:
    facts = {"mode": DEFAULT_MODE, "mtime_ns": time_ns(), "kind": "artifact"}
    file = TemporaryFile()  # noqa: SIM115 - the payload closes it; what a stream gave it gives only once
    try:
        for block in blocks:
            file.write(block)
        size = file.tell()
        file.seek(0)
        if size <= INLINE_BYTES_MAX:
            data = file.read()
            file.close()
            return _edit(name, data, facts)
        held = _digest(_blocks(file))
    except BaseException:
        file.close()
        raise

    def content() -> Iterator[bytes]:
        file.seek(0)
        yield from _blocks(file)

    return _edit(name, held, facts, Payload(held, content, file.close))


def _edit(name: str, payload: bytes | Held, facts: dict[str, Any], large: Payload | None = None) -> Edit:
    size = len(payload) if isinstance(payload, bytes) else 0
    return Edit((Kind.ARTIFACT, stamp_ns(), name, payload, {**facts, "copied": True}), large, size)


def _digest(blocks: Iterable[bytes]) -> Held:
    digest, size = sha256(), 0
    for block in blocks:
        digest.update(block)
        size += len(block)
    return Held(size, digest.hexdigest())


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    while block := file.read(MIB):
        yield block
