"""The bytes that may be held for frames not yet acknowledged: what bounds the agent's memory, whatever the backlog."""

from __future__ import annotations

from typing import Final

from headrace_proto.limits import MIB

EVENTS_IN_FLIGHT_BYTES: Final = 16 * MIB
"""Of frames of events, compressed. 4 to 16 batches of about 200 KiB saturate a broker; several sources share it."""
FILES_IN_FLIGHT_BYTES: Final = 8 * MIB
"""Of chunks of files, beside it, so that a checkpoint never stands in the way of a metric."""


class Budget:
    """Counts bytes held against a limit. It may be overdrawn by the one frame that was cut while there was room."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max: Final = bytes_max
        self.held = 0

    @property
    def room(self) -> bool:
        """Whether another frame may be cut."""
        return self.held < self.bytes_max

    def take(self, size: int) -> None:
        """Count `size` bytes as held."""
        self.held += size

    def give(self, size: int) -> None:
        """Count `size` bytes as free again."""
        assert size <= self.held, "more was given back than was taken"  # noqa: S101 - a bug of ours: the counter would let memory grow
        self.held -= size
