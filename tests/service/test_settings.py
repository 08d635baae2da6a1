"""Settings: which of flag, variable, file and default holds, and what a mistake is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydantic import Field

from headrace.service.settings import ServiceSettings, load_settings
from headrace_proto.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


class AgentLike(ServiceSettings):
    site: str = "local"
    batches: int = Field(default=16, ge=1)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "settings.toml"
    file.write_text('nats = "nats://file:4222"\n[agent]\nsite = "hall"\nbatches = 4\n[collector]\nworkers = 3\n')
    return file


def test_defaults_hold_where_nothing_is_set() -> None:
    """With no flag, variable or file, every setting is its default, and the home is HEADRACE_HOME."""
    settings = load_settings(AgentLike, "agent")
    assert (settings.site, settings.batches, settings.nats) == ("local", 16, "nats://127.0.0.1:4222")


def test_variables_of_others_are_not_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """$HOME is not the home, and $NATS, $SITE or $BATCHES of somebody else's program set nothing, nor are they refused."""
    monkeypatch.delenv("HEADRACE_HOME")
    for name, value in {"HOME": str(tmp_path), "NATS": "nats://other:1", "SITE": "other", "BATCHES": "many"}.items():
        monkeypatch.setenv(name, value)
    settings = load_settings(AgentLike, "agent")
    assert (settings.home, settings.nats, settings.site) == (tmp_path / ".headrace", "nats://127.0.0.1:4222", "local")


def test_file_gives_shared_and_own_settings(config: Path) -> None:
    """What stands above the tables holds for all parts, the part's own table for it alone."""
    settings = load_settings(AgentLike, "agent", config)
    assert (settings.nats, settings.site, settings.batches) == ("nats://file:4222", "hall", 4)


def test_flag_beats_variable_beats_file(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag holds over a variable, a variable over the file."""
    monkeypatch.setenv("HEADRACE_SITE", "from-variable")
    monkeypatch.setenv("HEADRACE_NATS", "nats://variable:4222")
    settings = load_settings(AgentLike, "agent", config, site="from-flag", batches=None)
    assert (settings.site, settings.nats, settings.batches) == ("from-flag", "nats://variable:4222", 4)


def test_own_table_beats_what_stands_above(tmp_path: Path) -> None:
    """A part's own table holds over a shared setting of the same name."""
    file = tmp_path / "s.toml"
    file.write_text('log_level = "error"\n[agent]\nlog_level = "debug"\n')
    assert load_settings(AgentLike, "agent", file).log_level == "debug"


def test_empty_variable_is_no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """HEADRACE_SITE= does not set an empty site."""
    monkeypatch.setenv("HEADRACE_SITE", "")
    assert load_settings(AgentLike, "agent").site == "local"


def test_headrace_toml_of_the_home_is_found(tmp_path: Path) -> None:
    """Without --config, headrace.toml in the home is read."""
    (tmp_path / "headrace.toml").write_text('[agent]\nsite = "home-file"\n')
    assert load_settings(AgentLike, "agent", home=tmp_path).site == "home-file"


def test_config_variable_names_the_file(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HEADRACE_CONFIG names the file when --config does not."""
    monkeypatch.setenv("HEADRACE_CONFIG", str(config))
    assert load_settings(AgentLike, "agent").site == "hall"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[agent]\nsiet = 'x'\n", ["siet", "unknown", "site"]),
        ("storee = 'x'\n", ["storee", "[agent]"]),
        ("[agent]\nbatches = 0\n", ["batches", "0", "greater than or equal to 1"]),
        ("[agent]\nbatches = 'many'\n", ["batches", "many", "integer"]),
        ("agent = 3\n", ["agent", "table"]),
        ("log_level = 'loud'\n", ["log_level", "loud"]),
        ("[agent\n", ["cannot be read"]),
    ],
)
def test_mistake_in_the_file_is_named(tmp_path: Path, text: str, words: list[str]) -> None:
    """An unknown key, a wrong value and broken TOML each name the key and the file."""
    file = tmp_path / "broken.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings(AgentLike, "agent", file)
    for word in [*words, "broken.toml"]:
        assert word in str(caught.value)


def test_mistake_in_a_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong value in the environment names its variable."""
    monkeypatch.setenv("HEADRACE_BATCHES", "many")
    with pytest.raises(ConfigError, match=r"\$HEADRACE_BATCHES is 'many'"):
        load_settings(AgentLike, "agent")


def test_mistake_in_a_flag_is_named() -> None:
    """A wrong value of a flag names the flag as it is typed."""
    with pytest.raises(ConfigError, match="--metrics-port is 70000"):
        load_settings(AgentLike, "agent", metrics_port=70_000)


def test_missing_file_is_named(tmp_path: Path) -> None:
    """A settings file that was named and does not exist is an error, not silently the defaults."""
    with pytest.raises(ConfigError, match=r"gone\.toml"):
        load_settings(AgentLike, "agent", tmp_path / "gone.toml")
