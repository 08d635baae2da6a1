"""Keys of projects and numbers of experiments: `DIG-7` means one experiment of a store, for ever.

Invariants
1. A claim is an object made with create-if-absent, with its owner's name inside. It is never changed and never deleted, so
   whoever finds one need not ask twice.
2. "It exists, with our name inside" is success: the answer to an earlier try was lost, or another collector did it for us.
3. A number is claimed before the experiment's first commit, and that commit's document says which it is. Only the document
   counts: a crash, or two collectors at once, may claim a second number that no document names. That is a hole in the
   count, never two numbers of one experiment.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from itertools import chain, count
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

from pydantic import Field

from headrace_proto.ids import project_id
from headrace_proto.limits import TOKENS
from headrace_proto.store import layout
from headrace_proto.store.records import DOCUMENT_FORMAT, Record, parse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace_proto.store.backend import Store

_KEY: Final = re.compile(r"[A-Z][A-Z0-9]{0,15}")
_ID: Final = re.compile(rf"({_KEY.pattern})-([1-9][0-9]{{0,8}})")
KEY_LENGTH: Final = 3
"""Letters of a project's key, as Neptune's `SAL` for Salt-Detection."""


class ProjectRecord(Record):
    """`project.json`."""

    format: int = DOCUMENT_FORMAT
    id: str
    name: str
    key: str
    created_at: datetime
    shards: Annotated[int, Field(ge=1, le=TOKENS)] = 1
    """Shards of the catalog: shard i holds the experiments with token * shards // TOKENS == i."""


class _Claim(Record):
    """`ids/<n>.json` and `_headrace/keys/<KEY>.json`."""

    format: int = DOCUMENT_FORMAT
    owner: str
    claimed_at: datetime


_Record = TypeVar("_Record", ProjectRecord, _Claim)


def project_keys(name: str) -> Iterator[str]:
    """The keys that a project may have, the best first, the same for ever.

    >>> from itertools import islice
    >>> list(islice(project_keys("vision/digits"), 4)), next(project_keys("vision/42"))
    (['DIG', 'DIGI', 'DIG2', 'DIG3'], 'P42')
    """
    word = re.sub(r"[^A-Z0-9]", "", name.rpartition("/")[2].upper())
    if not word[:1].isalpha():
        word = f"P{word}"
    stem = word[:KEY_LENGTH]
    yield stem
    if len(word) > KEY_LENGTH:
        yield word[: KEY_LENGTH + 1]
    for number in count(2):
        yield f"{stem}{number}"


def claim_project(store: Store, name: str, wanted_key: str = "") -> ProjectRecord:
    """The project's record, made with a key of its own if this is the first call for `name` in this store; with `wanted_key`, if
    no other project has that."""
    known = read_project(store, name)
    if known is not None:
        return known
    now = datetime.now(UTC)
    keys = chain([wanted_key] if _KEY.fullmatch(wanted_key) else [], project_keys(name))
    key = next(key for key in keys if _claimed(store, layout.key_file(key), name, now))
    record = ProjectRecord(id=project_id(name), name=name, key=key, created_at=now)
    if store.create(layout.project_file(name), _encoded(record)):
        return record
    return _read(store, layout.project_file(name), ProjectRecord)


def read_project(store: Store, name: str) -> ProjectRecord | None:
    """The project's record; None if the store has no such project."""
    try:
        return _read(store, layout.project_file(name), ProjectRecord)
    except FileNotFoundError:
        return None


def claim_owner(store: Store, path: str) -> str:
    """Whose the claim at `path` is. Raises `FileNotFoundError`, `Corrupt` or `FormatUnknown`."""
    return _read(store, path, _Claim).owner


def projects(store: Store) -> list[str]:
    """The names of all projects of the store, sorted."""
    return [name for name in project_folders(store) if store.size(layout.project_file(name)) is not None]


def project_folders(store: Store) -> list[str]:
    """The folders that bear a project's name, sorted, whether it has a record or not."""
    return sorted(
        f"{workspace}/{name}"
        for workspace in store.names("")
        if workspace not in (layout.RESERVED, layout.FORMAT_FILE)
        for name in store.names(workspace)
        if layout.is_project(f"{workspace}/{name}")
    )


def claim_id(store: Store, project: str, experiment: str, wanted: str = "") -> str:
    """`KEY-7` of the experiment's own: the one that is wanted, if it is free and the project's key is this one, else the next.

    A project that is made here takes the wanted id's key, if that is free. Call it only for an experiment whose document has no
    id yet.
    """
    found = _ID.fullmatch(wanted)
    key = claim_project(store, project, found[1] if found else "").key
    if (
        found
        and found[1] == key
        and _claimed(store, layout.claim_file(project, int(found[2])), experiment, datetime.now(UTC))
    ):
        return wanted
    return f"{key}-{claim_number(store, project, experiment)}"


def claim_number(store: Store, project: str, experiment: str, hint: int = 1) -> int:
    """A number of its own for the experiment: the lowest free one from about `hint` upward.

    `hint` is where to begin: the number after the last that the caller has seen. Without one the end of the claims is found
    in a few steps, not by walking over all of them. Call it only for an experiment whose document has no number yet.
    """
    now = datetime.now(UTC)
    # One below the first free one: there lies our own claim, if an earlier call was cut off after it.
    number = max(1, _first_free(store, project, max(1, hint)) - 1)
    while not _claimed(store, layout.claim_file(project, number), experiment, now):
        number += 1
    return number


def _first_free(store: Store, project: str, number: int) -> int:
    """A number that looks free while the one before it is taken: by doubling steps, then by halving."""

    def free(candidate: int) -> bool:
        return store.size(layout.claim_file(project, candidate)) is None

    if free(number):
        return number
    step = 1
    while not free(number + step):
        number, step = number + step, step * 2
    taken, unclaimed = number, number + step
    while unclaimed - taken > 1:
        middle = (taken + unclaimed) // 2
        if free(middle):
            unclaimed = middle
        else:
            taken = middle
    return unclaimed


def _claimed(store: Store, path: str, owner: str, now: datetime) -> bool:
    """Whether the claim at `path` is the owner's: made now, or found with the owner's name inside."""
    if store.create(path, _encoded(_Claim(owner=owner, claimed_at=now))):
        return True
    return _read(store, path, _Claim).owner == owner


def _encoded(record: Record) -> bytes:
    return record.model_dump_json(indent=2).encode()


def _read(store: Store, path: str, kind: type[_Record]) -> _Record:
    return parse(kind, store.read(path), store.url_of(path))
