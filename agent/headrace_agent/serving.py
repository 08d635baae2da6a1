"""An agent's whole life in a process of its own: from its settings to its exit code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from headrace.service.lifecycle import run_service
from headrace.service.logs import configure_logging
from headrace.service.settings import load_settings
from headrace_agent.agent import Agent
from headrace_agent.settings import AgentSettings
from headrace_proto.errors import HeadraceError


def serve(config: Path | None = None, **flags: Any) -> None:
    """Run the agent that flags, variables and file mean, until SIGTERM. What it cannot live with is one line, and code 1."""
    try:
        settings = load_settings(AgentSettings, "agent", config, **flags)
        configure_logging(settings.log_level, json=settings.log_json)
        run_service(lambda stop: Agent(settings).run(stop))
    except HeadraceError as error:
        print(f"headrace agent: {error}", file=sys.stderr)  # noqa: T201 - the command's own voice
        sys.exit(1)
