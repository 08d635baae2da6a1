"""Empty stores to put experiments into."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from headrace_proto.store.backend import Store, open_store
from tests.fixtures_s3 import s3_endpoint, s3_url

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["s3_endpoint", "s3_url"]


@pytest.fixture
def files(tmp_path: Path) -> Store:
    """A store in a folder."""
    return open_store(str(tmp_path / "store"))
