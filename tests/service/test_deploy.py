"""The examples of deploy/: what they say is what our programs and nats-server understand."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import nkeys
import pytest
import yaml

import headrace as hr
from headrace.command.main import invoke
from headrace.reading import StoredProject
from headrace.service.broker import connect
from headrace.service.nats_server import NatsServer, find_binary
from headrace.service.settings import load_settings
from headrace_agent.settings import AgentSettings
from headrace_collector.settings import CollectorSettings
from headrace_proto import subjects
from headrace_proto.home import Home
from tests.waiting import wait_until

DEPLOY = Path(__file__).parent.parent.parent / "deploy"


def command_lines() -> Iterator[list[str]]:
    """Every command line of ours in the examples, without the program's name."""
    for unit in DEPLOY.glob("systemd/*.service"):
        for line in re.findall(r"^ExecStart=\S+/headrace (.*)$", unit.read_text(), re.MULTILINE):
            yield shlex.split(line)
    for page in DEPLOY.glob("kubernetes/*.yaml"):
        for document in yaml.safe_load_all(page.read_text()):
            for container in document["spec"]["template"]["spec"]["containers"]:
                yield container["args"]


def test_examples_use_flags_that_there_are(capfd: pytest.CaptureFixture[str]) -> None:
    """Each example starts agent or collector with flags that its help page has."""
    lines = list(command_lines())
    assert sorted(line[0] for line in lines) == ["agent", "agent", "collector", "collector"]
    for name, *arguments in lines:
        assert invoke([name, "--help"]) == 0
        page = capfd.readouterr().out
        for flag in (word for word in arguments if word.startswith("--")):
            assert f"{flag} " in page


def test_settings_file_is_understood() -> None:
    """The example's settings file has only keys and values that agent and collector take."""
    file = DEPLOY / "systemd" / "headrace.toml"
    assert load_settings(AgentSettings, "agent", file).site == "hall-3"
    assert load_settings(CollectorSettings, "collector", file).store == "s3://experiments/headrace"


class Keys:
    """An nkey for each user of users.conf: the public half in the environment, the seed in a file."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        for byte, name in (b"a", "AGENT_HALL3_NKEY"), (b"c", "COLLECTOR_NKEY"):
            pair = nkeys.from_seed(nkeys.encode_seed(32 * byte, nkeys.PREFIX_BYTE_USER))
            monkeypatch.setenv(name, pair.public_key.decode())
            self.file(name).write_bytes(pair.seed)

    def file(self, name: str) -> Path:
        return self.folder / f"{name}.nk"


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keys:
    return Keys(tmp_path, monkeypatch)


def test_nats_configuration_is_valid(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    """nats-server takes the example as it stands."""
    monkeypatch.setenv("NATS_NAME", "nats-0")
    done = subprocess.run(
        [find_binary(), "-t", "-c", str(DEPLOY / "nats" / "nats-server.conf")], capture_output=True, text=True
    )
    assert (done.returncode, "is valid" in done.stdout + done.stderr) == (0, True), done.stderr


@pytest.fixture
def guarded(start_nats: Callable[..., NatsServer], keys: Keys, tmp_path: Path) -> NatsServer:
    """A real server with the example's users."""
    folder = tmp_path / "guarded"
    folder.mkdir()
    (folder / "users.conf").write_text((DEPLOY / "nats" / "users.conf").read_text())
    return start_nats("guarded", extra="include users.conf")


def test_rights_of_the_examples_users_are_enough(guarded: NatsServer, keys: Keys, home: Home, store: str) -> None:
    """An agent and a collector with nothing but the example's rights bring an experiment with a large file into the store."""
    environment = {**os.environ, "HEADRACE_HOME": home.root, "HEADRACE_NATS": guarded.url}

    def start(part: str, key: str, *flags: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "headrace.command", part, "--credentials", str(keys.file(key)), *flags]
        return subprocess.Popen(command, env=environment)

    with hr.init("work/guarded", home=home.root).create_experiment() as experiment:
        experiment.log_metric("loss", 0, 0.5)
        experiment.log_text("long", "x" * 100_000)
    parts = [
        start("collector", "COLLECTOR_NKEY", "--store", store),
        start("agent", "AGENT_HALL3_NKEY", "--site", "hall-3"),
    ]
    try:
        wait_until(lambda: not os.listdir(home.journals), "the journal is stored and deleted")
    finally:
        for part in parts:
            part.terminate()
        for part in parts:
            part.wait(30)
    found = StoredProject(store, "work/guarded").get_experiment(experiment.internal_id)
    assert found.metrics["loss"] == 0.5


async def test_agents_rights_end_at_its_site(guarded: NatsServer, keys: Keys) -> None:
    """With an agent's key nothing can be published for another site, and no stream be touched."""
    heard: list[str] = []
    key = str(keys.file("AGENT_HALL3_NKEY"))
    client = await connect(guarded.url, name="test", credentials=key, on_event=heard.append)
    for subject in (subjects.events("hall-4", "0" * 32, "1" * 32), "$JS.API.STREAM.DELETE.HR_EVENTS"):
        heard.clear()
        await client.publish(subject, b"x")
        await client.flush()
        while not any("permissions violation" in line.lower() for line in heard):
            await asyncio.sleep(0.01)
    await client.close()
