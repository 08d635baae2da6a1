"""Bytes of others, bent in every way: whatever comes in, only documented errors come out, in bounded time and memory."""

from __future__ import annotations

import pytest

from tests.fuzz.bombs import BOMBS
from tests.fuzz.fuzzer import corpus, fuzz, judge
from tests.fuzz.targets import TARGETS

COUNTS = {"journal": 120, "commit": 60, "part": 150}
"""Inputs in `make test`: what a second or two allow."""


@pytest.mark.parametrize("target", TARGETS)
def test_no_input_of_the_corpus_does_harm(target: str) -> None:
    """What once broke something, and the bombs: each is refused, or read, as documented."""
    for data in [*corpus(target), *BOMBS.get(target, list)()]:
        finding = judge(target, data)
        assert finding is None, (finding.what, data[:200])


@pytest.mark.parametrize("target", TARGETS)
def test_no_changed_input_does_harm(target: str) -> None:
    """Inputs made by a seeded mutator: no undocumented error, no hang, no more than 64 MiB above what was in use."""
    tried, finding = fuzz(target, seed=20261121, count=COUNTS.get(target, 400))
    assert finding is None, (tried, finding.what, finding.data[:2000])
