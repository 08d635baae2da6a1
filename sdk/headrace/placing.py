"""Bytes that an experiment waits for, put in place: as the collector does it, by whoever has them at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace_proto.store.backend import Store
    from headrace_proto.store.chain import Chain
    from headrace_proto.store.commits import PendingFile


def put_in_place(store: Store, chain: Chain, file: PendingFile, content: Callable[[], Iterable[bytes]]) -> str:
    """Put what `content` gives where `file` is awaited. The reason why not, if it is not what was logged, or is there no more."""
    try:
        store.put_stream(file.path, _verified(chain, file, content))
    except _Changed as changed:
        return str(changed)
    except _Unwanted:
        return ""  # the commit finds that nobody waits for it
    return ""


def _verified(chain: Chain, file: PendingFile, content: Callable[[], Iterable[bytes]]) -> Iterator[bytes]:
    digest = sha256()
    try:
        for block in content():
            digest.update(block)
            yield block
    except FileNotFoundError:
        raise _Changed("it is no longer there") from None
    if digest.hexdigest() != file.sha256:
        raise _Changed(f"its digest is {digest.hexdigest()}, not {file.sha256}: it was changed after it was logged")
    if not chain.awaits(file):
        raise _Unwanted


class _Changed(Exception):
    """The file is not the one that was logged."""


class _Unwanted(Exception):
    """Another writer finished the file, or gave its path to another one, while this one was read."""
