"""Events that carry a value or name a file: texts, images, artifacts; and what became of spooled files.

A payload inside an event is written with the commit. A payload that names a spooled file makes a *pending* file: the collector
gathers its bytes, puts the verified file in place, and reports it; the commit that hears of it shows the file as stored.
"""

from __future__ import annotations

import re
from hashlib import sha256
from itertools import pairwise
from typing import Any, Final, Literal, NamedTuple

from headrace_proto import names
from headrace_proto.errors import InvalidName
from headrace_proto.ids import token
from headrace_proto.limits import EXPERIMENT_FILES_MAX, EXPERIMENT_PENDING_MAX, FILE_RUNS_MAX
from headrace_proto.store import layout
from headrace_proto.store.apply.draft import Draft, InlineFile, SeriesRow, folders_of
from headrace_proto.store.columns import Event
from headrace_proto.store.commits import ArchivedFile, PendingFile, Runs
from headrace_proto.store.documents import FileGroup, FileRecord, file_place
from headrace_proto.store.registers import Stamp
from headrace_proto.store.tables import runs, unrolled
from headrace_proto.store.times import at_us

_SUFFIX: Final = re.compile(r"[a-z0-9]{1,8}")
_SPOOLED: Final = re.compile(r"([0-9]{6,12})-[0-9a-f]{8}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_KINDS: Final[dict[FileGroup, Literal["artifact", "source"]]] = {"artifacts": "artifact", "source_files": "source"}
MODE_MAX: Final = 0o7777


class FileDone(NamedTuple):
    """A spooled file needs no more bytes: it lies verified at its `PendingFile.path`, or, when `bad` says why, never will."""

    source: str
    file: str
    bad: str = ""


def file_number(file: str) -> int | None:
    """The number of a spooled file within its source; None for a name that no spool gives."""
    found = _SPOOLED.fullmatch(file)
    return int(found[1]) if found else None


def text(draft: Draft, source: str, event: Event) -> None:
    """[7, channel, step or nil, time, payload]."""
    number, step, time_ns, payload = event.fields
    row = _row(draft, source, event, number, step, time_ns)
    if isinstance(payload, dict):
        row = _spooled_row(draft, row, event, payload, "text", "txt")
    else:
        row = row._replace(value=payload if isinstance(payload, str) else payload.decode(errors="replace"))
    draft.rows["text"].append(row)


def image(draft: Draft, source: str, event: Event) -> None:
    """[8, channel, step or nil, time, payload, facts]."""
    number, step, time_ns, payload, facts = event.fields
    row = _row(draft, source, event, number, step, time_ns)
    row = row._replace(name=_text_or_none(facts.get("name")), description=_text_or_none(facts.get("description")))
    suffix = facts.get("suffix")
    suffix = suffix if isinstance(suffix, str) and _SUFFIX.fullmatch(suffix) else "bin"
    if isinstance(payload, dict):
        row = _spooled_row(draft, row, event, payload, "image", suffix)
    else:
        data = payload.encode() if isinstance(payload, str) else payload
        path = _series_path(draft, row, "image", suffix)
        draft.inline[path] = InlineFile(path, data)
        row = row._replace(file=_inside(draft, path), size=len(data), sha256=sha256(data).hexdigest())
    draft.rows["image"].append(row)


def artifact(draft: Draft, source: str, event: Event) -> None:
    """[17, time, path, payload, facts]."""
    time_ns, path, payload, facts = event.fields
    group: FileGroup = "source_files" if facts.get("kind") == "source" else "artifacts"
    stamp = Stamp(time_ns, source, event.position)
    try:
        path = names.artifact_path(path)
        target = _target(draft, group, path, stamp)
    except InvalidName as error:
        _refuse_file(draft, stamp, event, payload, error)
        return
    _fetch(draft, group, path)
    if isinstance(payload, dict):
        if not _pend(draft, stamp, event, payload, _KINDS[group], path, target):
            return
        record = _record(facts, stamp, payload["size"], payload["sha256"], "pending")
    else:
        data = payload.encode() if isinstance(payload, str) else payload
        record = _record(facts, stamp, len(data), sha256(data).hexdigest(), "stored")
    if draft.claim(group, path, stamp):
        _drop(draft, group, path)
        inside = _inside(draft, target)
        if inside != file_place(group, path, record):
            record = record.model_copy(update={"file": inside})
        draft.files[group][path] = record
        draft.dropped.discard(inside)
        if not isinstance(payload, dict):
            draft.inline[target] = InlineFile(target, data)
    _forget_superseded(draft, group, path)


def unlink(draft: Draft, source: str, event: Event) -> None:
    """[18, time, [path, ...]]: artifacts that are no longer listed. Their files go with the next sweep."""
    time_ns, paths = event.fields
    stamp = Stamp(time_ns, source, event.position)
    for path in paths:
        try:
            path = names.artifact_path(path)  # noqa: PLW2901 - the same path, in the form that the registers use
        except InvalidName as error:
            draft.refuse(source, event, error)
            continue
        _fetch(draft, "artifacts", path)
        if draft.claim("artifacts", path, stamp) and path in draft.files["artifacts"]:
            _drop(draft, "artifacts", path)
        _forget_superseded(draft, "artifacts", path)


def done(draft: Draft, report: FileDone) -> bool:
    """A spooled file is in place, or cannot be. False if nobody awaits it."""
    key = f"{report.source}/{report.file}"
    pending = draft.pending.get(key)
    if pending is None:
        return False
    _finish(draft, key)
    if pending.kind in ("text", "image") and report.bad:
        draft.refuse_bytes(
            report.source, pending.stamp.position, b"", f"a file of channel {pending.name!r}: {report.bad}"
        )
    if pending.kind in ("artifact", "source"):
        files = draft.files["source_files" if pending.kind == "source" else "artifacts"]
        state = "changed" if report.bad else "stored"
        if pending.name in files:
            files[pending.name] = files[pending.name].model_copy(update={"state": state})
    return True


def _finish(draft: Draft, key: str) -> None:
    pending = draft.pending.pop(key)
    number = file_number(pending.file)
    finished = {*unrolled(draft.state(pending.source).files), *([] if number is None else [number])}
    draft.change_state(pending.source, files=_few(runs(sorted(finished))))


def _few(numbers: Runs) -> Runs:
    """The runs with the smallest holes between them closed, until there are FILE_RUNS_MAX."""
    while len(numbers) > FILE_RUNS_MAX:
        holes = [b[0] - a[0] - a[1] for a, b in pairwise(numbers)]
        at = holes.index(min(holes))
        (first, _), (second, count) = numbers[at : at + 2]
        numbers = (*numbers[:at], (first, second + count - first), *numbers[at + 2 :])
    return numbers


def _forget_superseded(draft: Draft, group: FileGroup, path: str) -> None:
    """Files whose path a later event gave another meaning: their bytes belong nowhere, and must not land on the later ones."""
    kind, stamp = _KINDS[group], draft.stamps[group].get(path)
    old = [key for key, file in draft.pending.items() if (file.kind, file.name) == (kind, path) and file.stamp != stamp]
    for key in old:
        _finish(draft, key)


# -- Rows ---------------------------------------------------------------------------------------------------------------


def _row(draft: Draft, source: str, event: Event, number: int, step: float | None, time_ns: int) -> SeriesRow:
    channel = draft.channel_name(source, number)
    return SeriesRow(channel, None if step is None else float(step), time_ns // 1000, source, event.position)


def _spooled_row(
    draft: Draft, row: SeriesRow, event: Event, payload: dict[str, Any], kind: Literal["text", "image"], suffix: str
) -> SeriesRow:
    stamp = Stamp(row.time_us * 1000, row.source, row.position)
    path = _series_path(draft, row, kind, suffix)
    _pend(draft, stamp, event, payload, kind, row.channel, path)
    return row._replace(file=_inside(draft, path), size=payload["size"], sha256=payload["sha256"])


def _series_path(draft: Draft, row: SeriesRow, kind: Literal["text", "image"], suffix: str) -> str:
    """A path that only this event can have, so that it may be written before any commit names it."""
    step = "auto" if row.step is None else f"{row.step:.15g}".replace("+", "")
    file = f"{step}-{row.source}-{row.position}.{suffix}"
    make = layout.text_file if kind == "text" else layout.image_file
    return make(*draft.place, row.channel, file)


def _inside(draft: Draft, path: str) -> str:
    return path.removeprefix(f"{draft.folder}/")


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None


# -- Files --------------------------------------------------------------------------------------------------------------


def _drop(draft: Draft, group: FileGroup, path: str) -> None:
    """Take a file out of the document; its bytes, if they are here, are nobody's."""
    record = draft.files[group].pop(path, None)
    if record:
        place = file_place(group, path, record)
        draft.dropped.add(place)
        draft.inline.pop(f"{draft.folder}/{place}", None)


def _target(draft: Draft, group: FileGroup, path: str, stamp: Stamp) -> str:
    """Where an artifact's bytes go. Raises `InvalidName` for a path that cannot be there beside those that are."""
    target = (layout.source_file if group == "source_files" else layout.artifact_file)(*draft.place, path)
    parents = folders_of(path)
    if not draft.is_file(group, path) and draft.files_known(group) >= EXPERIMENT_FILES_MAX:
        raise InvalidName(f"an experiment holds at most {EXPERIMENT_FILES_MAX} {group}")
    if path in draft.folders(group) or any(draft.is_file(group, parent) for parent in parents):
        raise InvalidName(f"artifact path {path!r} is a file and a folder at once")
    draft.folders(group).update(parents)
    if _inside(draft, target) in draft.archive.swept:
        return layout.again_file(*draft.place, stamp.position, stamp.source, path)
    return target


def _fetch(draft: Draft, group: FileGroup, path: str) -> None:
    """Take a file back from the archive, so that its register meets what is new."""
    archived: ArchivedFile | None = draft.archive.take_file(group, path)
    if archived:
        draft.stamps[group][path] = archived.stamp
        if archived.record:
            draft.files[group][path] = archived.record


def _record(
    facts: dict[str, Any], stamp: Stamp, size: int, digest: str, state: Literal["pending", "stored", "changed"]
) -> FileRecord:
    mode, mtime_ns = facts.get("mode"), facts.get("mtime_ns")
    return FileRecord(
        size=size,
        sha256=digest,
        state=state,
        logged_at=at_us(stamp.time_ns // 1000),
        mode=mode if isinstance(mode, int) and 0 <= mode <= MODE_MAX else None,
        modified_at=at_us(mtime_ns // 1000) if isinstance(mtime_ns, int) and 0 <= mtime_ns < 1 << 64 else None,
    )


def _pend(
    draft: Draft,
    stamp: Stamp,
    event: Event,
    payload: dict[str, Any],
    kind: Literal["artifact", "source", "text", "image", "refused"],
    name: str,
    path: str,
) -> bool:
    """Await a spooled file's bytes. False when its name or digest is none that a spool gives."""
    file, digest = payload["file"], payload["sha256"]
    if file_number(file) is None or not _DIGEST.fullmatch(digest):
        draft.refuse(stamp.source, event, f"{file[:40]!r} is no file of a spool")
        return False
    if len(draft.pending) >= EXPERIMENT_PENDING_MAX:
        draft.refuse(stamp.source, event, f"an experiment awaits at most {EXPERIMENT_PENDING_MAX} files")
        return False
    draft.pending[f"{stamp.source}/{file}"] = PendingFile(
        source=stamp.source,
        file=file,
        size=payload["size"],
        sha256=digest,
        path=path,
        kind=kind,
        name=name,
        stamp=stamp,
    )
    return True


def _refuse_file(draft: Draft, stamp: Stamp, event: Event, payload: Any, error: InvalidName) -> None:
    draft.refuse(stamp.source, event, error)
    if isinstance(payload, dict) and file_number(payload["file"]) is not None:
        nonce = layout.nonce_of(stamp.source, payload["file"])
        path = layout.quarantine_file(token(draft.place.experiment), stamp.time_ns, nonce, "bin")
        _pend(draft, stamp, event, payload, "refused", "", path)
