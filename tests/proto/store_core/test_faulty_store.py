"""Collectors, compaction, uploads, the catalog and readers over a store that fails: the same content as over one that does not."""

from __future__ import annotations

import os
import resource
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from headrace_proto.store import compaction, layout, uploads
from headrace_proto.store.commits import PART_KINDS
from tests.proto.store_core.script import NOW_NS, PROJECT, Source, chain_of, memory_store, points_of
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


@contextmanager
def _files_end_at(size: int) -> Iterator[None]:
    """No file grows beyond this: the system says EFBIG where a full disk says ENOSPC."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_part_whose_pages_do_not_fit_on_the_disk_leaves_nothing(files: Store) -> None:
    """Wherever it ends, the commit fails as a whole and no file of it stays; the same, given again, is stored once."""
    source, chain = Source().create(), chain_of(files)
    for step in range(400):
        source.row({"loss": step / 3, "acc": step / 7}, step)
    chain.commit([source.batch()], now_ns=NOW_NS)
    for step in range(400, 800):
        source.row({"loss": step / 3, "acc": step / 7}, step)
    batch, before = source.batch(), _files_below(files)
    assert chain.head is not None
    for size in range(0, chain.head.parts.numeric[0].bytes - 500, 500):
        with _files_end_at(size), pytest.raises(OSError, match="File too large"):
            chain.commit([batch], now_ns=NOW_NS)
        assert (_files_below(files), chain.number) == (before, 1)
    chain.commit([batch], now_ns=NOW_NS)
    steps = [float(step) for step in range(800)]
    assert [step for name, step, _, _ in points_of(chain) if name == "acc"] == steps
    assert [value for name, _, _, value in points_of(chain) if name == "loss"] == [step / 3 for step in steps]


def _files_below(store: Store) -> list[str]:
    return sorted(os.path.join(folder, name) for folder, _, names in os.walk(store.url) for name in names)
