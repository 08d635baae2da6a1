"""A spool's files: payloads too large for an event, each with a small companion that says what it must be.

`<file>` is `<number>-<8 hex>`; `<file>.json` beside it holds its facts and is in place before the file is, so that an agent
which sees the file can name its size and digest from the first chunk on. The trainer computes the digest while it copies; a
file that was hard-linked (`copied` false) may still be written to by its owner, and then no longer fits it.
"""

from __future__ import annotations

import os

from headrace_proto.home import FILE_MODE, open_plain
from headrace_proto.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

COMPANION_SUFFIX: Final = ".json"
_FACTS_MAX: Final = 4096
_HEX: Final = frozenset("0123456789abcdef")


class SpoolFacts(Record):
    """What a spooled file must be."""

    size: int
    sha256: str
    copied: bool = True


def is_spool_file(name: str) -> bool:
    """Whether `name` is that of a spooled file, as against its companion or one still being written."""
    number, _, sign = name.partition("-")
    return (
        6 <= len(number) <= 12 and number.isascii() and number.isdecimal() and len(sign) == 8 and _HEX.issuperset(sign)
    )


def write_facts(path: str, facts: SpoolFacts) -> None:
    """Write the companion of the file that will be at `path`. To be called before that file is renamed into place."""
    import json

    descriptor = os.open(path + COMPANION_SUFFIX, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
    with open(descriptor, "w", encoding="utf-8") as file:
        json.dump(facts._asdict(), file)


def read_facts(path: str) -> SpoolFacts | None:
    """The facts of the file at `path`; None when its companion is absent or of no use."""
    try:
        import json

        with open(path + COMPANION_SUFFIX, encoding="utf-8", opener=open_plain) as file:
            facts = SpoolFacts(**json.loads(file.read(_FACTS_MAX)))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    sound = type(facts.size) is int and facts.size >= 0 and type(facts.sha256) is str and type(facts.copied) is bool
    return facts if sound else None
