"""What a message's subject says. Permissions are given by subject, so it is believed before the frame is."""

from __future__ import annotations

from typing import NamedTuple

from headrace_proto.ids import is_id, token


class Address(NamedTuple):
    """Who sent a message, and whose it is."""

    site: str
    token: int
    experiment: str
    source: str

    @classmethod
    def of(cls, subject: str) -> Address | None:
        """The address in `hr.<stream>.<site>.<token>.<experiment>.<source>`; None if it is anything else."""
        parts = subject.split(".")
        if len(parts) != 6:
            return None
        site, number, experiment, source = parts[2:]
        if not (is_id(experiment) and is_id(source)) or number != str(token(experiment)):
            return None
        return cls(site, int(number), experiment, source)
