"""A stored experiment, to be changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from headrace.reading import StoredExperiment, StoredProject
from headrace_proto.store.backend import Store, open_store
from tests.sdk.reading.stored import PROJECT, Stored

if TYPE_CHECKING:
    from pathlib import Path

Refuses = Callable[[str, list[Any], type[Exception]], None]


@pytest.fixture
def files(tmp_path: Path) -> Store:
    """A store in a folder."""
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def stored(files: Store) -> Stored:
    """A running experiment with a point, an artifact and a few facts."""
    stored = Stored(files, name="mlp", params={"lr": 0.1}, properties={"model": "mlp"}, tags=["a"])
    stored.owner.point("loss", 1, 0.5)
    stored.owner.text("notes", 1, "hello")
    stored.owner.artifact("model.bin", b"weights")
    stored.commit()
    return stored


@pytest.fixture
def experiment(stored: Stored) -> StoredExperiment:
    """Its handle, from a list, opened for reading only."""
    [found] = StoredProject(open_store(stored.store.url, writable=False), PROJECT).get_experiments()
    return found


@pytest.fixture
def refuses(experiment: StoredExperiment, stored: Stored) -> Refuses:
    """Holds that a call raises, and commits nothing."""

    def refused(call: str, wrong: list[Any], error: type[Exception]) -> None:
        number = stored.chain.load().number
        with pytest.raises(error):
            getattr(experiment, call)(*wrong)
        assert stored.chain.load().number == number

    return refused
