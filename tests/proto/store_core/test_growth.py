"""What is written for new events does not grow with what is there already: bytes are counted, not time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace_proto.ids import random_id
from headrace_proto.store.catalog import DELTAS_MAX, Catalog, CatalogRow
from headrace_proto.store.local import LocalStore
from tests.proto.store_core.script import NOW_NS, SECOND_NS, Source, chain_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pytest


class _Counting(LocalStore):
    """A folder that counts the bytes written to it."""

    written = 0

    def create(self, path: str, data: bytes) -> bool:
        self.written += len(data)
        return super().create(path, data)

    def put_stream(self, path: str, blocks: Iterable[bytes]) -> None:
        def counted() -> Iterable[bytes]:
            for block in blocks:
                self.written += len(block)
                yield block

        super().put_stream(path, counted())


def _stretches(written: list[int], length: int) -> tuple[float, float]:
    """Bytes of a step in the second stretch of `length` steps, and in the last."""
    return sum(written[length : 2 * length]) / length, sum(written[-length:]) / length


def test_a_late_commit_writes_as_much_as_an_early_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 6 cycles of compaction the last ones write, for the same events, what the second one wrote."""
    monkeypatch.setattr("headrace_proto.store.compaction.PARTS_MAX", 16)
    store = _Counting(tmp_path)
    chain, source = chain_of(store), Source().create("mlp")
    written: list[int] = []
    for commit in range(6 * 16):
        before = store.written
        for step in range(20):
            source.point("loss", commit * 20 + step, 1 / (step + 1)).point("acc", commit * 20 + step, 0.5)
        chain.commit([source.batch()], now_ns=NOW_NS + commit * SECOND_NS)
        chain.compact(now_ns=NOW_NS + commit * SECOND_NS)
        written.append(store.written - before)
    early, late = _stretches(written, 16)
    # 1.17, for points that are merged a second time; merging all of them each time would be 3
    assert late < 1.5 * early


def test_a_row_costs_the_same_in_a_long_catalog(tmp_path: Path) -> None:
    """Live experiments' rows are folded with one another, not with the thousands that ended: however many these are."""
    store = _Counting(tmp_path)
    costs = []
    for project, ended in (("a/short", 10), ("a/long", 5_000)):
        catalog = Catalog(store, project)
        catalog.append(_rows(ended, 1))
        catalog.fold()
        live, before = _rows(5, 1), store.written
        for commit in range(2 * DELTAS_MAX):
            catalog.append([row.model_copy(update={"commit": commit}) for row in live])
            catalog.fold(DELTAS_MAX)
        costs.append(store.written - before)
    assert costs[1] < 1.2 * costs[0]


def _rows(count: int, commit: int) -> list[CatalogRow]:
    names = [random_id() for _ in range(count)]
    return [
        CatalogRow(experiment=name, commit=commit, id=f"DIG-{n}", name="mlp", state="running", metrics={"loss": 1.0})
        for n, name in enumerate(names)
    ]
