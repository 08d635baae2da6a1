"""`headrace doctor`: looks at every part and says what to do about what is wrong. The checks are in `checks`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headrace.command.checks import Finding, Verdict, every_check
from headrace.command.console import out, plain, print_json
from headrace.command.options import HomeOption, JsonOption, NatsOption, StoreOption
from headrace.command.probes import access, broker
from headrace.command.running import running
from headrace.command.settings import UpSettings
from headrace.command.stores import absolute_store
from headrace.service.settings import load_settings
from headrace_proto.home import Home

_SHOWN = {Verdict.GOOD: "[green]good[/]", Verdict.NOTE: "[yellow]note[/]", Verdict.BAD: "[red]bad [/]"}


def doctor(
    home: HomeOption = None,
    store: StoreOption = None,
    nats: NatsOption = None,
    config: Annotated[Path | None, typer.Option(help="A settings file.")] = None,
    json: JsonOption = False,
) -> None:
    """Check this machine's home, store and broker; the exit code is 1 when something is bad."""
    settings = load_settings(UpSettings, "up", config, home=home, store=store, nats=nats)
    where = Home(settings.home)
    there = running(where)
    stored = there.store if there is not None and store is None else absolute_store(settings.store)
    found = list(every_check(where, stored, broker(access(settings, there, chosen=nats is not None)), there))
    if json:
        print_json([finding._asdict() for finding in found])
    else:
        _print(found)
    if any(finding.verdict is Verdict.BAD for finding in found):
        raise typer.Exit(1)


def _print(found: list[Finding]) -> None:
    console = out()
    for finding in found:
        console.print(f"{_SHOWN[finding.verdict]}  [bold]{finding.what:14}[/]{plain(finding.says)}", soft_wrap=True)
        if finding.remedy:
            console.print(f"{'':20}→ {plain(finding.remedy)}", soft_wrap=True)
