"""The settings of `headrace up` and `headrace run`: flags, HEADRACE_ variables, the table [up] of the settings file."""

from __future__ import annotations

from pydantic import Field

from headrace.service.settings import ServiceSettings
from headrace_proto.home import Home, store_url


class UpSettings(ServiceSettings):
    """What `up` and `run` may be told."""

    store: str = Field(default_factory=lambda data: store_url(None, Home(data["home"])))
    nats_port: int = Field(default=0, ge=0, le=65_535)  # 0: any free one
