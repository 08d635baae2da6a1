"""The journal that a run would have written: for the same export always the same bytes, so that a position in it means something.

Invariants
1. The bytes depend on the rows of the export and their order, on nothing else: not on how many rows are read at a time, and not on
   where an earlier import was cut off.
2. Order: the definition, the words of all channels, the numbers, the texts, the files, and a closing event.
3. A source may have CHANNELS_MAX words: a run with more has several sources. The first is the owner and holds all but series.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headrace.moving import meaning
from headrace.moving.attachments import Attachment, Attachments
from headrace.moving.contents import FILES, NUMBERS, TEXTS, Contents, Word, codes, times_us
from headrace.moving.export import Group, Run
from headrace.moving.meaning import Meaning
from headrace.secrets import masked_text
from headrace_proto.events import ChannelType, Kind, Outcome, Role, pack
from headrace_proto.limits import CHANNELS_MAX, EXPERIMENT_CHANNELS_MAX
from headrace_proto.store.columns import encoded_points
from headrace_proto.store.plain import plain

PIECE_EVENTS: Final = 4096
"""Events besides points in one piece: a few of them fill a commit."""
PIECE_BYTES: Final = 512 * 1024
_WITHOUT_VALUE: Final = "points without a value"
_BEYOND: Final = f"channels beyond the {EXPERIMENT_CHANNELS_MAX:,} that an experiment may have"
_MONITORING: Final = "monitoring/"
_EXACT: Final = 1 << 53
"""Whole numbers up to this are floats without rounding."""


class Piece(NamedTuple):
    """Some of a journal."""

    raw: bytes
    attachments: tuple[Attachment, ...] = ()
    """Payloads that its events name: too large for an event."""
    rows: int = 0
    """Rows of the export that it is made of."""


class RunJournal:
    """The journals of one run's sources."""

    def __init__(
        self, run: Run, contents: Contents, said: Meaning, attachments: Attachments, note: dict[str, Any]
    ) -> None:
        """`note` is kept as the fact `import`."""
        self._run: Final = run
        self._contents: Final = contents
        self._meaning: Final = said
        self._attachments: Final = attachments
        self._note: Final = note
        words = contents.words[:EXPERIMENT_CHANNELS_MAX]
        self._sources: Final = [words[at : at + CHANNELS_MAX] for at in range(0, len(words), CHANNELS_MAX)] or [()]
        self._names: Final = meaning.short_names({word.name for word in contents.words}, meaning.SERIES)
        self.left_out: Final[Counter[str]] = Counter()
        """What the journal does not have, in rows; complete once it has been read to its end."""

    @property
    def sources(self) -> int:
        """How many journals the run has."""
        return len(self._sources)

    def pieces(self, source: int) -> Iterator[Piece]:
        """The journal of one source. Raises `Corrupt` when the export cannot be read."""
        self._attachments.begin()
        if source == 0:
            self.left_out.clear()
            self.left_out.update({f"rows of the type {kind!r}": n for kind, n in self._contents.unknown.items()})
            self.left_out[_BEYOND] += max(0, len(self._contents.words) - EXPERIMENT_CHANNELS_MAX)
        numbers = {word: number for number, word in enumerate(self._sources[source])}
        yield from _packed(self._beginning(source, numbers))
        yield from self._numbers(numbers)
        yield from self._texts(numbers)
        yield from self._files(numbers, owner=source == 0)
        end_ns = self._meaning.ended_us * 1000
        if source == 0 and self.told():
            yield Piece(pack(Kind.FACTS, end_ns, {"import": {**self._note, "left_out": self.told()}}))
        outcome, detail = (self._meaning.outcome, self._meaning.detail) if source == 0 else (Outcome.SUCCEEDED, None)
        yield Piece(pack(Kind.CLOSED, end_ns, outcome, detail))

    def told(self) -> dict[str, int]:
        """What was left out so far, and how much of it."""
        return {what: count for what, count in self.left_out.items() if count}

    # -- Its parts -------------------------------------------------------------------------------------------------------

    def _beginning(self, source: int, numbers: dict[Word, int]) -> Iterator[bytes]:
        said = self._meaning
        created_ns = said.created_us * 1000
        role = Role.OWNER if source == 0 else Role.WORKER
        yield pack(Kind.OPEN, created_ns, {"role": role, "label": "neptune", "host": said.definition.hostname})
        if source == 0:
            for kind, *fields in said.definition.events():
                yield pack(kind, *fields)
            facts = {"import": self._note, "neptune": said.neptune, "entrypoint": said.entrypoint}
            for name, value in facts.items():
                if value:
                    yield pack(Kind.FACTS, created_ns, {name: value})
        for word, number in numbers.items():
            yield pack(Kind.CHANNEL, number, self._names[word.name], int(word.kind))

    def _groups(self, types: frozenset[str] | set[str]) -> Iterator[Group]:
        return (group for group in self._run.groups if self._contents.types[group] & types)

    def _numbers(self, numbers: dict[Word, int]) -> Iterator[Piece]:
        counted: Counter[int] = Counter()
        wanted = {word.name: number for word, number in numbers.items() if word.kind == ChannelType.NUMERIC}
        for group in self._groups(NUMBERS) if wanted else ():
            table = self._run.read(group, ["attribute_path", "attribute_type", "step", "timestamp", "float_value"])
            channel = _channels(table, NUMBERS, wanted)
            taken = channel >= 0
            value = table["float_value"]
            if value.null_count:
                there = np.asarray(pc.is_valid(value))
                self.left_out[_WITHOUT_VALUE] += int((taken & ~there).sum())
                taken &= there
            if not taken.all():
                table, channel = table.filter(pa.array(taken)), channel[taken]
            if not len(channel):
                continue
            step = _steps(table["step"], channel, counted)
            time_ns = times_us(table["timestamp"], self._meaning.created_us) * 1000
            number = table["float_value"].cast(pa.float64()).to_numpy()
            yield Piece(encoded_points(channel, step, time_ns, number), rows=len(channel))

    def _texts(self, numbers: dict[Word, int]) -> Iterator[Piece]:
        wanted = {word.name: number for word, number in numbers.items() if word.kind == ChannelType.TEXT}
        counted: Counter[int] = Counter()
        for group in self._groups(set(TEXTS)) if wanted else ():
            columns = ["attribute_path", "attribute_type", "step", "timestamp", *TEXTS.values()]
            table = self._run.read(group, columns)
            channel = _channels(table, TEXTS, wanted)
            table, channel = table.filter(pa.array(channel >= 0)), channel[channel >= 0]
            if not len(channel):
                continue
            step = _steps(table["step"], channel, counted).tolist()
            time_ns = (times_us(table["timestamp"], self._meaning.created_us) * 1000).tolist()
            for begin in range(0, len(channel), PIECE_EVENTS):
                rows = table.slice(begin, PIECE_EVENTS).select(["attribute_path", "attribute_type", *TEXTS.values()])
                yield from self._text_piece(rows, channel[begin:].tolist(), step[begin:], time_ns[begin:])

    def _text_piece(
        self, table: pa.Table, channel: list[int], step: list[float], time_ns: list[int]
    ) -> Iterator[Piece]:
        events: list[bytes] = []
        attached: list[Attachment] = []
        for row, number, at, time in zip(table.to_pylist(), channel, step, time_ns, strict=False):
            text = _text_of(row)
            if text is None:
                self.left_out[_WITHOUT_VALUE] += 1
                continue
            payload, attachment = self._attachments.of_bytes(text.encode(), text)
            attached += [attachment] if attachment else []
            events.append(pack(Kind.TEXT, number, at, time, payload))
        yield Piece(b"".join(events), tuple(attached), table.num_rows)

    def _files(self, numbers: dict[Word, int], *, owner: bool) -> Iterator[Piece]:
        end_ns = self._meaning.ended_us * 1000
        for path, text in self._meaning.texts.items() if owner else ():
            payload, attachment = self._attachments.of_bytes(text.encode(), text)
            yield Piece(pack(Kind.ARTIFACT, end_ns, path, payload, {"kind": "artifact"}), _some(attachment))
        wanted = {word.name: number for word, number in numbers.items() if word.kind == ChannelType.IMAGE}
        counted: Counter[int] = Counter()
        for group in self._groups(FILES):
            table = self._run.read(group, ["attribute_path", "attribute_type", "step", "timestamp", "file_value"])
            kinds = table["attribute_type"].cast(pa.string())
            table = table.filter(pc.is_in(kinds, pa.array(sorted(FILES))))
            channel = _channels(table, {"file_series"}, wanted)
            step = _steps(table["step"], channel, counted).tolist()
            time_us = times_us(table["timestamp"], self._meaning.ended_us).tolist()
            for row, number, at, time in zip(table.to_pylist(), channel.tolist(), step, time_us, strict=True):
                events = self._attachments.events(row, number if number >= 0 else None, at, time * 1000, owner=owner)
                for event, attachment in events:
                    yield Piece(event, _some(attachment), 1)
        self.left_out.update(self._attachments.left_out)
        self._attachments.left_out.clear()


def _some(attachment: Attachment | None) -> tuple[Attachment, ...]:
    return (attachment,) if attachment else ()


def _packed(events: Iterator[bytes]) -> Iterator[Piece]:
    gathered: list[bytes] = []
    size = 0
    for event in events:
        gathered.append(event)
        size += len(event)
        if len(gathered) == PIECE_EVENTS or size >= PIECE_BYTES:
            yield Piece(b"".join(gathered))
            gathered, size = [], 0
    yield Piece(b"".join(gathered))


def _channels(table: pa.Table, types: Any, wanted: dict[str, int]) -> NDArray[np.int32]:
    """The number of each row's channel; -1 for rows of other types and channels."""
    path_codes, names = codes(table["attribute_path"])
    type_codes, kinds = codes(table["attribute_type"])
    by_path = np.array([wanted.get(name, -1) for name in names] or [-1], np.int32)
    is_type = np.array([kind in types for kind in kinds] or [False])
    return np.where(is_type[type_codes], by_path[path_codes], np.int32(-1))


def _steps(column: pa.ChunkedArray[Any], channel: NDArray[np.int32], counted: Counter[int]) -> NDArray[np.float64]:
    """Steps as the nearest floats. A row without one is numbered, from 0, among those of its channel (`counted` so far)."""
    there = np.asarray(pc.is_valid(column))
    step = _floats(column) if there.any() else np.zeros(len(channel))
    for at in np.flatnonzero(~there).tolist():
        number = int(channel[at])
        step[at] = counted[number]
        counted[number] += 1
    return step


def _floats(column: pa.ChunkedArray[Any]) -> NDArray[np.float64]:
    kind = column.type
    if not pa.types.is_decimal128(kind) or kind.precision > 18:
        floats: Any = column.cast(pa.float64())
        return np.array(floats.fill_null(0.0).to_numpy())
    whole: Any = column.combine_chunks()
    array: Any = pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole
    words = np.frombuffer(array.buffers()[1], "<i8")[2 * array.offset : 2 * (array.offset + len(array)) : 2]
    scale = 10**kind.scale
    large = np.abs(words) >= _EXACT
    found = words / scale  # one division of exact numbers: the nearest float, which Arrow's own cast does not give
    if large.any():
        found[large] = words[large] // scale + (words[large] % scale) / scale
    return np.array(found)


def _text_of(row: dict[str, Any]) -> str | None:
    value = row[TEXTS[row["attribute_type"]]]
    if isinstance(value, dict):
        return json.dumps(plain(value))
    if isinstance(value, str):
        return masked_text(value) if row["attribute_path"].startswith(_MONITORING) else value
    return None
