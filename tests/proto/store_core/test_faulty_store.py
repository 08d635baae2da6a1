"""Collectors, compaction, uploads, the catalog and readers over a store that fails: the same content as over one that does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from headrace_proto.store import compaction, layout, uploads
from headrace_proto.store.commits import PART_KINDS
from tests.proto.store_core.script import PROJECT, chain_of, memory_store
from tests.proto.store_core.world import EXPERIMENTS, content, live
from tests.stores import head_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace_proto.store.backend import Store


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    """Compaction at 4 parts, pieces of 1,000 bytes: every mechanism works within a few commits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compaction, "PARTS_MAX", 4)
        patch.setattr(uploads, "PIECE_BYTES", 1000)
        yield


@pytest.fixture(scope="module")
def untroubled(_small: None) -> dict[str, object]:
    """What a store holds in which nothing failed."""
    store = memory_store()
    live(store, 0, 0.0)
    return content(store)


def _whole(store: Store) -> None:
    """Every commit of each chain has its number, and names only what is there."""
    for experiment in EXPERIMENTS:
        chain = chain_of(store, experiment)
        names = store.names(layout.commits_folder(PROJECT, experiment))
        assert [layout.commit_number(name) for name in names] == list(range(1, chain.number + 1))
        for kind in PART_KINDS:
            for part in head_of(chain).parts.of(kind):
                assert store.size(f"{chain.folder}/{part.path}") == part.bytes


# -- Fault 17: the same content as without faults; nothing is acknowledged before it is stored -----------------------


@pytest.mark.parametrize("seed", range(40))
def test_what_is_stored_does_not_depend_on_what_failed(seed: int, untroubled: dict[str, object]) -> None:
    """Requests and answers lost, late creates, torn bodies, stale listings, slow answers, deaths, rivals: every point once, no
    number twice, no commit that names what is not there, and the same documents, series, files and rows as without any fault."""
    store = memory_store()
    live(store, seed, rate=(0.02, 0.1, 0.3)[seed % 3], clients=1 + seed % 4)
    _whole(store)
    assert content(store) == untroubled
