"""A store that somebody edited by hand: reading it writes nothing outside the folder asked for, and follows no link out of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.reading import StoredExperiment
from headrace_proto.errors import ArtifactNotFound, Corrupt, InvalidName
from headrace_proto.store import layout
from headrace_proto.store.backend import Store, open_store
from tests.sdk.reading.stored import PROJECT, Stored


@pytest.mark.parametrize("path", ["../evil", "a/../../evil", "/evil", "a\\evil", "a\0evil", ".."])
@pytest.mark.parametrize("field", ["artifacts", "source_files", "parts", "side", "file"])
def test_commit_that_somebody_edited_leads_nowhere(files: Store, tmp_path: Path, path: str, field: str) -> None:
    """A commit edited by hand to name a path outside: nothing outside is read or written, whatever is asked for."""
    stored = Stored(files)
    stored.owner.artifact("model.bin", b"weights")
    stored.owner.artifact("train.py", b"print()", kind="source")
    stored.owner.point("loss", 1, 0.5)
    stored.commit()
    folder = f"{layout.experiment_folder(PROJECT, stored.id)}/commits"
    newest = f"{folder}/{files.names(folder)[-1]}"
    commit = json.loads(files.read(newest))
    evil = {"path": path, "rows": 1, "bytes": 1, "level": 0}
    document = commit["document"]
    if field == "parts":
        commit["parts"]["numeric"] = [evil]
    elif field == "side":
        commit["side"] = path
    elif field == "file":
        document["artifacts"]["model.bin"]["file"] = path
    else:
        document[field][path] = next(iter(document[field].values()))
    files.put(newest, json.dumps(commit).encode())
    out = tmp_path / "out" / "deep"
    calls: list[Callable[[], object]] = [
        lambda: StoredExperiment(files, PROJECT, stored.id).download_artifacts(None, str(out)),
        lambda: StoredExperiment(files, PROJECT, stored.id).download_sources(None, str(out)),
        lambda: StoredExperiment(files, PROJECT, stored.id).get_channel("loss"),
        lambda: StoredExperiment(files, PROJECT, stored.id).download_artifact(path, str(out)),
    ]
    refused = 0
    for call in calls:
        try:
            call()
        except (InvalidName, Corrupt, ArtifactNotFound):
            refused += 1
    assert refused >= 2  # the last always, and whichever met the path
    assert [found.name for found in tmp_path.rglob("*evil*")] == []
    assert {found.parent for found in tmp_path.rglob("*.zip")} <= {out}


@pytest.mark.parametrize("inside", ["artifacts/model.bin", "sources/train.py", "channels"])
def test_link_in_the_store_that_leads_out_is_not_followed(tmp_path: Path, inside: str) -> None:
    """A link that somebody put into a store's folder shows nothing of what lies elsewhere."""
    store = open_store(str(tmp_path / "store"))
    stored = Stored(store)
    stored.owner.artifact("model.bin", b"weights")
    stored.owner.artifact("train.py", b"weights", kind="source")
    stored.owner.point("loss", 1, 0.5)
    stored.commit()
    place = tmp_path / "store" / layout.experiment_folder(PROJECT, stored.id) / inside
    elsewhere = tmp_path / "elsewhere"
    place.rename(elsewhere)  # the very bytes, so that only where they lie is wrong
    place.symlink_to(elsewhere)
    experiment = StoredExperiment(store, PROJECT, stored.id)
    call: Callable[[], object] = {
        "artifacts/model.bin": lambda: experiment.download_artifacts(None, str(tmp_path / "out")),
        "sources/train.py": lambda: experiment.download_sources(None, str(tmp_path / "out")),
        "channels": lambda: experiment.get_channel("loss"),
    }[inside]
    with pytest.raises(PermissionError, match="leads out of the store"):
        call()
    assert not list((tmp_path / "out").glob("*"))
