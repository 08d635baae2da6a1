"""The command `headrace agent`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headrace_agent.serving import serve


def agent(
    nats: Annotated[str | None, typer.Option(help="The broker's URL; several, with commas, for a cluster.")] = None,
    home: Annotated[Path | None, typer.Option(help="The folder of the journals.")] = None,
    site: Annotated[str | None, typer.Option(help="This site's name in subjects.")] = None,
    credentials: Annotated[Path | None, typer.Option(help="A .creds file, or an nkey's seed.")] = None,
    tls_ca: Annotated[Path | None, typer.Option(help="The authority of the broker's certificate, PEM.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="This client's certificate, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key, PEM.")] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Of /metrics and /healthz; any free one when not given.")
    ] = None,
    quota: Annotated[int | None, typer.Option(help="Bytes that journals and spools may take.")] = None,
    hardware_interval: Annotated[float | None, typer.Option(help="Seconds between samples; 0 for none.")] = None,
    grace: Annotated[float | None, typer.Option(help="Seconds that a stop may take to ship what is committed.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="A settings file; what it says of the agent stands in its table 'agent'.")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
) -> None:
    """Ship this node's journals and files to the broker, and sample its hardware, until SIGTERM."""
    serve(
        config,
        nats=nats,
        home=home,
        site=site,
        credentials=credentials,
        tls_ca=tls_ca,
        tls_cert=tls_cert,
        tls_key=tls_key,
        metrics_port=metrics_port,
        quota=quota,
        hardware_s=hardware_interval,
        grace_s=grace,
        log_level=log_level,
    )


def main() -> None:
    """Run the command alone."""
    typer.run(agent)
