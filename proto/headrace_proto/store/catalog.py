"""The catalog: one row an experiment, so that listing 100,000 of them opens a few files and no document.

It is a cache of the commits, which are the truth; `Catalog.append` of any experiment's newest row repairs it.

Invariants
1. Every row carries the number of the commit that it shows. Of all rows of an experiment, the highest commit is the truth,
   in whatever file and order they are found: reading is the union of all files, and repeating or mixing them changes nothing.
2. Files are created once under a random name and never changed. A *delta* (JSON) holds what one writer appended, a *base*
   (Parquet) what one `fold` merged.
3. A file is deleted only by who has just created a base with all its rows. So two folders at once, or one that slept for a
   day in between, can leave a row twice but never lose one: no lock, no compare-and-swap.
4. A reader that misses a file lists again: somebody folded it into another.

A shard is a range of tokens (`ProjectRecord.shards`), for writers only: readers take the union of every shard that is there.
File names hold their number of rows, so that `fold` merges what is of like size without opening it.
"""

from __future__ import annotations

import io
import re
from collections import defaultdict
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from headrace_proto.errors import Corrupt, FormatUnknown
from headrace_proto.ids import random_id, token
from headrace_proto.limits import TOKENS
from headrace_proto.store import claims, layout
from headrace_proto.store.commits import PART_KINDS
from headrace_proto.store.plain import unplain

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from headrace_proto.store.backend import Store
    from headrace_proto.store.commits import Commit

READ_ATTEMPTS: Final = 10
"""Listings of one read. Each is lost only to a fold that ended within it, and every file read is kept for the next."""

DELTAS_MAX: Final = 64
"""Deltas of a shard that a reader may have to open: about as many as one opens in the time of a listing or two."""

TEXT_CHARACTERS_MAX: Final = 255
"""Of a text channel's last value, as Neptune's leaderboard cuts it."""

SYSTEM_CHANNELS: Final = "system/"
"""What the names of hardware's channels begin with: they are shown by `get_hardware_utilization`, in no list."""
CAPTURED_CHANNELS: Final = frozenset({"stdout", "stderr", "logger", "exceptions"})
"""Captured output is no result: its last line stands in no leaderboard (Neptune keeps it in a namespace of its own)."""

_FORMAT_KEY: Final = b"headrace.catalog"
_FORMAT: Final = b"1"
_FILE: Final = re.compile(r"(delta|base)-([0-9]{10})-[0-9a-f]{32}\.(?:json|parquet)")

_COLUMNS: Final[list[tuple[str, pa.DataType]]] = [
    ("experiment", pa.string()),
    ("commit", pa.int64()),
    ("id", pa.string()),
    ("name", pa.string()),
    ("state", pa.string()),
    ("owner", pa.string()),
    ("created_at", pa.timestamp("us", tz="UTC")),
    ("finished_at", pa.timestamp("us", tz="UTC")),
    ("tags", pa.list_(pa.string())),
    ("row", pa.string()),  # the whole row as JSON: what is filtered by stands in columns, what is shown here
]
_SCHEMA: Final = pa.schema(_COLUMNS, metadata={_FORMAT_KEY: _FORMAT})


class CatalogRow(BaseModel):
    """What lists and leaderboards show of an experiment, as of its commit `commit`."""

    # A last value may be NaN or infinite, and JSON has neither: "NaN" and "Infinity" are read back as numbers.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    experiment: str
    commit: int
    id: str
    name: str
    state: str
    created_at: datetime | None = None
    finished_at: datetime | None = None
    seen_at: datetime | None = None
    """When an event of it was last stored: readers tell from it whether a running one still responds."""
    owner: str = ""
    description: str = ""
    hostname: str = ""
    size: int = 0
    """Bytes of its channels and artifacts in the store."""
    tags: list[str] = []
    params: dict[str, Any] = {}
    properties: dict[str, str] = {}
    metrics: dict[str, float] = {}
    """The last value of each numeric channel."""
    texts: dict[str, str] = {}
    """The last value of each text channel, at most TEXT_CHARACTERS_MAX characters of it."""


class _Delta(BaseModel):
    """A delta file."""

    model_config = ConfigDict(ser_json_inf_nan="strings")

    format: Literal[1] = 1
    rows: list[CatalogRow]


_ROWS: Final = TypeAdapter(list[CatalogRow])


def row_of(commit: Commit) -> CatalogRow:
    """What the catalog shows of an experiment as of this commit. Hardware and what stands in no list stay out."""
    document, channels = commit.document, commit.document.channels
    seen = [source.last_seen_at for source in document.sources.values() if source.last_seen_at is not None]
    files = [*document.artifacts.values(), *document.source_files.values()]
    return CatalogRow(
        experiment=document.internal_id,
        commit=commit.number,
        id=document.id,
        name=document.name,
        state=document.state,
        created_at=document.created_at,
        finished_at=document.finished_at,
        seen_at=max(seen, default=None),
        owner=document.owner,
        description=document.description,
        hostname=document.hostname,
        size=sum(part.bytes for kind in PART_KINDS for part in commit.parts.of(kind))
        + sum(file.size for file in files),
        tags=list(document.tags),
        params=document.params,
        properties=document.properties,
        metrics={
            name: unplain(channel.last.value)
            for name, channel in channels.numeric.items()
            if channel.last is not None and not name.startswith(SYSTEM_CHANNELS)
        },
        texts={
            name: str(channel.last.value)[:TEXT_CHARACTERS_MAX]
            for name, channel in channels.text.items()
            if channel.last is not None and name not in CAPTURED_CHANNELS
        },
    )


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
        self._tables: dict[str, pa.Table] = {}
        self._rows: dict[str, CatalogRow] = {}

    def append(self, rows: Iterable[CatalogRow]) -> None:
        """Show these rows from now on, where they are of a newer commit than what is shown. One file a shard."""
        shards = self._shards()
        by_shard: defaultdict[int, list[CatalogRow]] = defaultdict(list)
        for row in rows:
            by_shard[token(row.experiment) * shards // TOKENS].append(row)
        for shard, members in by_shard.items():
            data = _Delta(rows=members).model_dump_json().encode()
            self._create(shard, "delta", len(members), "json", data)

    def fold(self, deltas_min: int = 1) -> bool:
        """Merge each shard that has at least `deltas_min` deltas. True if there was anything to merge."""
        folded = [self._fold(shard, deltas_min) for shard in self._present_shards()]
        return any(folded)

    def table(self) -> pa.Table:
        """The newest row of every experiment, in no order: the columns that filters need, and the row itself as JSON."""
        for _ in range(READ_ATTEMPTS):
            try:
                return newest(self._load())
            except FileNotFoundError:
                continue
        raise OSError(
            f"the catalog of {self._project!r} was folded at every one of {READ_ATTEMPTS} reads: read it again"
        )

    def rows(self, table: pa.Table | None = None) -> list[CatalogRow]:
        """The rows of `table`, or of all experiments."""
        chosen = self.table() if table is None else table
        keys = _keys(chosen)
        unknown = [index for index, key in enumerate(keys) if not self._knows(*key)]
        texts: list[str] = cast("Any", chosen["row"].take(pa.array(unknown, pa.int64())).to_pylist())
        parsed = _ROWS.validate_json(f"[{','.join(texts)}]")
        self._rows.update((row.experiment, row) for row in parsed)
        return [self._rows[experiment] for experiment, _ in keys]

    # -- For inspections ------------------------------------------------------------------------------------------------

    def commits(self) -> dict[str, int]:
        """Of each experiment the commit that its newest row shows."""
        return dict(_keys(self.table()))

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
            paths = [
                f"{self._folder(shard)}/{name}"
                for name in self._store.names(self._folder(shard))
                if _FILE.fullmatch(name)
            ]
            try:
                table = newest([self._read(path) for path in paths])
            except FileNotFoundError:  # somebody folds: nothing is lost by leaving it as it is
                continue
            kept = [index for index, (name, _) in enumerate(_keys(table)) if name not in experiments]
            if len(kept) < table.num_rows:
                self._replace(shard, table.take(pa.array(kept, pa.int64())), paths)

    def _knows(self, experiment: str, commit: int) -> bool:
        known = self._rows.get(experiment)
        return known is not None and known.commit == commit

    def _shards(self) -> int:
        record = claims.read_project(self._store, self._project)
        return record.shards if record else 1

    def _present_shards(self) -> list[int]:
        names = self._store.names(f"{layout.project_folder(self._project)}/catalog")
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
            table = newest([self._read(path) for path in paths])
        except FileNotFoundError:  # another folder of this shard was faster: its base has these rows
            return False
        self._replace(shard, table, paths)
        return True

    def _replace(self, shard: int, table: pa.Table, paths: Iterable[str]) -> None:
        """Put a base in place of files. The last one goes first: a reader, who goes from the first one on, has those that go
        while he reads already, and needs only the base when he lists again."""
        self._create(shard, "base", table.num_rows, "parquet", _encoded(table))
        self._store.delete(sorted(paths, reverse=True))

    def _load(self) -> list[pa.Table]:
        """Every file's table; those that are gone are forgotten."""
        paths = self._paths()
        self._tables = {path: table for path, table in self._tables.items() if path in set(paths)}
        for path in paths:
            if path not in self._tables:
                self._tables[path] = self._read(path)
        return list(self._tables.values())

    def _paths(self) -> list[str]:
        return [
            f"{self._folder(shard)}/{name}"
            for shard in self._present_shards()
            for name in self._store.names(self._folder(shard))
            if _FILE.fullmatch(name)
        ]

    def _read(self, path: str) -> pa.Table:
        data = self._store.read(path)
        try:
            return _decoded_base(data) if path.endswith(".parquet") else table_of(_Delta.model_validate_json(data).rows)
        except (ValidationError, pa.ArrowException) as error:
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


def newest(tables: Sequence[pa.Table]) -> pa.Table:
    """Of each experiment the row of its highest commit."""
    table = pa.concat_tables(tables) if tables else _SCHEMA.empty_table()
    best: dict[str, tuple[int, int]] = {}
    for index, (experiment, commit) in enumerate(_keys(table)):
        if experiment not in best or best[experiment][0] < commit:
            best[experiment] = (commit, index)
    if len(best) == table.num_rows:
        return table
    return table.take(pa.array([index for _, index in best.values()], pa.int64()))


def _keys(table: pa.Table) -> list[tuple[str, int]]:
    columns: list[list[Any]] = [table[name].to_pylist() for name in ("experiment", "commit")]
    return list(zip(*columns, strict=True))


def table_of(rows: Sequence[CatalogRow]) -> pa.Table:
    """Rows as a table."""
    columns: dict[str, list[Any]] = {
        name: [getattr(row, name) for row in rows] for name in _SCHEMA.names if name != "row"
    }
    columns["row"] = [row.model_dump_json() for row in rows]
    return pa.table(columns, schema=_SCHEMA)


def _encoded(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _decoded_base(data: bytes) -> pa.Table:
    table = pq.read_table(io.BytesIO(data))
    version = (table.schema.metadata or {}).get(_FORMAT_KEY)
    if version != _FORMAT:
        raise FormatUnknown(f"a catalog file of format {version!r}; this release knows {_FORMAT!r}: use a newer one")
    return table.select(_SCHEMA.names).cast(_SCHEMA)
