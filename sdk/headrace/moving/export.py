"""What neptune-exporter has left on a disk: which runs there are, and where each one's rows lie.

    data/<project>/<run>_part_<n>.parquet     a run's rows; part 0 is put in place last, so a run without it is not whole
    data/<project>/part_<n>.parquet           of older releases: the rows of several runs
    files/...                                 what `file_value.path` names

The folders' names are made safe and mean nothing; the columns `project_id` and `run_id` say whose a row is. Row groups are the unit
in which all is read: the exporter writes a million rows in one at most.
"""

from __future__ import annotations

import os
import re
from functools import cached_property
from hashlib import sha256
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headrace_proto.errors import Corrupt, InvalidValue

REQUIRED: Final = frozenset({"project_id", "run_id", "attribute_path", "attribute_type"})
_WORDS: Final = ("project_id", "run_id", "attribute_path", "attribute_type")
_PART: Final = re.compile(r"(?:(?P<run>.+)_)?part_(?P<number>\d+)\.parquet")
_DIGEST_BLOCK: Final = 1 << 20
_STATISTICS_CUT: Final = 32


class Group(NamedTuple):
    """A row group that has rows of a run."""

    path: str
    number: int
    rows: int
    shared: bool
    """Whether it has rows of other runs, too."""


class Run(NamedTuple):
    """One exported run."""

    project_id: str
    run_id: str
    groups: tuple[Group, ...]

    @property
    def rows(self) -> int:
        """Rows of its row groups; of one that several runs share, all."""
        return sum(group.rows for group in self.groups)

    def fingerprint(self, also: str) -> str:
        """A digest of everything that its journal is made of: the bytes of its parts, and `also`."""
        digest = sha256(f"{self.project_id}\n{self.run_id}\n{also}\n".encode())
        for path in dict.fromkeys(group.path for group in self.groups):
            with open(path, "rb", buffering=0) as file:
                while block := file.read(_DIGEST_BLOCK):
                    digest.update(block)
        return digest.hexdigest()

    def read(self, group: Group, columns: list[str]) -> pa.Table:
        """Its rows of a row group. A column that the export does not have is null. Raises `Corrupt`."""
        try:
            with pq.ParquetFile(group.path, read_dictionary=list(_WORDS)) as file:
                wanted = [*columns, "project_id", "run_id"] if group.shared else columns
                have = [name for name in wanted if name in file.schema_arrow.names]
                table = file.read_row_group(group.number, columns=have, use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise Corrupt(f"{group.path} cannot be read: {error}") from error
        if group.shared:
            table = table.filter((pc.field("project_id") == self.project_id) & (pc.field("run_id") == self.run_id))
        for name in columns:
            if name not in have:
                table = table.append_column(name, pa.nulls(table.num_rows))
        return table.select(columns).unify_dictionaries().combine_chunks()


class Unfinished(NamedTuple):
    """A part of an export that cannot be taken over, and why."""

    path: str
    reason: str


class Export:
    """An export: a folder with `data` and `files` in it, or the data folder itself, or one project's folder of it."""

    def __init__(self, path: str, files: str | None = None) -> None:
        """Raises `InvalidValue` when there is no such folder."""
        if not os.path.isdir(path):
            raise InvalidValue(f"there is no export at {path!r}: name the folder that neptune-exporter wrote to")
        inside = os.path.join(path, "data")
        self.data: Final = inside if os.path.isdir(inside) else path
        self.files: Final = os.path.abspath(files) if files is not None else _files_beside(self.data)
        if files is not None and not os.path.isdir(files):
            raise InvalidValue(f"there is no folder {files!r}: name the one that neptune-exporter downloaded files to")
        self.unfinished: Final[list[Unfinished]] = []

    @cached_property
    def runs(self) -> list[Run]:
        """Every run that is whole, sorted by project and id. What is not is listed in `unfinished`."""
        groups: dict[tuple[str, str], list[Group]] = {}
        for path in self._parts():
            try:
                for owner, group in _groups(path):
                    groups.setdefault(owner, []).append(group)
            except (OSError, pa.ArrowException, Corrupt) as error:
                self.unfinished.append(Unfinished(path, f"it cannot be read: {error}"))
        return [Run(*owner, tuple(found)) for owner, found in sorted(groups.items())]

    def _parts(self) -> list[str]:
        folders = [self.data, *(entry.path for entry in os.scandir(self.data) if entry.is_dir())]
        found: list[tuple[str, str, int, str]] = []
        for folder in sorted(folders):
            for name in os.listdir(folder):
                match = _PART.fullmatch(name)
                if match:
                    found.append((folder, match["run"] or "", int(match["number"]), os.path.join(folder, name)))
        whole = {(folder, run) for folder, run, number, _ in found if number == 0}
        for folder, run, _, path in found:
            if (folder, run) not in whole:
                self.unfinished.append(Unfinished(path, "its run's part 0 is missing: the export has not finished it"))
        return [path for folder, run, _, path in sorted(found) if (folder, run) in whole]


def _files_beside(data: str) -> str:
    """The folder `files` beside the data, or, when `data` is one project's folder, beside that of all."""
    folder = os.path.dirname(os.path.abspath(data))
    candidates = [os.path.join(folder, "files"), os.path.join(os.path.dirname(folder), "files")]
    return next((one for one in candidates if os.path.isdir(one)), candidates[0])


def _groups(path: str) -> list[tuple[tuple[str, str], Group]]:
    """The row groups of a part, each with the runs that it has rows of."""
    found: list[tuple[tuple[str, str], Group]] = []
    with pq.ParquetFile(path, read_dictionary=list(_WORDS)) as file:
        lacking = REQUIRED - set(file.schema_arrow.names)
        if lacking:
            raise Corrupt(f"it has no column {min(lacking)!r}, so it is none of neptune-exporter's")
        for index in range(file.metadata.num_row_groups):
            rows = file.metadata.row_group(index).num_rows
            owners = _owners(file, index) if rows else []
            found.extend((owner, Group(path, index, rows, len(owners) > 1)) for owner in owners)
    return found


def _owners(file: pq.ParquetFile, index: int) -> list[tuple[str, str]]:
    group = file.metadata.row_group(index)
    columns = {group.column(at).path_in_schema: group.column(at).statistics for at in range(group.num_columns)}
    project, run = (_only_value(columns.get(name)) for name in ("project_id", "run_id"))
    if project and run:
        return [(project, run)]
    table = file.read_row_group(index, columns=["project_id", "run_id"], use_threads=False)
    pairs = table.group_by(["project_id", "run_id"]).aggregate([]).to_pylist()
    if any(None in pair.values() for pair in pairs):
        raise Corrupt(f"row group {index} has rows of no project or no run")
    return [(pair["project_id"], pair["run_id"]) for pair in pairs]


def _only_value(statistics: Any) -> str | None:
    """What all rows of a column have, if the footer can tell. Some writers cut long values there."""
    if statistics is None or not statistics.has_min_max or statistics.null_count or statistics.min != statistics.max:
        return None
    value = str(statistics.min)
    return value if len(value) < _STATISTICS_CUT else None
