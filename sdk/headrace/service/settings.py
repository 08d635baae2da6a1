"""Settings of the long-running parts: flags, then HEADRACE_... variables, then one TOML file, then defaults.

The file is --config, else $HEADRACE_CONFIG, else headrace.toml in the home. It has one table a part, and what all parts share
may stand above the tables:

    nats = "nats://10.0.0.5:4222"
    [agent]
    site = "hall-3"
    [collector]
    store = "s3://bucket/runs"

A key that nobody knows is refused, and so is a wrong value; the message says where it was set.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from headrace.service.secrets import masked
from headrace.service.tls import Tls
from headrace_proto.errors import ConfigError
from headrace_proto.home import HOME_VARIABLE, Home

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

ENV_PREFIX: Final = "HEADRACE_"
CONFIG_VARIABLE: Final = "HEADRACE_CONFIG"
TABLES: Final = ("agent", "collector", "up")
DEFAULT_NATS: Final = "nats://127.0.0.1:4222"


class ServiceSettings(BaseModel):
    """What every long-running part may be told. A part's own settings are a subclass."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    home: Path = Field(default_factory=lambda: Path(Home().named))
    nats: str = DEFAULT_NATS
    credentials: Path | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    metrics_host: str = "127.0.0.1"
    metrics_port: int = Field(default=0, ge=0, le=65_535)  # 0: any free one
    metrics_token_file: Path | None = None
    metrics_open: bool = False
    log_level: str = Field(default="info", pattern="^(?i:debug|info|warning|error)$")
    log_json: bool = False

    @property
    def credentials_file(self) -> str | None:
        """The file of credentials, if one is named."""
        return os.fspath(self.credentials) if self.credentials else None

    @property
    def tls(self) -> Tls:
        """The files of TLS."""
        ca, cert, key = (os.fspath(file) if file else None for file in (self.tls_ca, self.tls_cert, self.tls_key))
        return Tls(ca, cert, key)


SHARED: Final = frozenset(ServiceSettings.model_fields)
"""Settings that may stand above the tables."""

_Settings = TypeVar("_Settings", bound=ServiceSettings)


def load_settings(cls: type[_Settings], table: str, config: Path | None = None, **flags: Any) -> _Settings:
    """The settings of the part `table`. A flag that is None was not given. Raises `ConfigError`."""
    given = {name: value for name, value in flags.items() if value is not None}
    file = _file(config, given.get("home"))
    from_file = _table(cls, table, file) if file else {}
    from_environment = _environment(cls)
    try:
        return cls(**{**from_file, **from_environment, **given})
    except ValidationError as error:
        raise ConfigError(
            "; ".join(_explain(fault, given, from_environment, file) for fault in error.errors())
        ) from None


def _file(config: Path | None, home: Any) -> Path | None:
    named = config or os.environ.get(CONFIG_VARIABLE)
    if named:
        path = Path(named).expanduser()
        if not path.is_file():
            raise ConfigError(f"the settings file {str(path)!r} does not exist: correct --config or ${CONFIG_VARIABLE}")
        return path
    default = Path(Home(home).settings_file)
    return default if default.is_file() else None


def _table(cls: type[ServiceSettings], table: str, file: Path) -> dict[str, Any]:
    try:
        whole = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"the settings file {str(file)!r} cannot be read: {error}") from error
    shared = {name: value for name, value in whole.items() if name not in TABLES}
    for name in shared:
        if name not in SHARED:
            raise ConfigError(
                f"{name!r} in {file} is no setting that all parts share: the tables are [{'], ['.join(TABLES)}], "
                f"above them may stand {', '.join(sorted(SHARED))}"
            )
    own = whole.get(table, {})
    if not isinstance(own, dict):
        raise ConfigError(f"{table!r} in {file} must be a table: write [{table}]")
    for name in own:
        if name not in cls.model_fields:
            raise ConfigError(
                f"[{table}] {name!r} in {file} is unknown: the settings are {', '.join(sorted(cls.model_fields))}"
            )
    return {**shared, **own}


def _environment(cls: type[ServiceSettings]) -> dict[str, str]:
    """What variables say. An empty one says nothing. (pydantic-settings reads them too, at a price that every part pays.)"""
    names = {name: f"{ENV_PREFIX}{name.upper()}" for name in cls.model_fields}
    return {name: value for name, variable in names.items() if (value := os.environ.get(variable))}


def _explain(fault: ErrorDetails, flags: Mapping[str, Any], environment: Mapping[str, Any], file: Path | None) -> str:
    name = str(fault["loc"][0]) if fault["loc"] else "settings"
    if name in flags:
        origin = f"--{name.replace('_', '-')}"
    elif name in environment:
        origin = f"${ENV_PREFIX}{name.upper()}"
    else:
        origin = f"{name!r} in {file}"
    return f"{origin} is {masked(repr(fault['input']))}: {fault['msg'][:1].lower()}{fault['msg'][1:]}"


def known_variables() -> frozenset[str]:
    """Every HEADRACE_ variable that all long-running parts read, so that `headrace doctor` can point at a misspelt one."""
    shared = {f"{ENV_PREFIX}{name.upper()}" for name in SHARED}
    return frozenset({HOME_VARIABLE, CONFIG_VARIABLE, *shared})
