"""Fixtures of the journal's tests: what holds on a local disk holds on a network file system as well."""

from __future__ import annotations

import pytest

from headrace_proto import filesystem
from tests.proto.journal.reading import lies_on


@pytest.fixture(params=["ext4", "nfs4"], ids=["mapped", "written"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The type of file system that the home is said to lie on: one that is mapped, and one that is written to."""
    found: str = request.param
    monkeypatch.setattr(filesystem, "kind_of", lies_on(found))
    return found
