"""A real store for these tests, which are never timed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from headrace_proto.store.backend import open_store

if TYPE_CHECKING:
    from pathlib import Path

    from headrace_proto.store.backend import Store

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture
def files(tmp_path: Path) -> Store:
    """An empty store in a folder."""
    return open_store(str(tmp_path / "files"))
