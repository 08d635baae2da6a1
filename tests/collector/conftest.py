"""An S3 server for the tests here; and newcomers that do not listen for others, where a test has one collector only."""

import pytest

from headrace_collector import keeper
from tests.fixtures_s3 import s3_endpoint, s3_url

__all__ = ["s3_endpoint", "s3_url"]


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A collector claims its partitions at once."""
    monkeypatch.setattr(keeper, "LISTEN_S", 0.0)
