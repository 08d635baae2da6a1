"""What an agent may be told, by flags, HEADRACE_... variables or the table [agent] of a settings file."""

from __future__ import annotations

from pydantic import Field

from headrace.service.settings import ServiceSettings
from headrace_agent.ticks import STEADY_S
from headrace_proto.subjects import DEFAULT_SITE, PART

HARDWARE_S: float = 3.0
"""As Neptune's client had it."""
GRACE_S: float = 10.0
"""Orchestrators kill 10 to 30 s after SIGTERM."""
ABORT_GRACE_S: float = 5.0
"""As Neptune's client had it."""


class AgentSettings(ServiceSettings):
    """The settings of `headrace agent`."""

    site: str = Field(default=DEFAULT_SITE, pattern=PART)
    quota: int | None = Field(default=None, ge=1024 * 1024, description="bytes of journals and spools together")
    sync_s: float = Field(
        default=1.0,
        ge=STEADY_S,
        description="what is logged is stored or synced within this; more recent events may be lost with the power",
    )
    hardware_s: float = Field(default=HARDWARE_S, ge=0, description="seconds between hardware samples; 0 takes none")
    grace_s: float = Field(default=GRACE_S, ge=0, description="how long a stop may take to ship what is committed")
    abort_grace_s: float = Field(
        default=ABORT_GRACE_S, ge=0, description="from SIGTERM to SIGKILL, for processes that `headrace abort` ends"
    )
