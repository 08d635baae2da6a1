"""The command `headrace collector`."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from headrace.service.hiding import spare_pandas
from headrace.service.lifecycle import run_service
from headrace.service.logs import configure_logging
from headrace.service.settings import ENV_PREFIX, load_settings
from headrace_collector.collector import GOODBYE_S, Collector
from headrace_collector.settings import CollectorSettings
from headrace_collector.supervisor import ending_with, supervise
from headrace_proto.errors import HeadraceError


def collector(
    nats: Annotated[str | None, typer.Option(help="The broker's URL; several, with commas, for a cluster.")] = None,
    store: Annotated[str | None, typer.Option(help="Where experiments are kept: a folder, or a URL of fsspec.")] = None,
    home: Annotated[Path | None, typer.Option(help="The folder whose store and settings are used by default.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; each uses about one core.")] = None,
    partitions: Annotated[
        int | None, typer.Option(help="Shares of the experiments; the same for all collectors.")
    ] = None,
    replicas: Annotated[
        int | None, typer.Option(help="Copies of each stream that is made, in a cluster of nats-servers: 3.")
    ] = None,
    commit_interval_s: Annotated[
        float | None, typer.Option("--commit-interval", "--commit-interval-s", help="Seconds between commits.")
    ] = None,
    drain_s: Annotated[
        float | None, typer.Option("--drain", "--drain-s", help="Seconds a stop may commit for.")
    ] = None,
    credentials: Annotated[Path | None, typer.Option(help="A .creds file, or an nkey's seed.")] = None,
    tls_ca: Annotated[Path | None, typer.Option(help="The authority of the broker's certificate, PEM.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="This client's certificate, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key, PEM.")] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Of /metrics and /healthz; worker n has port + n. Any free one when not given.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A settings file, with a table [collector].")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    parent: Annotated[int | None, typer.Option(hidden=True, help="Stop when this parent process is gone.")] = None,
) -> None:
    """Store what agents publish as open files, until SIGTERM. Any number of collectors may share the work."""
    flags = {name: value for name, value in locals().items() if name not in ("config", "parent")}
    try:
        settings = load_settings(CollectorSettings, "collector", config, **flags)
        configure_logging(settings.log_level, json=settings.log_json)
        run_service(lambda stop: _serve(settings, parent, stop))
    except HeadraceError as error:
        print(f"headrace collector: {error}", file=sys.stderr)  # noqa: T201 - the command's own voice
        raise typer.Exit(1) from None


async def _serve(settings: CollectorSettings, parent: int | None, stop: asyncio.Event) -> None:
    if settings.workers == 1:
        spare_pandas()
        async with ending_with(parent, stop):
            await Collector(settings).run(stop)
        return
    command = [sys.executable, "-m", "headrace_collector", "--parent", str(os.getpid())]
    environments = [worker_environment(settings, number) for number in range(settings.workers)]
    await supervise(command, environments, stop, settings.drain_s + 2 * GOODBYE_S)


def worker_environment(settings: CollectorSettings, number: int) -> dict[str, str]:
    """What one worker of several is told: every setting as a variable, so that it reads none anew, from wherever it came."""
    port = settings.metrics_port + number if settings.metrics_port else 0
    told = {**settings.model_dump(exclude_none=True), "workers": 1, "metrics_port": port}
    return {**os.environ, **{f"{ENV_PREFIX}{name.upper()}": str(value) for name, value in told.items()}}


def main() -> None:
    """Run the command alone."""
    typer.run(collector)
