"""Logs of the long-running parts: one line a record on standard error, for people or, as JSON, for machines.

Whoever reads logs reads no passwords: those of URLs are hidden, whatever a message or a traceback says.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Final

from headrace.service.secrets import masked

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class _Lines(logging.Formatter):
    """`2026-01-31T12:00:00.123Z info headrace_agent.tail: text key=value`."""

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        facts = "".join(f" {name}={value}" for name, value in _facts(record).items())
        line = f"{when}.{int(record.msecs):03d}Z {record.levelname.lower()} {record.name}: {record.getMessage()}{facts}"
        return masked(f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line)


class _Json(logging.Formatter):
    """One JSON object a line; what was given as `extra=` becomes its keys."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": record.created,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_facts(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return masked(json.dumps(line, default=str))


def _facts(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def told(error: BaseException) -> str:
    """What went wrong, for a log: the errors of nats-py have no `repr` of their own, and often no text."""
    return f"{type(error).__name__}: {error}".rstrip(": ")


def configure_logging(level: str = "info", *, json: bool = False) -> None:
    """Send the records of this process to standard error. Calling it again replaces the first call's settings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if json else _Lines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for chatty in ("botocore", "s3transfer", "asyncio", "nats"):
        logging.getLogger(chatty).setLevel(max(root.level, logging.WARNING))
