"""`headrace up`: everything that one machine needs, until Ctrl-C.

What reads flags and settings takes 30 MiB that a supervisor has no use for. So this process becomes another program, `supervisor`,
once it knows what to run.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from headrace.command import signals
from headrace.command.settings import UpSettings
from headrace.command.stack import SIGNALS
from headrace.command.stores import absolute_store
from headrace.command.supervisor import command
from headrace.service.settings import load_settings
from headrace_proto.home import Home


def up(
    home: Annotated[Path | None, typer.Option(help="The folder of journals, logs and the default store.")] = None,
    store: Annotated[str | None, typer.Option(help="Where experiments are kept: a folder, s3://..., gs://...")] = None,
    nats_port: Annotated[int | None, typer.Option(help="Of the nats-server; any free one when not given.")] = None,
    config: Annotated[Path | None, typer.Option(help=r"A settings file; tables \[up], \[agent], \[collector].")] = None,
) -> None:
    """Run nats-server, agent and collector on this machine, until Ctrl-C."""
    settings = load_settings(UpSettings, "up", config, home=home, store=store, nats_port=nats_port)
    if config is not None:
        os.environ["HEADRACE_CONFIG"] = str(config.resolve())  # for the children
    program = command(Home(settings.home).named, absolute_store(settings.store), settings.nats_port)
    signals.block(SIGNALS)  # whoever stops us from here on is heard by the supervisor
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(program[0], program)  # noqa: S606 - our own interpreter
