"""One project: its record and key, its catalog beside what the experiments say, and its numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from headrace_proto.errors import Corrupt, FormatUnknown
from headrace_proto.ids import is_id
from headrace_proto.store import claims, layout
from headrace_proto.store.backend import Store
from headrace_proto.store.catalog import Catalog, append_rows
from headrace_proto.store.inspection.experiment import Inspected
from headrace_proto.store.inspection.findings import Finding, Options, error, note

_LISTS: Final = "headrace fsck --repair writes the row from the newest commit"


def inspect_record(store: Store, project: str) -> Iterator[Finding]:
    """`project.json`, and the key that it names."""
    path = layout.project_file(project)
    try:
        record = claims.read_project(store, project)
    except (Corrupt, FormatUnknown) as bad:
        yield error(path, str(bad), "restore it from a copy of the store")
        return
    if record is None:
        yield error(path, "it is missing: no list shows the project", "the next commit of the project makes it anew")
        return
    if record.name != project:
        yield error(path, f"it is of the project {record.name!r}", "was the folder moved? Names of folders are names")
    key = layout.key_file(record.key)
    try:
        owner = claims.claim_owner(store, key)
    except (FileNotFoundError, Corrupt, FormatUnknown) as bad:
        yield error(key, f"the key of {project} is not claimed: {bad}", "restore it from a copy of the store")
        return
    if owner != project:
        yield error(key, f"the key of {project} is claimed by {owner}", "refer to experiments by their internal ids")


class CatalogCheck:
    """The catalog of one project, read before the experiments are, and held against each of them as it comes.

    Memory: an entry an experiment.
    """

    def __init__(self, store: Store, project: str, options: Options) -> None:
        self._store, self._project, self._options = store, project, options
        self._catalog: Final = Catalog(store, project)
        self._shown: dict[str, int] = {}
        self._numbers: dict[str, str] = {}
        self._readable = True

    def begin(self) -> Iterator[Finding]:
        """Read it. A file that cannot be read hides all others from readers: the repair removes it, its rows are written anew."""
        for path, bad in self._catalog.damaged():
            finding = error(path, str(bad), "headrace fsck --repair removes it and writes its rows from the commits")
            if isinstance(bad, FormatUnknown):
                finding = finding._replace(remedy="use the release that wrote it: a newer one's files are left alone")
                self._readable = False
            elif self._options.repair:
                self._store.delete([path])
                finding = finding._replace(mended=True)
            else:
                self._readable = False
            yield finding
        if self._readable:
            self._shown = self._catalog.commits()

    def compare(self, found: Inspected) -> Iterator[Finding]:
        """What lists show of one experiment."""
        shown = self._shown.pop(found.experiment, None)
        row = found.row
        if row is None:
            return
        other = self._numbers.setdefault(row.id, found.experiment)
        if other != found.experiment:
            says = f"{row.id} is the number of {other} and of {found.experiment}"
            yield error(layout.claims_folder(self._project), says, "refer to them by their internal ids; report it")
        if not self._readable or shown == row.commit:
            return
        if found.fresh:  # its writer is about to list it; if that was killed before, we do
            if self._options.repair and (shown is None or shown < row.commit):
                append_rows(self._store, self._project, [row])
            return
        folder = layout.shards_folder(self._project)
        if shown is None:
            says = f"no row for {row.id} ({found.experiment}): no list shows it"
        elif shown > row.commit:
            says = f"the row of {row.id} is of commit {shown}, the newest is {row.commit}"
        else:
            says = f"the row of {row.id} shows commit {shown}, not {row.commit}"
        finding = error(folder, says, _LISTS)
        if self._options.repair:
            if shown is not None and shown > row.commit:
                self._catalog.forget([found.experiment])
            append_rows(self._store, self._project, [row])
            finding = finding._replace(mended=True)
        yield finding

    def end(self, experiments: set[str]) -> Iterator[Finding]:
        """Rows of experiments that have no commit (those of `experiments` are damaged, and keep theirs)."""
        folder = layout.shards_folder(self._project)
        nowhere = sorted(
            name
            for name in self._shown.keys() - experiments
            if is_id(name) and not self._store.names(layout.commits_folder(self._project, name))
        )
        if nowhere:
            says = f"{len(nowhere)} rows of experiments that are not there, such as {nowhere[0]}"
            finding = error(folder, says, "headrace fsck --repair removes the rows")
            if self._options.repair:
                self._catalog.forget(nowhere)
                finding = finding._replace(mended=True)
            yield finding
        claimed = sum(
            layout.claim_number(name) is not None for name in self._store.names(layout.claims_folder(self._project))
        )
        if claimed > len(self._numbers):
            says = (
                f"{claimed} numbers are claimed, {len(self._numbers)} are borne: a crash leaves a hole, never a double"
            )
            yield note(layout.claims_folder(self._project), says)
