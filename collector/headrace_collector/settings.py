"""What a collector may be told: flags, HEADRACE_ variables, the table [collector] of the settings file."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from headrace.service.settings import ServiceSettings
from headrace_collector.pull import PARTITIONS_MAX
from headrace_proto.home import Home, store_url

WORKERS_MAX = 64
GOODBYE_S: Final = 5.0
"""For each step of a stop that talks to the broker."""


class CollectorSettings(ServiceSettings):
    """The settings of `headrace collector`."""

    store: str = Field(default_factory=lambda data: store_url(None, Home(data["home"])))
    workers: int = Field(default=1, ge=1, le=WORKERS_MAX)
    """Processes, each with leases of its own: one uses about one core."""
    partitions: int = Field(default=16, ge=1, le=PARTITIONS_MAX)
    """Shares of the experiments. All collectors of a broker must agree; change it by stopping them all."""
    replicas: int = Field(default=1, ge=1, le=5)
    """Of each stream, on as many nats-servers of a cluster, when this collector makes it. One that exists stays as it is."""
    commit_interval_s: float | None = Field(default=None, gt=0, le=3600)
    """Between two commits of an experiment; by default 0.5 s on a local store and 10 s on a remote one."""
    drain_s: float = Field(default=10.0, ge=0)
    """After a first SIGTERM: how long to go on committing what is here already. What is left comes again from the stream."""
