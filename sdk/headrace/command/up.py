"""`headrace up`: everything that one machine needs, until Ctrl-C."""

from __future__ import annotations

import os
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from headrace.command.console import err, plain
from headrace.command.running import Running, lock_file, record_file, run_folder, serving_pid, write_record
from headrace.command.settings import UpSettings
from headrace.command.stack import Stack, Stopped
from headrace.command.stores import absolute_store
from headrace.service.settings import load_settings
from headrace_proto.errors import AlreadyRunning, HomeUnusable
from headrace_proto.home import HOME_VARIABLE, Home
from headrace_proto.journal import lock


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
    serve(Home(settings.home), absolute_store(settings.store), settings.nats_port, err())


def serve(home: Home, store: str, nats_port: int, console: Console) -> None:
    """Hold the home's lock and run the parts until a signal. Raises `AlreadyRunning`, `StartFailed` and what a home raises."""
    home.make()
    held = _lock(home)
    stack = Stack(home, store, nats_port, lambda text: console.print(f"[yellow]{plain(text)}[/]"))
    try:
        stack.start()
        write_record(home, stack.record())
        _greet(home, stack, console)
        stack.serve()
        console.print("stopping: the agent ships, the collector commits, then nats-server")
    except Stopped:
        pass
    finally:
        with suppress(FileNotFoundError):
            os.unlink(record_file(home))
        stack.stop()
        os.close(held)
    console.print("stopped")


def _lock(home: Home) -> int:
    try:
        run_folder(home)
        held = lock.take(lock_file(home))
    except OSError as error:
        raise HomeUnusable(f"the home {home.root!r} cannot be used: {error.strerror}") from error
    if held is None:
        raise AlreadyRunning(
            f"`headrace up` runs for {home.root} already, as process {serving_pid(home)}: stop that one first, or name "
            f"another home with --home or {HOME_VARIABLE}"
        )
    return held


def _greet(home: Home, stack: Stack, console: Console) -> None:
    record: Running = stack.record()
    console.print(f"[bold green]up[/]  home   {plain(home.root)}")
    console.print(f"    store  {plain(record.store)}")
    console.print(f"    nats   {record.nats}  process {stack.nats.pid}")
    console.print(f"    agent  http://127.0.0.1:{record.agent_port}/metrics  process {stack.agent.pid}")
    console.print(f"    collector  http://127.0.0.1:{record.collector_port}/metrics  process {stack.collector.pid}")
    console.print(f"    logs   {plain(os.path.join(home.root, 'log'))}")
    if home.named != Home("~/.headrace").named:
        console.print(f"trainers: [bold]export {HOME_VARIABLE}={plain(shlex.quote(home.named))}[/]")
    console.print("Ctrl-C stops")
