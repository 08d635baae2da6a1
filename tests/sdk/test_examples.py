"""The examples that are type-checked also run."""

from __future__ import annotations

from pathlib import Path

from headrace_proto.home import Home
from tests.sdk import typed_examples
from tests.sdk.journals import journals


def test_the_readme_runs(tmp_path: Path) -> None:
    """And everything in it is journaled."""
    assert typed_examples.readme(tmp_path).reached
    [journal] = journals(Home(tmp_path))
    assert journal.outcome == "succeeded"
    assert {point.channel for point in journal.points()} >= {"loss", "acc", "notes", "samples"}


def test_every_form_runs(tmp_path: Path) -> None:
    """As written."""
    typed_examples.every_form(tmp_path)
    assert [journal.outcome for journal in journals(Home(tmp_path))] == ["succeeded", "succeeded"]


def test_the_surface_runs(tmp_path: Path) -> None:
    """From the first call to a download of what was edited in afterwards."""
    typed_examples.the_surface(tmp_path)
    assert (tmp_path / "code.zip").exists()
