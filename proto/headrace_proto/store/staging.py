"""What is written before a commit, so that the commit may name it. Nobody sees any of it until then."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, cast

import pyarrow as pa

from headrace_proto.ids import token
from headrace_proto.store import compaction, layout, parts
from headrace_proto.store.apply.draft import InlineFile, Place, Quarantined
from headrace_proto.store.backend import Store
from headrace_proto.store.commits import PartKind, PartRecord, Side
from headrace_proto.store.stretches import Stretch, encoded

_PART_FILES: Final = {"numeric": layout.channel_part, "text": layout.text_part, "image": layout.image_part}


class Staging:
    """The files of one attempt at a commit. Their names hold its nonce, so that no other attempt can mean them."""

    def __init__(self, store: Store, place: Place, number: int, nonce: str) -> None:
        self.number: Final = number
        self.nonce: Final = nonce
        self._store = store
        self._place = place
        self._folder = layout.experiment_folder(*place)
        self._written: list[str] = []

    def put_aside(self, items: Iterable[Quarantined], now_ns: int) -> None:
        """Keep bytes in quarantine. Their place follows from what they are, so a commit that is made again upon another head, at
        the same `now_ns`, leaves them there once."""
        for item in items:
            nonce = layout.nonce_of(item.source, str(item.position))
            facts = {
                "project": self._place.project,
                "experiment": self._place.experiment,
                "source": item.source,
                "first": item.position,
                "bytes": len(item.raw),
                "reason": item.reason,
            }
            for suffix, data in (("bin", item.raw), ("json", json.dumps(facts, indent=2).encode())):
                self._store.put(layout.quarantine_file(token(self._place.experiment), now_ns, nonce, suffix), data)

    def put_inline(self, files: Mapping[str, InlineFile]) -> None:
        """Write the files whose bytes came inside events."""
        for file in files.values():
            self._store.put(file.path, file.data)

    def put_part(self, kind: PartKind, table: pa.Table | None) -> tuple[PartRecord, ...]:
        """Write a commit's points, if there are any."""
        if table is None:
            return ()
        path = _PART_FILES[kind](*self._place, self.number, self.nonce)
        data = parts.encoded(kind, table)
        self._store.put(path, data)
        self._written.append(path)
        return (PartRecord(path=self._inside(path), rows=table.num_rows, bytes=len(data)),)

    def put_stretches(self, stretches: Sequence[Stretch] | None) -> tuple[PartRecord, ...]:
        """Write a commit's numbers, if there are any."""
        if stretches is None:
            return ()
        path = layout.channel_part(*self._place, self.number, self.nonce)
        size = 0

        def blocks() -> Iterator[bytes]:
            nonlocal size
            for block in encoded(stretches):
                size += len(block)
                yield cast("bytes", block)

        self._written.append(path)
        if self._store.local:
            self._store.put_stream(path, blocks())
        else:  # one request, not those of an upload in parts
            self._store.put(path, b"".join(blocks()))
        return (PartRecord(path=self._inside(path), rows=sum(stretch.rows for stretch in stretches), bytes=size),)

    def put_merged(self, kind: PartKind, run: compaction.Run) -> PartRecord:
        """Write one part with all the rows of a run of parts, in bounded memory."""
        path = _PART_FILES[kind](*self._place, self.number, self.nonce)
        self._written.append(path)
        self._store.put_stream(
            path, compaction.merged(self._store, kind, [f"{self._folder}/{part.path}" for part in run])
        )
        size = self._store.size(path) or 0
        return PartRecord(
            path=self._inside(path), rows=sum(part.rows for part in run), bytes=size, level=compaction.level(run)
        )

    def put_side(self, side: Side) -> str:
        """Write a side file."""
        path = layout.side_file(*self._place, self.number, self.nonce)
        self._store.put(path, side.encode())
        self._written.append(path)
        return self._inside(path)

    def discard(self) -> None:
        """Remove what was written: no commit names it, and none ever will."""
        self._store.delete(self._written)

    def _inside(self, path: str) -> str:
        return path.removeprefix(f"{self._folder}/")
