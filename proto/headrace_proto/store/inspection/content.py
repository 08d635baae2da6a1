"""What an experiment's newest commit names: parts, files, and the pieces of files on their way."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import pyarrow as pa

from headrace_proto.errors import Corrupt, FormatUnknown
from headrace_proto.store import layout, parts
from headrace_proto.store.chain import Chain
from headrace_proto.store.commits import PART_KINDS, Commit, PartKind, PartRecord
from headrace_proto.store.documents import FILE_FOLDERS, FileGroup, FileRecord, file_place
from headrace_proto.store.inspection.findings import Depth, Finding, error, note, warning
from headrace_proto.store.presence import file_fault, part_fault

_RESTORE: Final = "restore it from a copy of the store; its events are gone from the journals, and nothing is made up"
_SHOWN: Final = 5
_BLOCK_ROWS: Final = 64 * 1024


class Content:
    """Looks at one head. `missing` tells afterwards whether something was not there, or not whole."""

    def __init__(self, chain: Chain, head: Commit, depth: Depth) -> None:
        self._chain, self._head, self._store = chain, head, chain.store
        self._depth: Final = depth
        self._rows: Final[dict[PartKind, Counter[str]]] = {kind: Counter() for kind in PART_KINDS}
        self.missing = False

    def inspect(self) -> Iterator[Finding]:
        """All findings."""
        for kind in PART_KINDS:
            bad = []
            for part in self._head.parts.of(kind):
                says = self._part(kind, part)
                bad += [(part, says)] if says else []
            for part, says in bad:
                self.missing = True
                yield error(f"{self._chain.folder}/{part.path}", f"{says}; {self._gone(kind, part)}", _RESTORE)
            if not bad and self._depth is not Depth.FAST:
                yield from self._counts(kind)
        for group, files in (("artifacts", self._chain.artifacts()), ("source_files", self._chain.source_files())):
            yield from self._files(group, files)  # type: ignore[arg-type]  # a tuple of two literals
        if not self.missing and self._depth is not Depth.FAST:
            yield from self._files_of_rows()
        yield from self._pending()

    # -- Parts ----------------------------------------------------------------------------------------------------------

    def _part(self, kind: PartKind, part: PartRecord) -> str:
        """What is wrong with a part; "" if nothing is."""
        path = f"{self._chain.folder}/{part.path}"
        fault = part_fault(self._store, path, part)
        if fault:
            return f"it {fault}"
        if self._depth is Depth.FAST:
            return ""
        try:
            with parts.opened(self._store, path) as file:
                self._rows[kind].update(dict(file.channels))
                if file.rows != part.rows or sum(count for _, count in file.channels) != part.rows:
                    return f"it has {file.rows} rows, not {part.rows}"
                if not set(parts.SCHEMAS[kind].names) <= set(file.schema.names):
                    return f"it has the columns {', '.join(file.schema.names)}"
                return _disorder(kind, file.channels, file.blocks(_BLOCK_ROWS, parts.SCHEMAS[kind].names))
        except FileNotFoundError:
            return "it is missing"
        except (Corrupt, FormatUnknown, pa.ArrowException, KeyError, ValueError) as bad:
            return f"it cannot be read: {bad}"

    def _gone(self, kind: PartKind, part: PartRecord) -> str:
        """What went with a part: its rows, and the channels that have fewer than the document counts."""
        if self._depth is Depth.FAST:
            return f"{part.rows} points are gone"
        records = getattr(self._head.document.channels, kind)
        lacking = [name for name, record in records.items() if self._rows[kind][name] < record.count]
        shown = ", ".join(lacking[:_SHOWN]) + (f" and {len(lacking) - _SHOWN} more" if len(lacking) > _SHOWN else "")
        return f"{part.rows} points are gone, of {shown or 'channels that other parts have as well'}"

    def _counts(self, kind: PartKind) -> Iterator[Finding]:
        """The document's counts are those of the visible points: of all, where nothing was reset."""
        for name, record in getattr(self._head.document.channels, kind).items():
            found = self._rows[kind][name]
            if found < record.count or (record.reset_at is None and found != record.count):
                path = layout.commit_file(*self._chain.place, self._head.number)
                says = f"the {kind} channel {name!r} has {found} points in the parts and {record.count} in the document"
                yield error(path, says, "report it: a commit must never say so")

    # -- Files ----------------------------------------------------------------------------------------------------------

    def _files(self, group: FileGroup, files: dict[str, FileRecord]) -> Iterator[Finding]:
        for path, record in files.items():
            place = f"{self._chain.folder}/{file_place(group, path, record)}"
            if record.state == "changed":
                yield note(
                    place, f"the {FILE_FOLDERS[group]} file was changed while it was read: its bytes were refused"
                )
            if record.state != "stored":
                continue
            fault = file_fault(self._store, place, record, read=self._depth is Depth.DIGESTS)
            if fault:
                self.missing = True
                yield error(place, f"it {fault}", "restore it from a copy of the store")

    def _files_of_rows(self) -> Iterator[Finding]:
        """Long texts and images. Presence only: rows of images have their digests, and `verify` reads them."""
        live = [part for kind in ("text", "image") for part in self._head.parts.of(kind)]
        named = parts.files(self._store, [f"{self._chain.folder}/{part.path}" for part in live])
        prefix = f"{self._chain.folder}/"
        awaited = {file.path.removeprefix(prefix) for file in self._head.pending.values()}
        folders: defaultdict[str, set[str]] = defaultdict(set)
        for place in named - awaited:
            folder, _, name = place.rpartition("/")
            folders[folder].add(name)
        for folder, names in folders.items():
            for name in sorted(names - set(self._store.names(f"{prefix}{folder}"))):
                if self._store.size(f"{prefix}{folder}/{name}") is None:  # a listing may be a moment old
                    says = "it is missing, and a point names it"
                    remedy = (
                        "restore it from a copy; if the document's notes list it as refused, its bytes never were right"
                    )
                    yield (warning if self._head.document.notes.refused else error)(
                        f"{prefix}{folder}/{name}", says, remedy
                    )

    def _pending(self) -> Iterator[Finding]:
        for file in self._head.pending.values():
            folder = layout.upload_folder(*self._chain.place, file.source, file.file)
            end = 0
            for offset in layout.piece_offsets(self._store.names(folder)):
                if offset != end:
                    yield warning(
                        folder, f"a piece begins at {offset}, the one before it ends at {end}", "it is sent again"
                    )
                    break
                end = offset + (self._store.size(f"{folder}/{layout.digits(offset)}") or 0)
            record = self._chain.sources().get(file.source)
            ended = record is not None and record.state != "open"
            says = f"{end} of {file.size} bytes of {file.name or file.file!r} have come"
            host = record.host if record else "unknown"
            remedy = f"its source has ended: an agent on {host!r}, over the home that logged it, sends the rest"
            yield (warning if ended else note)(file.path, says, remedy if ended else "")


def _disorder(kind: PartKind, channels: parts.ChannelRows, blocks: Iterable[pa.RecordBatch]) -> str:
    """What is wrong with the order of a part's rows, or with what its footer says of them; "" if nothing is."""
    names = [name for name, _ in channels]
    if names != sorted(names):
        return "its channels are not sorted"
    ends = np.cumsum([count for _, count in channels])
    done, last = 0, None
    for block in blocks:
        table = pa.Table.from_batches([block]).cast(parts.SCHEMAS[kind])
        rank = np.searchsorted(ends, np.arange(done, done + table.num_rows), "right")
        told = [name for name, _ in parts.channel_rows(table)]
        if told != [names[index] for index in np.unique(rank)]:
            return "its footer names other channels than its rows"
        step, time_us = table["step"].to_numpy(), parts.times_us(table)
        if not np.isfinite(step).all():
            return "a step is not finite"
        same = rank[1:] == rank[:-1]
        falls = same & ((step[1:] < step[:-1]) | ((step[1:] == step[:-1]) & (time_us[1:] < time_us[:-1])))
        first = (int(rank[0]), float(step[0]), int(time_us[0]))
        if falls.any() or (last is not None and first < last):
            return "its rows are not sorted by channel, step and time"
        last = (int(rank[-1]), float(step[-1]), int(time_us[-1]))
        done += table.num_rows
    return ""
