"""A collector's whole life in a process of its own, or in several: from its settings to its exit code."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from headrace.service.haste import in_haste
from headrace.service.hiding import load_arrow
from headrace.service.lifecycle import run_service
from headrace.service.logs import configure_logging
from headrace.service.settings import ENV_PREFIX, load_settings
from headrace_collector.settings import GOODBYE_S, CollectorSettings
from headrace_collector.supervisor import ending_with, supervise
from headrace_proto.errors import HeadraceError

PARENT: Final = "--parent"
"""A worker's only flag: its parent's process id. It stops when that is gone."""


def serve(config: Path | None = None, *, parent: int | None = None, **flags: Any) -> None:
    """Run the collector that flags, variables and file mean, until SIGTERM. What it cannot live with is one line, and code 1."""
    try:
        settings = load_settings(CollectorSettings, "collector", config, **flags)
        configure_logging(settings.log_level, json=settings.log_json)
        run_service(_worker(settings, parent) if settings.workers == 1 else _watcher(settings))
    except HeadraceError as error:
        print(f"headrace collector: {error}", file=sys.stderr)  # noqa: T201 - the command's own voice
        sys.exit(1)


def _worker(settings: CollectorSettings, parent: int | None) -> Callable[[asyncio.Event], Awaitable[None]]:
    with in_haste():
        load_arrow()
        from headrace_collector.collector import Collector  # whoever only watches workers has no use for Arrow

    async def work(stop: asyncio.Event) -> None:
        async with ending_with(parent, stop):
            await Collector(settings).run(stop)

    return work


def _watcher(settings: CollectorSettings) -> Callable[[asyncio.Event], Awaitable[None]]:
    command = [sys.executable, "-m", "headrace_collector", PARENT, str(os.getpid())]
    environments = [worker_environment(settings, number) for number in range(settings.workers)]
    return lambda stop: supervise(command, environments, stop, settings.drain_s + 2 * GOODBYE_S)


def worker_environment(settings: CollectorSettings, number: int) -> dict[str, str]:
    """What one worker of several is told: every setting as a variable, so that it reads none anew, from wherever it came."""
    port = settings.metrics_port + number if settings.metrics_port else 0
    told = {**settings.model_dump(exclude_none=True), "workers": 1, "metrics_port": port}
    return {**os.environ, **{f"{ENV_PREFIX}{name.upper()}": str(value) for name, value in told.items()}}
