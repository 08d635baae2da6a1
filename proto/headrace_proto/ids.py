"""Identities: who is random, who is derived, and the token that places an experiment in a partition."""

from __future__ import annotations

import os
from binascii import crc32

from headrace_proto.limits import TOKENS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

ID_LENGTH: Final = 32
"""Experiment and source ids are 128 bits in lower-case hex: safe in a path, a NATS subject and an MQTT topic."""


def random_id() -> str:
    """A new id, 128 random bits. From the kernel, so that forked children and seeded generators cannot repeat one."""
    return os.urandom(16).hex()


def project_id(name: str) -> str:
    """A project's id, known without a network because it is derived from `workspace/name`."""
    from hashlib import sha256  # not above: it loads OpenSSL, 2 ms of every trainer's import

    return sha256(f"headrace project {name}".encode()).hexdigest()[:ID_LENGTH]


def derived_id(project: str, key: str) -> str:
    """The experiment that `key` means in the project `workspace/name`: the same from any rank, restart or machine.

    The first 128 bits of sha256(project id + ':' + key).
    """
    from hashlib import sha256

    return sha256(f"{project_id(project)}:{key}".encode()).hexdigest()[:ID_LENGTH]


def statepoint_id(params: dict[str, Any]) -> str:
    """The id that signac 2 gives to a state point, unique within a project only. Of the parameters as they are kept, masked: so
    that it can be computed again from the store, and says nothing of a secret.

    >>> statepoint_id({"a": 0})
    '9bfd29df07674bc4aa960cf661b5acd2'
    >>> statepoint_id({"a": 0.0})
    '81c9d4e753d6d76901b3987454967b84'
    """
    import json
    from hashlib import md5

    return md5(json.dumps(params, sort_keys=True).encode(), usedforsecurity=False).hexdigest()


def token(experiment: str) -> int:
    """The experiment's hash token, 0..255; it never changes, whatever the number of partitions."""
    return crc32(experiment.encode()) & (TOKENS - 1)


def is_id(text: str) -> bool:
    """Whether `text` is a whole experiment or source id."""
    return len(text) == ID_LENGTH and all(c in "0123456789abcdef" for c in text)
