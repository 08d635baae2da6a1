"""The oracle itself: it finds nothing in a good store, and each kind of wrong in one that was made wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import headrace as hr
from headrace_proto.home import Home
from tests.chaos.oracle import PROJECT, Findings, judge
from tests.chaos.trainer import log

CALLS = 20_500
"""Enough for every kind of call."""
DROPS = 2


class Told(NamedTuple):
    """A source that this test played."""

    number: int = 3
    key: str = "run"
    returned: int = CALLS
    killed: bool = False
    damage: int | None = None


class Stored:
    """One experiment, stored in direct mode, and what a test does to it."""

    def __init__(self, store: Path) -> None:
        self.store = store
        (self.folder,) = (store / PROJECT / "experiments").iterdir()

    @property
    def facts(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "experiment.json").read_text()))

    def rewrite(self, facts: dict[str, Any]) -> None:
        (self.folder / "experiment.json").write_text(json.dumps(facts))

    @property
    def part(self) -> Path:
        """A part of numbers."""
        return self.folder / str(self.facts["parts"]["numeric"][0])

    def change(self, table: pa.Table) -> None:
        """Put other rows into the part."""
        pq.write_table(table, self.part)

    def judged(self, told: Told | None = None) -> Findings:
        return judge(self.store, [told or Told()])


@pytest.fixture
def stored(home: Home, store: str) -> Stored:
    """A good store."""
    exp = hr.init(PROJECT, home=home.root, store=store, direct=True).create_experiment(
        "run", label="3", upload_source_files=[], upload_stdout=False, upload_stderr=False, send_hardware_metrics=False
    )
    for sequence in range(CALLS):
        log(exp, 3, sequence)
    exp.stop()
    return Stored(Path(store))


def test_in_a_good_store_it_finds_nothing(stored: Stored) -> None:
    """Every call once, of every kind."""
    findings = stored.judged()
    assert (findings.sentences, findings.stored, findings.dropped) == ([], CALLS - DROPS, DROPS)


def test_it_finds_what_is_missing(stored: Stored) -> None:
    """Calls that returned and are not there, by their numbers."""
    findings = stored.judged(Told(returned=CALLS + 3))
    assert findings.lost == 3
    assert f"{CALLS}-{CALLS + 2}" in findings.sentences[0]


def test_it_finds_what_nobody_did(stored: Stored) -> None:
    """A call beyond those that returned is one too many, unless a SIGKILL interrupted it."""
    assert f"there are {CALLS - 1}" in stored.judged(Told(returned=CALLS - 1)).sentences[0]
    killed = stored.judged(Told(returned=CALLS - 1, killed=True))
    assert killed.lost == killed.duplicated == 0
    assert all("is succeeded, not" in sentence for sentence in killed.sentences)
    assert f"there are {CALLS - 2}-{CALLS - 1}" in stored.judged(Told(returned=CALLS - 2, killed=True)).sentences[0]


def test_it_finds_what_is_there_twice(stored: Stored) -> None:
    """A part that is listed twice, and the rows in it."""
    facts = stored.facts
    facts["parts"]["numeric"].append(facts["parts"]["numeric"][0])
    stored.rewrite(facts)
    findings = stored.judged()
    assert findings.duplicated > 10_000
    assert any("an automatic step was given twice" in sentence for sentence in findings.sentences)


@pytest.mark.parametrize("column", ["value", "step"])
def test_it_finds_a_number_that_was_changed(stored: Stored, column: str) -> None:
    """One value, or one step, of twenty thousand."""
    table = pq.read_table(stored.part)
    place = table["channel"].to_pylist().index("even") + 7
    numbers: list[Any] = table[column].to_pylist()
    numbers[place] += 1
    stored.change(table.set_column(table.schema.get_field_index(column), column, pa.array(numbers, pa.float64())))
    findings = stored.judged()
    assert findings.lost == 1
    assert any("a point that nobody logged" in sentence for sentence in findings.sentences)


def test_it_finds_a_row_that_is_not_whole(stored: Stored) -> None:
    """One value of a row is gone."""
    table = pq.read_table(stored.part)
    gone = table["channel"].to_pylist().index("row/c")
    stored.change(pa.concat_tables([table.slice(0, gone), table.slice(gone + 1)]))
    assert any("a row is not whole" in sentence for sentence in stored.judged().sentences)


def test_it_finds_a_changed_file_and_a_missing_one(stored: Stored) -> None:
    """An artifact of other bytes, and a part that a commit names and that is not there."""
    (artifact,) = (path for path in (stored.folder / "artifacts").rglob("*.bin"))
    artifact.write_bytes(b"other")
    assert any("is not what was logged" in sentence for sentence in stored.judged().sentences)
    facts = stored.facts
    stored.part.unlink()
    facts["parts"]["numeric"] = []
    stored.rewrite(facts)
    assert any("which is missing" in sentence for sentence in stored.judged().sentences)


def test_it_finds_a_wrong_state_and_a_gap(stored: Stored) -> None:
    """What the document says of the source has to be what happened to it."""
    facts = stored.facts
    (record,) = facts["sources"].values()
    record["lost"] = [{"first": 1, "end": 2, "reason": "made up"}]
    facts["notes"]["lost_bytes"] = 2
    stored.rewrite({**facts, "state": "failed"})
    text = "\n".join(stored.judged().sentences)
    assert "lost ranges that nobody made" in text
    assert "notes that nothing explains" in text
    assert "is failed, not succeeded" in text


def test_it_finds_a_drop_that_is_not_counted(stored: Stored) -> None:
    """Gaps are where they were made, and as many."""
    facts = stored.facts
    (record,) = facts["sources"].values()
    record["dropped"] = DROPS - 1
    stored.rewrite(facts)
    assert any(f"counts {DROPS - 1} drops" in sentence for sentence in stored.judged().sentences)


def test_it_finds_a_lost_range_that_is_not_where_the_damage_was(stored: Stored) -> None:
    """The block of the damaged byte may be missing, and no other."""
    facts = stored.facts
    (record,) = facts["sources"].values()
    record["lost"] = [{"first": 10_000, "end": 14_000, "reason": "damaged"}]
    facts["notes"]["lost_bytes"] = 4_000
    stored.rewrite(facts)
    assert stored.judged(Told(damage=12_000)).sentences == []
    for elsewhere in (9_999, 14_000, None):
        assert any("lost ranges that nobody made" in said for said in stored.judged(Told(damage=elsewhere)).sentences)
