"""The examples of deploy/: what they say is what our programs and nats-server understand."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import nkeys
import pytest
import yaml

from headrace.command.main import invoke
from headrace.service.broker_config import Keys, accounts, server
from headrace.service.nats_server import find_binary
from headrace.service.settings import load_settings
from headrace_agent.settings import AgentSettings
from headrace_collector.settings import CollectorSettings
from tests.service.authority import Authority

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


KEYS = Keys("$COLLECTOR_NKEY", "$OPERATOR_NKEY", {"hall-3": "$AGENT_HALL3_NKEY", "hall-4": "$AGENT_HALL4_NKEY"})
HOSTS = [f"nats-{number}.example.org" for number in range(3)]


def test_example_of_a_broker_is_what_the_command_writes() -> None:
    """deploy/nats says what `headrace deploy nats-config` writes, with names in place of keys."""
    assert (DEPLOY / "nats" / "nats-server.conf").read_text() == server(HOSTS)
    assert (DEPLOY / "nats" / "accounts.conf").read_text() == accounts(KEYS)


def with_certificates(folder: Path, config: Path) -> Path:
    """The configuration, with certificates that are there in place of those in /etc."""
    tls = Authority(folder / "authority").issue("server")
    text = config.read_text()
    for name, path in (("server.pem", tls.cert), ("server.key", tls.key), ("ca.pem", tls.ca)):
        text = text.replace(f"/etc/nats/{name}", str(path))
    config.write_text(text)
    return config


def checked(config: Path, **environment: str) -> str:
    """What nats-server says to a configuration that it only looks at."""
    environment = {**os.environ, "NATS_NAME": "nats-0", **environment}
    done = subprocess.run([find_binary(), "-t", "-c", str(config)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_nats_configuration_is_valid(tmp_path: Path) -> None:
    """nats-server takes the example as it stands."""
    for file in ("nats-server.conf", "accounts.conf"):
        (tmp_path / file).write_text((DEPLOY / "nats" / file).read_text())
    names = [KEYS.collector, KEYS.operator, *KEYS.sites.values()]
    pairs = {name[1:]: nkeys.from_seed(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)) for name in names}
    public = {name: pair.public_key.decode() for name, pair in pairs.items()}
    assert "is valid" in checked(with_certificates(tmp_path, tmp_path / "nats-server.conf"), **public)


# -- headrace deploy nats-config -----------------------------------------------------------------------------------------


def nats_config(folder: Path, *more: str) -> int:
    return invoke(["deploy", "nats-config", "--out", str(folder), *more])


def test_command_writes_a_configuration_that_nats_server_takes(tmp_path: Path) -> None:
    """Out of the command, for a cluster with TLS: nats-server starts with it once it has its certificates."""
    folder = tmp_path / "nats"
    hosts = [word for host in HOSTS for word in ("--server", host)]
    assert nats_config(folder, "--site", "hall-3", "--site", "hall-4", *hosts) == 0
    assert "is valid" in checked(with_certificates(tmp_path, folder / "nats-server.conf"))


def test_seeds_are_secret_and_belong_to_the_configuration(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Each role's seed is in a file of its own that nobody else may read, and is printed nowhere; its key is configured."""
    folder = tmp_path / "nats"
    assert nats_config(folder, "--site", "hall-3", "--no-tls") == 0
    said = capfd.readouterr()
    config = (folder / "accounts.conf").read_text()
    for name in ("collector.nk", "operator.nk", "agent-hall-3.nk"):
        seed = (folder / name).read_bytes()
        assert (folder / name).stat().st_mode & 0o777 == 0o600
        assert nkeys.from_seed(seed).public_key.decode() in config
        assert str(folder / name) in said.out
        assert not any(
            seed.decode() in text for text in (said.out, said.err, config, (folder / "nats-server.conf").read_text())
        )


def test_nothing_is_ever_replaced_and_a_site_can_be_added(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A file that is there stays as it is; with the old accounts moved away, the keys that are there are used again."""
    folder = tmp_path / "nats"
    assert nats_config(folder, "--site", "hall-3", "--no-tls") == 0
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert nats_config(folder, "--site", "hall-3", "--site", "hall-4", "--no-tls") == 2
    assert "accounts.conf" in capfd.readouterr().err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    (folder / "accounts.conf").rename(folder / "accounts.old")
    assert nats_config(folder, "--site", "hall-3", "--site", "hall-4", "--no-tls") == 0
    assert (folder / "agent-hall-3.nk").read_bytes() == before["agent-hall-3.nk"]
    config = (folder / "accounts.conf").read_text()
    assert all(nkeys.from_seed(path.read_bytes()).public_key.decode() in config for path in folder.glob("*.nk"))


def test_link_in_the_place_of_a_seed_is_not_followed(tmp_path: Path) -> None:
    """A link that waits where a seed will be written leads nowhere."""
    folder = tmp_path / "nats"
    folder.mkdir()
    (folder / "collector.nk").symlink_to(tmp_path / "elsewhere")
    assert nats_config(folder, "--site", "hall-3") != 0
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    "flags",
    [
        ["--site", "a.b"],
        ["--site", ">"],
        ["--site", "*"],
        ["--site", "../x"],
        ["--site", 'x"}'],
        ["--site", ""],
        ["--site", "a", "--site", "a"],
        ["--site", "a", "--server", 'x"\n'],
        ["--site", "a", "--server", "x", "--server", "y", "--no-tls"],
    ],
)
def test_name_that_means_more_is_refused(tmp_path: Path, flags: list[str]) -> None:
    """A site or host that would be another subject, path or line of the configuration is refused, and nothing is made."""
    assert nats_config(tmp_path / "nats", *flags) == 2
    assert not (tmp_path / "nats").exists()
