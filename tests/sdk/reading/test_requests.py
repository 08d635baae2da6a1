"""What reading asks of a store: requests and bytes by what is shown, not by what is there."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pytest

from headrace.command.find import find_experiment
from headrace.reading import StoredProject
from headrace_proto.errors import ExperimentNotFound
from headrace_proto.limits import ROW_GROUP_POINTS
from headrace_proto.store import layout, parts
from headrace_proto.store.backend import open_store
from headrace_proto.store.catalog import Catalog, CatalogRow
from headrace_proto.store.claims import claim_project
from tests.faults.http_proxy import HttpProxy
from tests.sdk.reading.stored import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterable


def _rows(numbers: Iterable[int], commit: int = 1) -> list[CatalogRow]:
    return [
        CatalogRow(experiment=f"{n:032x}", commit=commit, id=f"DIG-{n}", name=f"run {n}", state="running", tags=["a"])
        for n in numbers
    ]


@pytest.mark.parametrize("experiments", [10, 1000])
def test_a_list_on_s3_opens_files_of_the_catalog_only(
    s3_url: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, experiments: int
) -> None:
    """Ten or a thousand experiments take the same few requests, none of them for an experiment; a second look only lists."""
    with HttpProxy(s3_endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        store = open_store(s3_url)
        claim_project(store, PROJECT)
        catalog = Catalog(store, PROJECT)
        catalog.append(_rows(range(1, experiments)))
        catalog.fold()
        catalog.append(_rows([experiments]))
        project = StoredProject(open_store(s3_url, writable=False), PROJECT)
        proxy.requests.clear()
        assert len(project.get_experiments(tag="a", state="running")) == experiments
        first = list(proxy.requests)
        assert not [request for request in first if layout.experiments_folder(PROJECT) in str(request)]
        assert len(first) == 4  # the shards, the shard's files, and both of these
        proxy.requests.clear()
        assert len(project.get_leaderboard()) == experiments
        assert len(proxy.requests) == 2  # nothing new
        catalog.append(_rows([1], commit=2))
        proxy.requests.clear()
        assert len(project.rows()) == experiments
        assert len(proxy.requests) == 3  # and the file that is new


def test_who_is_nowhere_is_looked_for_once_in_each_catalog(
    s3_url: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three projects each is listed once; whether it is committed and in no catalog yet is asked of commits alone."""
    projects = [f"vision/digits{n}" for n in range(3)]
    with HttpProxy(s3_endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        store = open_store(s3_url)
        for project in projects:
            claim_project(store, project)
            Catalog(store, project).append(_rows([1]))
        reading = open_store(s3_url, writable=False)
        proxy.requests.clear()
        with pytest.raises(ExperimentNotFound, match="no experiment"):
            find_experiment(reading, "f" * 32, None)
        for project in projects:
            prefix = quote(f"{layout.shards_folder(project)}/", safe="")
            listed = [path for _, path in proxy.requests if prefix in path]
            assert listed
            assert len(listed) == len(set(listed)), "no folder twice"


class _Counted(io.BytesIO):
    """A file that counts the bytes that are read of it."""

    bytes_read = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.bytes_read += len(data)
        return data


class _OneFile:
    """A store of one file, for reading."""

    def __init__(self, data: bytes) -> None:
        self.file = _Counted(data)

    def open(self, path: str) -> BinaryIO:
        return self.file


def test_one_channel_of_many_reads_its_own_bytes() -> None:
    """Of 20 channels with row groups of their own, one is read with a twentieth of the bytes, and the footer."""
    names, rows = [f"channel {n:02d}" for n in range(20)], ROW_GROUP_POINTS
    random = np.random.default_rng(1)
    codes = pa.DictionaryArray.from_arrays(np.repeat(np.arange(20, dtype=np.int32), rows), pa.array(names))
    steps, times = np.tile(np.arange(rows, dtype=np.float64), 20), np.tile(np.arange(rows) * 50_000, 20)
    columns = [
        codes,
        pa.array(steps),
        pa.array(times).cast(pa.timestamp("us", "UTC")),
        pa.array(random.normal(size=20 * rows)),
    ]
    data = parts.encoded("numeric", pa.table(columns, schema=parts.NUMERIC))
    store = _OneFile(data)
    found = parts.series(store, "numeric", ["part.parquet"], [names[7]])  # type: ignore[arg-type]
    assert found[names[7]]["step"].to_pylist() == list(range(rows))
    assert len(data) / 20 * 0.5 < store.file.bytes_read < len(data) / 20 * 1.5
