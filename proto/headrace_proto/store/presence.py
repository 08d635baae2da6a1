"""Whether what a commit names lies in the store as it says. What is wrong is told as what stands behind "it"; "" if nothing is."""

from __future__ import annotations

from headrace_proto.store.backend import Store
from headrace_proto.store.commits import PartRecord
from headrace_proto.store.digests import file_digest
from headrace_proto.store.documents import FileRecord


def part_fault(store: Store, path: str, part: PartRecord) -> str:
    """Of a part, by its size."""
    return _size_fault(store, path, part.bytes)


def file_fault(store: Store, path: str, record: FileRecord, *, read: bool) -> str:
    """Of a stored file, by its size; with `read` by its digest, too."""
    fault = _size_fault(store, path, record.size)
    if not fault and read and (digest := file_digest(store, path)) != record.sha256:
        return f"has the digest {digest}, not {record.sha256}"
    return fault


def _size_fault(store: Store, path: str, size: int) -> str:
    found = store.size(path)
    if found is None:
        return "is missing"
    return "" if found == size else f"has {found} bytes, not {size}"
