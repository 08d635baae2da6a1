"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

StoreOption = Annotated[
    str | None,
    typer.Option("--store", help="The store; else $HEADRACE_STORE, that of the running `up`, or the home's folder."),
]
HomeOption = Annotated[Path | None, typer.Option("--home", help="The home; else $HEADRACE_HOME, else ~/.headrace.")]
ProjectOption = Annotated[str | None, typer.Option("--project", help="Look in this project only.")]
NatsOption = Annotated[str | None, typer.Option("--nats", help="The broker; else that of the running `up`.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
IdArgument = Annotated[
    str, typer.Argument(metavar="ID", help="DIG-7, or the internal id or the beginning of it, or the key.")
]
