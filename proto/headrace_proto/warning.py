"""Warnings that never become exceptions inside a training loop."""

from __future__ import annotations

import sys
import warnings  # now: a process without a descriptor left cannot even import

from headrace_proto.errors import TelemetryWarning

_PACKAGES = ("headrace.", "headrace_proto.")


def warn(message: str, category: type[UserWarning] = TelemetryWarning) -> None:
    """Warn at the line of the caller's own code. Under `-W error` the message goes to stderr: telemetry breaks nothing."""
    level, frame = 1, sys._getframe(0)  # to find the line that is the caller's
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_PACKAGES):
        level, frame = level + 1, frame.f_back
    try:
        warnings.warn(message, category, stacklevel=level)
    except category:
        print(message, file=sys.stderr)  # noqa: T201
