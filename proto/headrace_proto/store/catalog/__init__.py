"""The catalog: one row an experiment, so that listing 100,000 of them opens a few files and no document.

It is a cache of the commits, which are the truth; `Catalog.append` of any experiment's newest row repairs it.

Invariants
1. Every row carries the number of the commit that it shows. Of all rows of an experiment, the highest commit is the truth,
   in whatever file and order they are found: reading is the union of all files, and repeating or mixing them changes nothing.
2. Files are created once under a random name and never changed. A *delta* (JSON; Parquet if it is long) holds what one writer
   appended, a *base* (Parquet) what one `fold` merged.
3. A file is deleted only by whoever has just created a base with all its rows. So two folders at once, or one that slept for a
   day in between, can leave a row twice but never lose one: no lock, no compare-and-swap.
4. A reader that misses a file lists again: somebody folded it into another.

A shard is a range of tokens (`ProjectRecord.shards`), for writers only: readers take the union of every shard that is there.
File names hold their number of rows, so that `fold` merges what is of like size without opening it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from headrace_proto.errors import Corrupt, FormatUnknown
from headrace_proto.ids import random_id, token
from headrace_proto.limits import TOKENS
from headrace_proto.store import claims, layout
from headrace_proto.store.catalog.row import (
    CAPTURED_CHANNELS,
    CatalogRow,
    row_of,
)
from headrace_proto.store.catalog.segment import Listing, Rows, Segment, joined
from headrace_proto.store.catalog.table import (
    by_name,
    decoded,
    encoded,
    experiments_and_commits,
    in_order,
    newest,
    rows_of,
    table_of,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from headrace_proto.store.backend import Store

__all__ = [
    "CAPTURED_CHANNELS",
    "DELTAS_MAX",
    "JSON_ROWS_MAX",
    "Catalog",
    "CatalogRow",
    "Listing",
    "Rows",
    "append_rows",
    "by_name",
    "files_to_fold",
    "fold",
    "in_order",
    "read_rows",
    "row_of",
]

READ_ATTEMPTS: Final = 10
"""Listings of one read. Each is lost only to a fold that ended within it, and every file read is kept for the next."""

DELTAS_MAX: Final = 64
"""Deltas of a shard that a reader may have to open: about as many as one opens in the time of a listing or two."""

JSON_ROWS_MAX: Final = 64
"""A longer delta is Parquet: that costs 3 ms to write and 2 ms to read, a row of JSON 15 and 30 us."""

_FILE: Final = re.compile(r"(delta|base)-([0-9]{10})-[0-9a-f]{32}\.(?:json|parquet)")


class _Delta(BaseModel):
    """A delta file."""

    model_config = ConfigDict(ser_json_inf_nan="strings")

    format: Literal[1] = 1
    rows: list[CatalogRow]


def append_rows(store: Store, project: str, rows: Iterable[CatalogRow]) -> None:
    """Show these rows from now on, where they are of a newer commit than what is shown; merge files when many have gathered.

    For who writes now and then. A collector holds a `Catalog` and folds when it sees fit.
    """
    catalog = Catalog(store, project)
    catalog.append(rows)
    catalog.fold(DELTAS_MAX)


def read_rows(store: Store, project: str) -> list[CatalogRow]:
    """The newest row of every experiment of the project."""
    return Catalog(store, project).rows()


def fold(store: Store, project: str) -> bool:
    """Merge what was appended into fewer files. True if there was anything to merge."""
    return Catalog(store, project).fold()


class Catalog:
    """One project's catalog. An instance remembers files, which never change, so that reading again reads only new ones."""

    def __init__(self, store: Store, project: str) -> None:
        self._store: Final = store
        self._project: Final = project
        self._segments: dict[str, Segment] = {}
        self._shown: tuple[frozenset[str], Listing] | None = None
        self._rows: dict[str, CatalogRow] = {}

    def append(self, rows: Iterable[CatalogRow]) -> None:
        """Show these rows from now on, where they are of a newer commit than what is shown. One file a shard."""
        shards = self._shards()
        by_shard: defaultdict[int, list[CatalogRow]] = defaultdict(list)
        for row in rows:
            by_shard[token(row.experiment) * shards // TOKENS].append(row)
        for shard, members in by_shard.items():
            if len(members) > JSON_ROWS_MAX:
                self._create(shard, "delta", len(members), "parquet", encoded(table_of(members)))
            else:
                self._create(shard, "delta", len(members), "json", _Delta(rows=members).model_dump_json().encode())

    def fold(self, deltas_min: int = 1) -> bool:
        """Merge each shard that has at least `deltas_min` deltas. True if there was anything to merge."""
        folded = [self._fold(shard, deltas_min) for shard in self._present_shards()]
        return any(folded)

    def listing(self) -> Listing:
        """The newest row of every experiment, in no order (see `in_order`). The same object as before if nothing is new."""
        for _ in range(READ_ATTEMPTS):
            try:
                return self._load()
            except FileNotFoundError:
                continue
        raise OSError(
            f"the catalog of {self._project!r} was folded at every one of {READ_ATTEMPTS} reads: read it again"
        )

    def rows(self, listing: Listing | None = None) -> list[CatalogRow]:
        """The rows of `listing`, or of all experiments. Those that were made before are the same objects."""
        chosen = self.listing() if listing is None else listing
        keys = experiments_and_commits(chosen.head)
        unknown = [index for index, key in enumerate(keys) if not self._knows(*key)]
        made = chosen if len(unknown) == len(keys) else chosen.of(chosen.head.take(pa.array(unknown, pa.int64())))
        self._rows.update((row.experiment, row) for row in rows_of(made.table()))
        return [self._rows[experiment] for experiment, _ in keys]

    # -- For inspections ------------------------------------------------------------------------------------------------

    def commits(self) -> dict[str, int]:
        """Of each experiment the commit that its newest row shows."""
        return dict(experiments_and_commits(self.listing().head))

    def damaged(self) -> list[tuple[str, Corrupt | FormatUnknown]]:
        """Files that cannot be read, each with the reason. One such file keeps readers from all the others."""
        found: list[tuple[str, Corrupt | FormatUnknown]] = []
        for path in self._paths():
            try:
                self._read(path)
            except FileNotFoundError:
                continue
            except (Corrupt, FormatUnknown) as bad:
                found.append((path, bad))
        return found

    def forget(self, experiments: Collection[str]) -> None:
        """Remove the rows of these experiments: what is appended for them from now on is shown again."""
        for shard in self._present_shards():
            paths = self._paths_of(shard)
            try:
                table = newest(pa.concat_tables([self._read(path) for path in paths]))
            except FileNotFoundError:  # somebody folds: nothing is lost by leaving it as it is
                continue
            kept = [index for index, (name, _) in enumerate(experiments_and_commits(table)) if name not in experiments]
            if len(kept) < table.num_rows:
                self._replace(shard, table.take(pa.array(kept, pa.int64())), paths)

    def _knows(self, experiment: str, commit: int) -> bool:
        known = self._rows.get(experiment)
        return known is not None and known.commit == commit

    def _shards(self) -> int:
        record = claims.read_project(self._store, self._project)
        return record.shards if record else 1

    def _present_shards(self) -> list[int]:
        names = self._store.names(layout.shards_folder(self._project))
        return [int(name) for name in names if name.isdecimal() and int(name) < TOKENS]

    def _folder(self, shard: int) -> str:
        return layout.catalog_folder(self._project, shard)

    def _create(self, shard: int, kind: str, rows: int, suffix: str, data: bytes) -> None:
        self._store.create(f"{self._folder(shard)}/{kind}-{rows:010d}-{random_id()}.{suffix}", data)

    def _fold(self, shard: int, deltas_min: int) -> bool:
        folder = self._folder(shard)
        merged = files_to_fold(self._store.names(folder), deltas_min)
        if not merged:
            return False
        paths = [f"{folder}/{name}" for name in merged]
        try:
            table = newest(pa.concat_tables([self._read(path) for path in paths]))
        except FileNotFoundError:  # another folder of this shard was faster: its base has these rows
            return False
        self._replace(shard, table, paths)
        return True

    def _replace(self, shard: int, table: pa.Table, paths: Iterable[str]) -> None:
        """Put a base in place of files. The last one is deleted first: a reader begins with the first one, so that it has read
        those that go meanwhile, or finds one missing, lists again, and needs only the base."""
        self._create(shard, "base", table.num_rows, "parquet", encoded(table))
        self._store.delete(sorted(paths, reverse=True))

    def _load(self) -> Listing:
        """Every file's rows, those of files that are gone forgotten."""
        paths = self._paths()
        there = frozenset(paths)
        if self._shown is not None and self._shown[0] == there:
            return self._shown[1]
        self._segments = {path: segment for path, segment in self._segments.items() if path in there}
        for path in paths:
            if path not in self._segments:
                self._segments[path] = self._segment(path)
        segments = tuple(self._segments.values())
        self._shown = (there, Listing(newest(joined(segments)), segments))
        return self._shown[1]

    def _paths(self) -> list[str]:
        return [path for shard in self._present_shards() for path in self._paths_of(shard)]

    def _paths_of(self, shard: int) -> list[str]:
        folder = self._folder(shard)
        return [f"{folder}/{name}" for name in self._store.names(folder) if _FILE.fullmatch(name)]

    def _read(self, path: str) -> pa.Table:
        """All rows of a file."""
        data = self._store.read(path)
        with self._damage_told(path):
            return decoded(data) if path.endswith(".parquet") else table_of(_Delta.model_validate_json(data).rows)

    def _segment(self, path: str) -> Segment:
        """The rows of a file, of which a reader will show some."""
        if not path.endswith(".parquet"):
            return Segment.held(self._read(path))
        data = self._store.read(path)
        with self._damage_told(path):
            return Segment.filed(data, partial(self._damage_told, path))

    @contextmanager
    def _damage_told(self, path: str) -> Iterator[None]:
        try:
            yield
        except FormatUnknown:
            raise
        except (ValidationError, pa.ArrowException, OSError, KeyError) as error:
            raise Corrupt(
                f"{self._store.url_of(path)} is damaged, or of a newer release: delete it, the next commits repair the catalog"
            ) from error


class _File(NamedTuple):
    name: str
    kind: str
    rows: int


def files_to_fold(names: Sequence[str], deltas_min: int = 1) -> list[str]:
    """Which files of a shard to merge into one: all deltas, and the bases that are not much larger than what joins them.

    A base is at least twice as large as all smaller ones together when it stays, so that there are at most log2 of them and
    a row is written again only a logarithmic number of times.
    """
    files = [_File(found[0], found[1], int(found[2])) for name in names if (found := _FILE.fullmatch(name))]
    deltas = [file for file in files if file.kind == "delta"]
    if len(deltas) < max(1, deltas_min):
        return []
    merged, rows = deltas, sum(file.rows for file in deltas)
    for base in sorted((file for file in files if file.kind == "base"), key=lambda file: file.rows):
        if base.rows > 2 * rows:
            break
        merged, rows = [*merged, base], rows + base.rows
    return [file.name for file in merged]
