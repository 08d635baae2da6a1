"""Open files: what FORMAT.md tells a reader without Headrace is true."""

from __future__ import annotations

import json
import os
import re
from importlib import resources
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from headrace_proto.store.backend import store_id
from headrace_proto.store.commits import Commit
from headrace_proto.store.documents import PublicDocument
from tests.proto.store_core.script import EXPERIMENT, NOW_NS, PROJECT, SECOND_NS, Source, chain_of, frame_of
from tests.stores import head_of

if TYPE_CHECKING:
    from headrace_proto.store.backend import Store

FORMAT = resources.files("headrace_proto.store").joinpath("FORMAT.md").read_text(encoding="utf-8")
FOLDER = f"{PROJECT}/experiments/{EXPERIMENT}"


def _snippet(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", FORMAT, re.DOTALL)
    assert found
    return found[1]


@pytest.fixture
def experiment(files: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store with an experiment whose folder also holds merged parts and a leftover; the current folder is its folder."""
    chain, a = chain_of(files), Source().create("mlp", params={"lr": 0.1})
    for n in range(4):
        a.point("loss", n, 1 / (n + 1)).point("acc", n, float("nan")).text("note", n, "x").image("img", n, b"1")
        chain.commit([a.artifact("m.bin", b"1").batch()], now_ns=NOW_NS)
    chain.compact(now_ns=NOW_NS, final=True)
    chain.commit([a.point("loss", 4, 0.1).close().batch()], now_ns=NOW_NS + SECOND_NS)
    files.put(
        f"{FOLDER}/channels/part-{9:020d}-0.parquet", files.read(f"{FOLDER}/{head_of(chain).parts.numeric[0].path}")
    )
    monkeypatch.chdir(files.url_of(FOLDER))
    return files


def test_duckdb_reads_the_live_parts(experiment: Store) -> None:
    """The SQL of FORMAT.md answers, with each point once, though merged parts and a leftover lie beside the live ones."""
    with duckdb.connect() as connection:
        answer = connection.execute(_snippet("sql")).fetchall()
    assert answer == [("acc", 4, 3.0), ("loss", 5, 4.0)]


def test_pandas_reads_the_live_parts(experiment: Store) -> None:
    """The Python of FORMAT.md gives the points that our own reader gives."""
    found: dict[str, Any] = {}
    exec(_snippet("python"), found)
    expected = frame_of(chain_of(experiment))
    points = found["points"].astype({"channel": str}).reset_index(drop=True)
    assert points.to_dict("list").keys() == expected.to_dict("list").keys()
    assert repr(points.to_dict("list")) == repr(expected.to_dict("list"))


def test_format_names_every_field_and_folder(experiment: Store) -> None:
    """No field of a commit, no list of the document and no folder of an experiment is left unexplained."""
    for field in Commit.model_fields:
        assert f"`{field}`" in FORMAT, field
    for folder in os.listdir("."):
        assert folder in FORMAT, folder
    assert {"parts", "commit"} <= PublicDocument.model_fields.keys()
    with open("experiment.json") as file:
        document = json.load(file)
    for field in ("params", "properties", "tags", "artifacts", "sources", "notes", "parts", "commit", "state"):
        assert field in document
        assert f"`{field}`" in FORMAT, field


def test_the_store_carries_its_format(experiment: Store) -> None:
    """FORMAT.md lies in the store's root."""
    store_id(experiment)
    assert experiment.read("FORMAT.md").decode() == FORMAT
