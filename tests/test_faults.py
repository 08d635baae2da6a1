"""The table of faults in ARCHITECTURE.md and the sections of the tests say the same, and every test that it names is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "ARCHITECTURE.md"
FAULTS = 25
HAZARDS = 30
_SECTION = re.compile(r"^\s*# -- Fault ([0-9]+): (.+?) -+$", re.MULTILINE)


class Row(NamedTuple):
    """A row of a table on the page."""

    label: str
    promise: str
    files: tuple[str, ...]


def table(heading: str) -> list[Row]:
    """The rows of the table under a heading."""
    section = PAGE.read_text(encoding="utf-8").split(f"### {heading}\n", 1)[1].split("\n#", 1)[0]
    cells = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    rows = [Row(row[0].strip(), row[-2].strip(), tuple(re.findall(r"`([^`]+)`", row[-1]))) for row in cells]
    return [row for row in rows if row.files]


def sections() -> dict[str, tuple[str, str]]:
    """Fault -> (promise, file) of every section that a test file heads with one."""
    found: dict[str, tuple[str, str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for label, promise in _SECTION.findall(path.read_text(encoding="utf-8")):
            assert label not in found, f"fault {label} has two sections"
            found[label] = promise, path.relative_to(ROOT).as_posix()
    return found


def test_every_fault_has_a_section_that_is_its_promise() -> None:
    """What the table says of a fault is the heading of the tests that show it, in the first file that it names."""
    rows = table("Faults")
    assert [row.label for row in rows] == [str(number) for number in range(1, FAULTS + 1)]
    assert {row.label: (row.promise, row.files[0]) for row in rows} == sections()


def test_every_hazard_has_a_test() -> None:
    """Each hazard is in the table, and so is a test for it."""
    labels = {label for row in table("Hazards") for label in re.split(r", ", row.label)}
    assert {str(number) for number in range(1, HAZARDS + 1)} <= labels


def test_tests_that_are_named_are_there() -> None:
    """No row names a file that was renamed or removed."""
    rows = [*table("Faults"), *table("Hazards")]
    assert [file for row in rows for file in row.files if not (ROOT / file).is_file()] == []
