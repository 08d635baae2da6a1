"""The conservation oracle: judges a store by what its producers know, and by nothing that Headrace says but its documents.

Every call that returned is stored once, with its own payload, in the order of its source; at most the one call that a SIGKILL
interrupted is there beyond them; and nothing that no call explains.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Protocol

import duckdb
import numpy as np
from numpy.typing import NDArray

from tests.chaos import payload
from tests.chaos.damage import LOST_BYTES_MAX, LOST_CALLS_MAX
from tests.chaos.payload import Call
from tests.path.stack import document, experiments, parts_of

PROJECT: Final = "chaos/soak"
SHOWN: Final = 5
Ints = NDArray[np.int64]


class Testimony(Protocol):
    """What is known of one source without asking Headrace: of a `Producer`, or of whoever plays one."""

    @property
    def number(self) -> int:
        """The source, as its payloads have it."""

    @property
    def key(self) -> str:
        """Its experiment."""

    @property
    def returned(self) -> int:
        """How many of its calls have returned."""

    @property
    def killed(self) -> bool:
        """Whether it died by SIGKILL, and did not end by itself."""

    @property
    def damage(self) -> int | None:
        """The position of the one byte of its journal that was damaged, if one was."""


class Findings:
    """What is wrong, in sentences, and how much of each kind."""

    def __init__(self) -> None:
        self.sentences: list[str] = []
        self.stored = 0
        self.dropped = 0
        """Calls that were to be dropped, and counted."""
        self.lost = 0
        self.damaged = 0
        """Calls that lay in the block of a damaged byte."""
        self.duplicated = 0
        self.lost_of: dict[int, Ints] = {}

    def say(self, sentence: str) -> None:
        """Note that something is wrong."""
        self.sentences.append(sentence)

    def expect(self, holds: bool, sentence: str) -> None:
        """Note that something is wrong unless it holds."""
        if not holds:
            self.say(sentence)


class _Seen:
    """What the store has of one experiment's sources: sequence numbers and times, gathered from all kinds of calls."""

    def __init__(self) -> None:
        self.sequences: dict[int, list[Ints]] = defaultdict(list)
        self.times: dict[int, list[Ints]] = defaultdict(list)

    def add(self, sources: Ints, sequences: Ints, times: Ints) -> None:
        for source in np.unique(sources):
            mine = sources == source
            self.sequences[int(source)].append(sequences[mine])
            self.times[int(source)].append(times[mine])


def judge(store: Path, producers: Sequence[Testimony]) -> Findings:
    """Read the whole store and compare it with what the producers know."""
    findings = Findings()
    by_key: dict[str, list[Testimony]] = defaultdict(list)
    for producer in producers:
        by_key[producer.key].append(producer)
    found: dict[str, str] = {}
    for experiment in experiments(store, PROJECT):
        facts = document(store, experiment, PROJECT)
        name = str(facts.get("name", ""))
        findings.expect(name in by_key, f"experiment {experiment} is called {name!r}, which no producer called it")
        findings.expect(name not in found, f"two experiments are called {name!r}")
        found[name] = experiment
    for key, mine in by_key.items():
        if key in found:
            _judge_experiment(store, found[key], mine, findings)
        elif any(producer.returned for producer in mine):
            findings.say(f"experiment {key} is not in the store")
            findings.lost += sum(producer.returned for producer in mine)
    return findings


def _judge_experiment(store: Path, experiment: str, producers: list[Testimony], findings: Findings) -> None:
    facts = document(store, experiment, PROJECT)
    folder = store / PROJECT / "experiments" / experiment
    seen = _Seen()
    _read_numbers(folder, facts, seen, findings)
    _read_texts(folder, facts, seen, findings)
    _read_artifacts(folder, facts, seen, findings)
    known = {producer.number for producer in producers}
    for stranger in sorted(set(seen.sequences) - known):
        findings.say(f"experiment {experiment} has events of source {stranger}, which never logged to it")
    for producer in producers:
        _judge_source(producer, seen, findings)
    _judge_document(experiment, facts, producers, findings)
    for fault in missing_objects(folder):
        findings.say(f"experiment {experiment}: {fault}")


# -- Reading ---------------------------------------------------------------------------------------------------------------


def _rows(folder: Path, facts: dict[str, Any], kind: str, columns: str) -> dict[str, Any] | None:
    parts = [str(folder / part) for part in parts_of(facts, kind)]
    if not parts:
        return None
    query = f"SELECT {columns}, epoch_us(time) AS time FROM read_parquet(?)"
    return dict(duckdb.execute(query, [parts]).fetchnumpy())


def _read_numbers(folder: Path, facts: dict[str, Any], seen: _Seen, findings: Findings) -> None:
    rows = _rows(folder, facts, "numeric", "channel, step, value")
    if rows is None:
        return
    word = (rows["value"].astype(np.uint64) * np.uint64(payload.INVERSE)) % np.uint64(payload.MODULUS)
    column, source = (
        (word >> np.uint64(48)).astype(np.int64),
        (word >> np.uint64(32) & np.uint64(0xFFFF)).astype(np.int64),
    )
    sequence = (word & np.uint64(0xFFFFFFFF)).astype(np.int64)
    names = np.array([*payload.NUMERIC, *[""] * (16 - len(payload.NUMERIC))], dtype=object)
    findings_of = f"experiment {folder.name}"
    wrong = names[column] != np.asarray(rows["channel"], dtype=object)
    wrong |= expected_column(sequence, column) != column
    wrong |= (column != payload.AUTO_COLUMN) & (rows["step"] != sequence)
    for n in np.flatnonzero(wrong)[:SHOWN]:
        findings.say(
            f"{findings_of}: a point that nobody logged: {rows['channel'][n]!r} step {rows['step'][n]} value {rows['value'][n]!r}"
        )
    automatic = column == payload.AUTO_COLUMN
    _judge_automatic(findings_of, source[automatic], sequence[automatic], rows["step"][automatic], findings)
    single = ~wrong & (column < payload.ROW_COLUMN)
    seen.add(source[single], sequence[single], rows["time"][single])
    whole = ~wrong & (column >= payload.ROW_COLUMN)
    first = whole & (column == payload.ROW_COLUMN)
    seen.add(source[first], sequence[first], rows["time"][first])
    of_rows = [
        np.sort(word[whole & (column == n)] & np.uint64(0xFFFFFFFFFFFF))
        for n in range(payload.ROW_COLUMN, len(payload.NUMERIC))
    ]
    findings.expect(
        all(np.array_equal(one, of_rows[0]) for one in of_rows),
        f"{findings_of}: a row is not whole, or not once, in all its channels",
    )


def expected_column(sequences: Ints, column: Ints) -> Ints:
    """The column of what each sequence logs, -1 of what is no number; a row's values may be in any column of the row."""
    in_row = np.clip(column, payload.ROW_COLUMN, len(payload.NUMERIC) - 1)
    columns: dict[Call, Ints | int] = {Call.AUTO: payload.AUTO_COLUMN, Call.ROW: in_row}
    found = sequences & 1
    for kind, (period, remainder) in reversed(payload.EVERY.items()):  # the first that fits counts: it is written last
        found = np.where(sequences % period == remainder, columns.get(kind, -1), found)
    return found


def gaps(sequences: Ints) -> NDArray[np.bool_]:
    """Which calls are dropped and counted."""
    period, remainder = payload.EVERY[Call.NOWHERE]
    return np.asarray(sequences % period == remainder)


def _judge_automatic(what: str, source: Ints, sequence: Ints, step: NDArray[np.float64], findings: Findings) -> None:
    """Automatic steps count on, over all sources, and never give one step twice."""
    findings.expect(len(np.unique(step)) == len(step), f"{what}: an automatic step was given twice")
    for one in np.unique(source):
        mine = source == one
        order = np.argsort(sequence[mine], kind="stable")
        findings.expect(
            bool(np.all(np.diff(step[mine][order]) > 0)),
            f"{what}: automatic steps of source {one} are not in its order",
        )


def _read_texts(folder: Path, facts: dict[str, Any], seen: _Seen, findings: Findings) -> None:
    rows = _rows(folder, facts, "text", "channel, step, value, file")
    if rows is None:
        return
    sources, sequences, times = [], [], []
    absent = np.ma.getmaskarray(rows["value"])
    for n in range(len(rows["step"])):
        said = (folder / str(rows["file"][n])).read_text() if absent[n] else str(rows["value"][n])
        words = said.split(" ", 2)
        source, sequence = (
            (int(words[0]), int(words[1]))
            if len(words) == 3 and words[0].isdigit() and words[1].isdigit()
            else (-1, -1)
        )
        good = (
            rows["channel"][n] == payload.TEXTS
            and rows["step"][n] == sequence
            and said == payload.text(source, sequence)
        )
        if not good or payload.call_of(sequence) is not Call.TEXT:
            findings.say(
                f"experiment {folder.name}: a text that nobody logged: {said[:60]!r} at step {rows['step'][n]}"
            )
            continue
        sources.append(source)
        sequences.append(sequence)
        times.append(int(rows["time"][n]))
    seen.add(np.array(sources, np.int64), np.array(sequences, np.int64), np.array(times, np.int64))


def _read_artifacts(folder: Path, facts: dict[str, Any], seen: _Seen, findings: Findings) -> None:
    found = []
    for name, record in facts.get("artifacts", {}).items():
        _, source, file = name.split("/")
        sequence = int(file.removesuffix(".bin"))
        data = payload.artifact(int(source), sequence)
        path = folder / "artifacts" / name
        good = (
            record["state"] == "stored"
            and record["sha256"] == sha256(data).hexdigest()
            and path.exists()
            and path.read_bytes() == data
        )
        findings.expect(
            good and payload.call_of(sequence) is Call.ARTIFACT,
            f"experiment {folder.name}: artifact {name} is not what was logged: {record}",
        )
        found.append((int(source), sequence))
    if found:
        sources, sequences = (np.array(column, np.int64) for column in zip(*found, strict=True))
        seen.add(sources, sequences, np.full(len(found), -1))


# -- Judging ---------------------------------------------------------------------------------------------------------------


def _judge_source(producer: Testimony, seen: _Seen, findings: Findings) -> None:
    returned, who = producer.returned, f"source {producer.number} of experiment {producer.key}"
    empty = np.array([], np.int64)
    sequences = np.concatenate([*seen.sequences.get(producer.number, []), empty])
    times = np.concatenate([*seen.times.get(producer.number, []), empty])
    findings.stored += len(sequences)
    once, counts = np.unique(sequences, return_counts=True)
    calls = np.arange(returned)
    findings.dropped += int(np.sum(gaps(calls)))
    lost = np.setdiff1d(calls[~gaps(calls)], once)
    if producer.damage is not None and len(lost) and lost[-1] - lost[0] < LOST_CALLS_MAX:
        findings.damaged += len(lost)
    elif len(lost):
        findings.lost += len(lost)
        findings.lost_of[producer.number] = lost
        findings.say(f"{who}: {len(lost)} of {returned} returned calls are not stored: {ranges(lost)}")
    if np.any(counts > 1):
        findings.duplicated += int(np.sum(counts - 1))
        findings.say(f"{who}: stored more than once: {ranges(once[counts > 1])}")
    beyond = once[once >= returned]
    allowed = [returned] if producer.killed else []
    findings.expect(
        set(beyond.tolist()) <= set(allowed), f"{who}: {returned} calls returned, yet there are {ranges(beyond)}"
    )
    timed = times >= 0
    order = np.argsort(sequences[timed], kind="stable")
    findings.expect(bool(np.all(np.diff(times[timed][order]) >= 0)), f"{who}: its times are not in its order")


def ranges(numbers: Ints) -> str:
    """Numbers as readers like them: 3-7, 12, ..."""
    cuts = np.flatnonzero(np.diff(numbers) > 1) + 1
    runs = [f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in np.split(numbers, cuts) if len(run)]
    return ", ".join(runs[:SHOWN]) + (f", ... ({len(runs)} ranges)" if len(runs) > SHOWN else "")


def _judge_document(experiment: str, facts: dict[str, Any], producers: list[Testimony], findings: Findings) -> None:
    newest = producers[-1]
    records = {record["label"]: record for record in facts["sources"].values()}
    findings.expect(len(records) == len(facts["sources"]), f"experiment {experiment} has two sources of one label")
    for producer in producers:
        record = records.get(str(producer.number))
        if record is None:
            findings.expect(producer.returned == 0, f"experiment {experiment} knows no source {producer.number}")
            newest = producers[-2] if producer is newest and len(producers) > 1 else newest
            continue
        wanted = "dead" if producer.killed else "succeeded"
        who = f"source {producer.number} of experiment {experiment}"
        findings.expect(record["state"] == wanted, f"{who} is {record['state']}, not {wanted}")
        findings.expect(_lost_rightly(record, producer), f"{who} has lost ranges that nobody made: {record}")
        findings.expect(
            record["dropped"] in _allowed_drops(producer),
            f"{who} counts {record['dropped']} drops, not {_allowed_drops(producer)}",
        )
    wanted = "failed" if newest.killed else "succeeded"
    findings.expect(facts["state"] == wanted, f"experiment {experiment} is {facts['state']}, not {wanted}")
    drops = sum(record["dropped"] for record in facts["sources"].values())
    lost = sum(gap["end"] - gap["first"] for record in facts["sources"].values() for gap in record["lost"])
    wanted_notes = {"gaps": {payload.NOWHERE_REASON: drops}} if drops else {}
    wanted_notes |= {"lost_bytes": lost} if lost else {}
    notes = {name: what for name, what in facts["notes"].items() if what}
    findings.expect(notes == wanted_notes, f"experiment {experiment} has notes that nothing explains: {notes}")


def _lost_rightly(record: dict[str, Any], producer: Testimony) -> bool:
    """Whether what the document calls lost is the block of the byte that was damaged, and nothing else."""
    if producer.damage is None or len(record["lost"]) != 1:
        return producer.damage is None and not record["lost"]
    (gap,) = record["lost"]
    return bool(gap["first"] <= producer.damage < gap["end"] <= gap["first"] + LOST_BYTES_MAX)


def _allowed_drops(producer: Testimony) -> list[int]:
    """How many drops of a source may be counted: those of the calls that returned, and of one that was interrupted."""
    drops = int(np.sum(gaps(np.arange(producer.returned))))
    most = drops + int(producer.killed and payload.call_of(producer.returned) is Call.NOWHERE)
    return list(range(drops - int(producer.damage is not None), most + 1))  # the damaged block may have held one


def missing_objects(folder: Path) -> Iterator[str]:
    """What a commit of this experiment names that is not there, or not whole."""
    for path in sorted((folder / "commits").glob("*.json")):
        commit = json.loads(path.read_text())
        named = [(part["path"], part["bytes"]) for parts in commit.get("parts", {}).values() for part in parts]
        named += [(commit["side"], None)] if commit.get("side") else []
        for name, size in named:
            if not (folder / name).exists():
                yield f"commit {path.stem} names {name}, which is missing"
            elif size is not None and (folder / name).stat().st_size != size:
                yield f"commit {path.stem} names {name} with {size} bytes, which has others"
        if commit.get("pending"):
            newest = path == max((folder / "commits").glob("*.json"))
            if newest:
                yield f"the newest commit {path.stem} still waits for files: {sorted(commit['pending'])}"
