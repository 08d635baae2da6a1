"""The command `headrace collector`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headrace_collector.serving import serve


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
) -> None:
    """Store what agents publish as open files, until SIGTERM. Any number of collectors may share the work."""
    flags = {name: value for name, value in locals().items() if name != "config"}
    serve(config, **flags)


def main() -> None:
    """Run the command alone."""
    typer.run(collector)
