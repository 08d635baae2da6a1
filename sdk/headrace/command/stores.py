"""Which store a command means."""

from __future__ import annotations

from headrace_proto.home import absolute_store

__all__ = ["absolute_store"]
