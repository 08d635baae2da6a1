"""Edits against a model: one by one, or gathered in blocks of any size, they come to the same experiment."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace as hr
from headrace.reading import StoredExperiment
from headrace_proto.store.backend import open_store
from tests.examples import examples
from tests.sdk.reading.stored import Stored

TAGS = st.sampled_from(["a", "b", "c"])
EDITS = st.one_of(
    st.tuples(st.just("append_tag"), TAGS),
    st.tuples(st.just("remove_tag"), TAGS),
    st.tuples(st.just("set_property"), TAGS, st.integers(0, 3)),
    st.tuples(st.just("remove_property"), TAGS),
    st.tuples(st.just("log_parameter"), TAGS, st.integers(0, 3)),
    st.tuples(st.just("log_metric"), TAGS, st.integers(0, 3), st.integers(0, 3)),
)


def model(edits: list[tuple[Any, ...]]) -> dict[str, Any]:
    """What the edits come to, by the plainest means."""
    tags: set[str] = set()
    properties: dict[str, str] = {}
    params: dict[str, int] = {}
    metrics: dict[str, dict[int, int]] = {}
    for call, name, *values in edits:
        match call:
            case "append_tag":
                tags.add(name)
            case "remove_tag":
                tags.discard(name)
            case "set_property":
                properties[name] = str(values[0])
            case "remove_property":
                properties.pop(name, None)
            case "log_parameter":
                params[name] = values[0]
            case _:
                metrics.setdefault(name, {})[values[0]] = values[1]
    last = {name: float(points[max(points)]) for name, points in metrics.items()}
    return {"tags": sorted(tags), "properties": properties, "params": params, "metrics": last}


@examples(25)
@given(blocks=st.lists(st.lists(EDITS, max_size=6), max_size=5), gathered=st.booleans())
def test_edits_come_to_what_they_say(
    tmp_path_factory: pytest.TempPathFactory, blocks: list[list[tuple[Any, ...]]], gathered: bool
) -> None:
    """Of two words about one thing the later one counts, within a commit and over commits."""
    stored = Stored(open_store(str(tmp_path_factory.mktemp("store"))))
    experiment = StoredExperiment(stored.store, stored.project, stored.id)
    for block in blocks:
        if gathered:
            with hr.buffered():
                for call, *arguments in block:
                    getattr(experiment, call)(*arguments)
        else:
            for call, *arguments in block:
                getattr(experiment, call)(*arguments)
    experiment.refresh()
    found = {name: getattr(experiment, name) for name in ("tags", "properties", "params", "metrics")}
    assert found == model([edit for block in blocks for edit in block])
