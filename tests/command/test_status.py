"""`headrace status` and `headrace doctor`."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import headrace as hr
from headrace.command.checks import variables
from headrace.command.main import invoke
from headrace_proto import filesystem
from headrace_proto.events import Outcome
from headrace_proto.home import Home
from headrace_proto.journal import JournalWriter
from tests.command.conftest import Up
from tests.waiting import wait_until

Headrace = Callable[..., "subprocess.CompletedProcess[str]"]
NOBODY = "nats://127.0.0.1:1"
EXPERIMENT = "e" * 32


def logged(home: Home) -> hr.Experiment:
    """A live experiment with a point and a file that is too large for an event."""
    experiment = hr.init("work/status", home=home.root).create_experiment(
        upload_source_files=[], upload_stdout=False, upload_stderr=False, send_hardware_metrics=False
    )
    experiment.log_metric("value", 0, 1.0)
    experiment.log_text("long", "x" * 100_000)
    return experiment


def status(headrace: Headrace) -> dict[str, Any]:
    """What `status --json` says, asked by another process than the one that logs, as always."""
    return dict(json.loads(headrace("status", "--json").stdout))


def findings(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
    """doctor's exit code, and what it found by what it looked at (the worst of each)."""
    code = invoke(["doctor", "--json", *arguments])
    order = ["good", "note", "bad"]
    found: dict[str, dict[str, str]] = {}
    for finding in sorted(json.loads(capfd.readouterr().out), key=lambda finding: order.index(finding["verdict"])):
        found[finding["what"]] = finding
    return code, found


def test_status_without_any_part_shows_what_waits(headrace: Headrace, home: Home) -> None:
    """With nothing running each source shows what is journaled, that nothing is stored, and how many files wait."""
    with logged(home):
        found = status(headrace)
        (source,) = found["sources"]
        assert source["journaled"] > 0
        assert (source["streamed"], source["stored"], source["lag"]) == (0, 0, source["journaled"])
        assert (source["files"], source["alive"], source["role"]) == (1, True, "owner")
        assert [part["running"] for part in found["parts"].values()] == [False, False, False]
        assert "what is logged waits in the journals" in headrace("status").stdout


def test_status_under_up_shows_every_part(headrace: Headrace, up: Callable[..., Up], home: Home) -> None:
    """Under `up` all parts are well, the streams are there, and a live source's lag goes to nothing."""
    up().ready()
    with logged(home) as experiment:
        wait_until(lambda: [s["lag"] or s["files"] for s in status(headrace)["sources"]] == [0], "all is stored")
        found = status(headrace)
        assert {name: part["ok"] for name, part in found["parts"].items()} == dict.fromkeys(
            ("nats-server", "agent", "collector"), True
        )
        assert [stream["problem"] for stream in found["streams"]] == ["", "", "", ""]
        (source,) = found["sources"]
        assert source["stored"] == source["streamed"] == source["journaled"] > 0
        assert source["short_id"] == "STA-1"
        text = headrace("status").stdout
        assert experiment.internal_id[:8] not in text
        assert "STA-1" in text
        assert headrace("doctor").returncode == 0


def test_commands_reach_the_broker_of_up_with_no_file_of_another(
    headrace: Headrace, up: Callable[..., Up], home: Home
) -> None:
    """It talks no TLS and asks for no key, whatever the environment names for a cluster's broker."""
    up().ready()
    elsewhere = {"HEADRACE_NATS": NOBODY, "HEADRACE_TLS_CA": "/nowhere.pem", "HEADRACE_CREDENTIALS": "/nowhere.nk"}
    assert "it does not answer" not in headrace("status", **elsewhere).stdout
    assert headrace("doctor", **elsewhere).returncode == 0
    waits_for_nothing = f"nothing of {EXPERIMENT} waits above a gap"
    wait_until(lambda: waits_for_nothing in headrace("close-gap", EXPERIMENT, **elsewhere).stdout, "it answers")
    assert "knows the experiment" in headrace("abort", EXPERIMENT, **elsewhere).stderr


def test_status_shows_a_journal_that_does_not_open(headrace: Headrace, home: Home) -> None:
    """A journal whose bytes are no journal is named, and the others are shown."""
    with logged(home):
        broken = Path(home.journal("0" * 32))
        broken.mkdir()
        (broken / "000000.seg").write_bytes(b"no journal" * 1000)
        found = status(headrace)
        assert len(found["sources"]) == 1
        assert found["unreadable"][0]["source"] == "0" * 32


def test_doctor_on_a_fresh_machine_finds_nothing_bad(capfd: pytest.CaptureFixture[str], home: Home) -> None:
    """With nothing running everything is good or a note that says what to do."""
    code, found = findings(capfd, "--home", home.root, "--nats", NOBODY)
    assert code == 0
    assert found["store"]["verdict"] == found["home"]["verdict"] == found["version"]["verdict"] == "good"
    assert found["broker"]["verdict"] == found["agent"]["verdict"] == "note"
    assert "headrace up" in found["agent"]["remedy"]


def test_doctor_names_what_is_bad_and_the_remedy(
    capfd: pytest.CaptureFixture[str], home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that cannot be used, a broken journal, damaged ranges, a quota reached and a misspelt variable are all found."""
    os.makedirs(home.journal("1" * 32))
    os.makedirs(os.path.dirname(home.damaged("x", 0, 1)))
    Path(home.damaged("x", 0, 1)).write_bytes(b"?")
    Path(home.quota_marker).touch()
    monkeypatch.setenv("HEADRACE_STOER", "x")
    code, found = findings(capfd, "--home", home.root, "--nats", NOBODY, "--store", "nowhere://bucket")
    assert code == 1
    assert {what for what, finding in found.items() if finding["verdict"] == "bad"} == {"store", "journals", "quota"}
    assert "HEADRACE_STOER" in found["environment"]["says"]
    assert all(finding["remedy"] for finding in found.values() if finding["verdict"] != "good")


def test_doctor_takes_no_variable_for_misspelt_that_people_are_told_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each one on the page of the settings that programs, commands or `up` read."""
    page = Path(__file__).parents[2] / "deploy" / "README.md"
    rows = re.findall(r"^\| `(HEADRACE_\w+)` \| ([^|]+) \|", page.read_text(encoding="utf-8"), re.MULTILINE)
    read = [name for name, readers in rows if re.search("all|programs|commands|`up`", readers)]
    assert "HEADRACE_PROJECT" in read
    for name in read:
        monkeypatch.setenv(name, "1")
    assert list(variables()) == []


def test_doctor_finds_a_home_that_cannot_be_used(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A home that is a file is bad, and the remedy names the variable."""
    (tmp_path / "file").touch()
    code, found = findings(capfd, "--home", str(tmp_path / "file"), "--nats", NOBODY)
    assert code == 1
    assert found["home"]["verdict"] == "bad"
    assert "HEADRACE_HOME" in found["home"]["remedy"]


def test_doctor_knows_a_home_that_hosts_share(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a network file system it says what that costs, and which hosts' journals no agent ships."""
    monkeypatch.setattr(filesystem, "kind_of", lambda path: "lustre")
    home, there = Home(tmp_path), Home(tmp_path / "hosts" / "gpu-2")
    JournalWriter(there, "a/b", "0" * 32).close(Outcome.SUCCEEDED)
    code, found = findings(capfd, "--home", home.named, "--nats", NOBODY)
    assert code == 0
    assert found["home"]["verdict"] == "note"
    assert "gpu-2" in found["home"]["says"]
    assert there.root in found["home"]["remedy"]
    assert found["agent"]["verdict"] == "note"


def test_doctor_finds_a_stream_that_could_lose_frames(
    capfd: pytest.CaptureFixture[str], home: Home, nats_server: Any
) -> None:
    """A stream of ours that drops its oldest frames is bad; one that does not exist yet is a note."""
    import asyncio

    import nats

    async def make() -> None:
        async with await nats.connect(nats_server.url) as client:
            await client.jetstream().add_stream(name="HR_EVENTS", subjects=["hr.v1.>"])

    asyncio.run(make())
    code, found = findings(capfd, "--home", home.root, "--nats", nats_server.url)
    assert code == 1
    assert found["stream"]["verdict"] == "bad"
    assert found["stream"]["says"].startswith("HR_EVENTS")
