"""From a draft to the next commit: what moves to the side file, what the sources say together, and the document."""

from __future__ import annotations

from typing import Any

from headrace_proto.events import Role
from headrace_proto.limits import INLINE_ARTIFACTS_MAX, INLINE_CLOSED_MAX
from headrace_proto.store.apply.draft import FACT_FIELDS, Draft
from headrace_proto.store.commits import ArchivedFile, ArchivedSource, Stamps, Ties
from headrace_proto.store.documents import Channels, ExperimentDocument, FileGroup, FileRecord, Notes, SourceRecord
from headrace_proto.store.lifecycle import fold


def archive(draft: Draft) -> None:
    """Move what is over the limits out of the draft, the oldest first, down to half of them: one side file serves many commits."""
    _archive_sources(draft)
    for group in draft.files:
        _archive_files(draft, group)


def _archive_sources(draft: Draft) -> None:
    ended = [(record.ended_at, source) for source, record in draft.records.items() if record.ended_at]
    if len(ended) <= INLINE_CLOSED_MAX:
        return
    for _, source in sorted(ended)[: len(ended) - INLINE_CLOSED_MAX // 2]:
        archived = ArchivedSource(record=draft.records.pop(source), state=draft.states.pop(source))
        draft.archive.sources[source] = archived
    draft.archive.changed = True


def _archive_files(draft: Draft, group: FileGroup) -> None:
    stamps, files = draft.stamps[group], draft.files[group]
    settled = sorted((stamp, path) for path, stamp in stamps.items() if not _is_pending(files.get(path)))
    if len(settled) <= INLINE_ARTIFACTS_MAX:
        return
    for _, path in settled[: len(settled) - INLINE_ARTIFACTS_MAX // 2]:
        draft.archive.files[group][path] = ArchivedFile(record=files.pop(path, None), stamp=stamps.pop(path))
    draft.archive.changed = True


def _is_pending(record: FileRecord | None) -> bool:
    return record is not None and record.state == "pending"


def document_of(draft: Draft, short_id: str) -> ExperimentDocument:
    """The document that the draft has come to."""
    fields: dict[str, Any] = {FACT_FIELDS[fact]: value for fact, value in draft.facts.items() if fact in FACT_FIELDS}
    records = [*draft.records.values(), *(archived.record for archived in draft.archive.sources.values())]
    together = fold(records)
    derived = _derived(records)
    return ExperimentDocument(
        id=short_id,
        internal_id=draft.place.experiment,
        project=draft.place.project,
        state=together.state,
        finished_at=together.finished_at,
        traceback=together.detail,
        params=draft.params,
        properties=draft.properties,
        tags=tuple(sorted(draft.tags)),
        channels=Channels(**{kind: dict(sorted(records.items())) for kind, records in draft.channels.items()}),
        artifacts=draft.files["artifacts"],
        source_files=draft.files["source_files"],
        elsewhere=_elsewhere(draft),
        sources=draft.records,
        notes=_notes(draft, records),
        facts={fact: value for fact, value in draft.facts.items() if fact not in FACT_FIELDS},
        **{**derived, **fields},
    )


def _derived(records: list[SourceRecord]) -> dict[str, Any]:
    """What nobody has said, as the first owner's process shows it."""
    owners = [record for record in records if record.role == Role.OWNER and record.opened_at]
    if not owners:
        return {}
    first = min(owners, key=lambda record: (record.opened_at, record.host, record.pid))
    return {"created_at": first.opened_at, "owner": first.user, "hostname": first.host}


def _elsewhere(draft: Draft) -> dict[str, int]:
    counts: dict[str, int] = {"sources": len(draft.archive.sources)}
    for group, archived in draft.archive.files.items():
        counts[group] = sum(1 for file in archived.values() if file.record)
    return {what: count for what, count in counts.items() if count}


def _notes(draft: Draft, records: list[SourceRecord]) -> Notes:
    lost = sum(gap.end - gap.first for record in records for gap in record.lost)
    return Notes(
        gaps=dict(draft.gaps), lost_bytes=lost, unknown_kinds=dict(draft.unknown_kinds), refused=dict(draft.refused)
    )


def registers_of(draft: Draft) -> dict[str, Any]:
    """The fields of a commit that are not its document."""
    return {
        "sources": draft.states,
        "pending": draft.pending,
        "names": tuple(draft.names),
        "resets": draft.resets,
        "stamps": Stamps(**draft.stamps),
        "ties": Ties(**draft.ties),
    }
