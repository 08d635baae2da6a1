"""`headrace fsck`: what is wrong with a store, in words, in JSON, and in the exit code."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest

import headrace as hr
from headrace.command.main import invoke

Checked = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A store with two experiments that have ended."""
    return fill(str(tmp_path / "store"), tmp_path / "home")


def fill(store: str, home: Path) -> str:
    """Log two experiments straight to a store; its URL."""
    project = hr.init("vision/digits", home=str(home), store=store, direct=True)
    for name in ("one", "two"):
        with project.create_experiment(name=name, params={"lr": 0.1}) as experiment:
            for step in range(50):
                experiment.log_metric("loss", step, 1 / (step + 1))
            experiment.log_artifact(io.BytesIO(b"weights"), "model.bin")
    return store


@pytest.fixture
def checked(store: str, capfd: pytest.CaptureFixture[str]) -> Checked:
    """Runs fsck: its exit code, and its JSON."""

    def run(*flags: str) -> tuple[int, dict[str, Any]]:
        code = invoke(["fsck", store, "--json", *flags])
        return code, json.loads(capfd.readouterr().out)

    return run


def test_a_store_as_it_should_be(checked: Checked, said: Callable[..., str], store: str) -> None:
    """Nothing is found, at any depth, with any number of threads, and the exit code is 0."""
    for flags in ([], ["--fast"], ["--digests"], ["--threads", "4"]):
        code, found = checked(*flags)
        assert (code, found["findings"], found["errors"]) == (0, [], 0)
    assert "0 errors, 0 warnings, 0 notes, 0 mended" in said("fsck", store)


def test_the_store_is_named_as_to_every_other_command(store: str, said: Callable[..., str]) -> None:
    """By `--store`, or as what is to be checked; two different ones are a mistake."""
    for named in (["--store", store], [store], [store, "--store", store]):
        assert f"{store}: 0 errors" in said("fsck", *named)
    assert invoke(["fsck", store, "--store", f"{store}-absent"]) == 2
    assert invoke(["fsck", "--store", f"{store}-absent"]) == 2


def test_damage_is_named_and_the_exit_code_is_1(
    checked: Checked, store: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """A missing part and a changed file: path, what it means, what to do; a repair invents nothing."""
    part = next(Path(store).rglob("channels/part-*.parquet"))
    part.unlink()
    next(Path(store).rglob("artifacts/model.bin")).write_bytes(b"Weights")
    assert invoke(["fsck", store]) == 1
    out = capfd.readouterr().out
    for words in (part.name, "it is missing", "of loss", "→ restore it", "1 errors"):
        assert words in out
    code, found = checked("--digests", "--repair")
    assert (code, found["errors"], found["mended"]) == (1, 2, 0)
    assert any("digest" in finding["says"] for finding in found["findings"])


def test_repair_mends_what_can_be_written_anew(checked: Checked, store: str, said: Callable[..., str]) -> None:
    """A lost catalog and a broken experiment.json are errors, are mended, and are none after that; lists show all again."""
    for file in Path(store).rglob("catalog/*/*"):
        file.unlink()
    next(Path(store).rglob("experiment.json")).write_text("{")
    code, found = checked()
    assert (code, found["mended"]) == (1, 0)
    code, found = checked("--repair")
    assert (code, found["errors"], found["mended"]) == (0, 0, 1)
    assert checked()[1]["findings"] == []
    assert all(name in said("ls", "vision/digits", "--store", store) for name in ("one", "two"))


@pytest.mark.parametrize("flags", [["--fast", "--digests"], ["--threads", "0"]])
def test_mistakes_are_told(store: str, flags: list[str]) -> None:
    """Flags that contradict one another are a mistake: exit code 2, as for a store that is not there."""
    assert invoke(["fsck", store, *flags]) == 2
    assert invoke(["fsck", f"{store}-absent"]) == 2
    assert not Path(f"{store}-absent").exists()


def test_a_store_on_s3_is_checked_and_mended_alike(
    s3_url: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], said: Callable[..., str]
) -> None:
    """Whole; then a part is gone and the catalog, too: the one is an error that stays, the other is written anew."""

    def checked(*flags: str) -> tuple[int, dict[str, Any]]:
        code = invoke(["fsck", s3_url, "--json", *flags])
        return code, json.loads(capfd.readouterr().out)

    fill(s3_url, tmp_path / "home")
    code, found = checked("--digests")
    assert (code, found["findings"]) == (0, [])
    bucket, prefix = s3_url.removeprefix("s3://").split("/")
    client = boto3.client("s3")
    keys = [entry["Key"] for entry in client.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]]
    part = next(key for key in keys if "/channels/part-" in key)
    client.delete_object(Bucket=bucket, Key=part)
    assert sorted(invoke(["verify", name, "--store", s3_url]) for name in ("DIG-1", "DIG-2")) == [0, 1]
    capfd.readouterr()
    for key in (key for key in keys if "/catalog/" in key):
        client.delete_object(Bucket=bucket, Key=key)
    code, found = checked("--repair")
    assert (code, found["errors"]) == (1, 1)
    assert part.rpartition("/")[2] in json.dumps(found["findings"])
    assert all(name in said("ls", "vision/digits", "--store", s3_url) for name in ("one", "two"))
