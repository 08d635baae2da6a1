"""A real store for these tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from headrace_proto.store.backend import open_store
from tests.fixtures_s3 import s3_endpoint, s3_url

if TYPE_CHECKING:
    from pathlib import Path

    from headrace_proto.store.backend import Store

__all__ = ["s3_endpoint", "s3_url"]


@pytest.fixture
def files(tmp_path: Path) -> Store:
    """An empty store in a folder."""
    return open_store(str(tmp_path / "files"))
