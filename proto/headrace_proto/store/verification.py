"""Whether all of an experiment is stored: what each source wrote, what of it is here, what is missing and why.

A source's journal is positions [0, end). The store holds [0, watermark) of it, once, but for the ranges that it lists as lost. So
an experiment is complete when every source has closed, or was observed dead where its watermark stands; when no range is lost, no
event was dropped or put aside, and no file is awaited; and when what the newest commit names is there and says what it should.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

from headrace_proto.errors import Corrupt, ExperimentNotFound
from headrace_proto.store.backend import Store
from headrace_proto.store.chain import CURATION_SOURCE, Chain
from headrace_proto.store.commits import PART_KINDS, Commit, PendingFile
from headrace_proto.store.digests import ChannelDigest, channel_digests, experiment_digest
from headrace_proto.store.documents import FILE_FOLDERS, FileGroup, FileRecord, LostRange, SourceRecord, file_place
from headrace_proto.store.presence import file_fault, part_fault

RELOADS_MAX: Final = 3
"""Times that a verification begins again because compaction replaced a part under it."""

Verdict = Literal["complete", "running", "incomplete"]


class SourceProof(NamedTuple):
    """One source."""

    source: str
    record: SourceRecord
    end: Literal["open", "closed", "dead", "curation"]
    stored: int
    """Positions [0, stored) are in the store, but for `lost`."""
    lost: tuple[LostRange, ...]

    @property
    def bytes(self) -> int:
        """Of its journal in the store."""
        return self.stored - sum(gap.end - gap.first for gap in self.lost)


class Verification(NamedTuple):
    """What was found of one experiment."""

    project: str
    experiment: str
    id: str
    commit: int
    state: str
    verdict: Verdict
    reasons: tuple[str, ...]
    """Why the verdict is not "complete"."""
    sources: tuple[SourceProof, ...]
    gaps: dict[str, int]
    """Reason -> events that were dropped before they reached a journal, or that had no finite step."""
    pending: tuple[PendingFile, ...]
    channels: tuple[ChannelDigest, ...]
    """Those with visible points. Empty if no digest was asked for."""
    points: int
    files: int
    bytes: int
    """Of parts and files."""
    digest: str | None
    """Of all that the experiment says (`digests`); None if it was not asked for, or if something to be read is not there."""


def verify(store: Store, project: str, experiment: str, *, read: bool = True) -> Verification:
    """Look at everything that the newest commit names. With `read` every byte of it is read, for the digests; else sizes only.

    Raises `ExperimentNotFound`, `FormatUnknown`, `Corrupt` when the newest commit cannot be read, and `OSError`.
    """
    chain = Chain(store, project, experiment)
    for attempt in range(RELOADS_MAX):
        number = chain.load().number
        head = chain.head
        if head is None or head.blank:
            raise ExperimentNotFound(f"the store {store.url!r} has no experiment {experiment!r} in {project!r}")
        found = _Look(chain, head, read=read).verification()
        if not found.missing or attempt == RELOADS_MAX - 1 or chain.load().number == number:
            break
    return found.result


class _Found(NamedTuple):
    result: Verification
    missing: bool


class _Look:
    """One look at one head."""

    def __init__(self, chain: Chain, head: Commit, *, read: bool) -> None:
        self._chain, self._head, self._store = chain, head, chain.store
        self._read: Final = read
        self._problems: list[str] = []
        self._missing = False
        self._files: Final[dict[FileGroup, dict[str, FileRecord]]] = {
            "artifacts": chain.artifacts(),
            "source_files": chain.source_files(),
        }

    def verification(self) -> _Found:
        sources = tuple(self._sources())
        notes = self._head.document.notes
        channels = self._channels()
        size = self._parts() + self._documents_files()
        self._told()
        opened = [proof for proof in sources if proof.end == "open"]
        digest = None
        if self._read and not self._missing:
            digest = experiment_digest(
                self._head.document, self._files["artifacts"], self._files["source_files"], channels
            )
        result = Verification(
            project=self._chain.place.project,
            experiment=self._chain.place.experiment,
            id=self._head.document.id,
            commit=self._head.number,
            state=self._head.document.state,
            verdict="incomplete" if self._problems else "running" if opened else "complete",
            reasons=tuple(self._problems)
            or tuple(f"{proof.source[:8]} ({proof.record.role}) is open" for proof in opened),
            sources=sources,
            gaps=dict(notes.gaps),
            pending=tuple(self._head.pending.values()),
            channels=tuple(channels),
            points=sum(part.rows for kind in PART_KINDS for part in self._head.parts.of(kind)),
            files=sum(len(files) for files in self._files.values()),
            bytes=size,
            digest=digest,
        )
        return _Found(result, self._missing)

    def _sources(self) -> Iterator[SourceProof]:
        for source, record in sorted(self._chain.sources().items()):
            end: Literal["open", "closed", "dead", "curation"] = "closed"
            if source == CURATION_SOURCE:
                end = "curation"
            elif record.state == "open":
                end = "open"
            elif record.state == "dead":
                end = "dead" if self._chain.dead(source) else "open"
            elif record.state == "aborted" and self._chain.dead(source):
                end = "dead"
            stored = self._chain.watermark(source)
            yield SourceProof(source, record, end, stored, record.lost)
            for gap in record.lost:
                what = f"{gap.end - gap.first} bytes of {source[:8]} at [{gap.first}, {gap.end}) are lost: {gap.reason}"
                self._problems.append(what)

    def _told(self) -> None:
        """What the document itself says is missing."""
        notes = self._head.document.notes
        for reason, count in notes.gaps.items():
            self._problems.append(f"{count} events were dropped: {reason}")
        for reason, count in notes.refused.items():
            self._problems.append(f"{count} events are in quarantine: {reason}")
        for kind, count in notes.unknown_kinds.items():
            self._problems.append(f"{count} events of kind {kind}, of a newer release, are in quarantine")
        for file in self._head.pending.values():
            self._problems.append(
                f"the bytes of {file.name or file.file!r} ({file.kind}, {file.size} bytes) are awaited"
            )

    def _parts(self) -> int:
        size = 0
        for kind in PART_KINDS:
            for part in self._head.parts.of(kind):
                size += part.bytes
                fault = part_fault(self._store, f"{self._chain.folder}/{part.path}", part)
                if fault:
                    self._lack(f"the part {part.path} ({part.rows} points) {fault}")
        return size

    def _channels(self) -> list[ChannelDigest]:
        """The digests of all channels; what they count must be what the document says."""
        if not self._read:
            return []
        found: list[ChannelDigest] = []
        for kind in PART_KINDS:
            try:
                found += channel_digests(self._store, self._chain.folder, self._head, kind)
            except FileNotFoundError:  # which one, `_parts` says
                self._missing = True
            except Corrupt as error:
                self._lack(str(error))
        if not self._missing:
            counts = {(channel.kind, channel.name): channel.points for channel in found}
            for kind in PART_KINDS:
                for name, record in getattr(self._head.document.channels, kind).items():
                    if counts.get((kind, name), 0) != record.count:
                        here = counts.get((kind, name), 0)
                        self._problems.append(f"{kind} channel {name!r} has {here} points, not {record.count}")
        return found

    def _documents_files(self) -> int:
        size = 0
        for group in FILE_FOLDERS:
            for path, record in self._files[group].items():
                size += record.size
                if record.state == "stored":
                    place = f"{self._chain.folder}/{file_place(group, path, record)}"
                    fault = file_fault(self._store, place, record, read=self._read)
                    if fault:
                        self._lack(f"the file {path!r} {fault}")
                elif record.state == "changed":
                    self._problems.append(f"{path!r} was changed while it was read: its bytes are not here")
        return size

    def _lack(self, what: str) -> None:
        self._missing = True
        self._problems.append(what)
