"""What must not be read over somebody's shoulder: a URL's user and password, in logs, in errors and in what health shows."""

from __future__ import annotations

import re
from typing import Final

HIDDEN: Final = "***"
_USERINFO: Final = re.compile(r"""([A-Za-z][A-Za-z0-9+.-]*://)[^\s/"'<>]+@""")


def masked(text: str) -> str:
    """`text` with what stands before the `@` of every URL in it hidden.

    >>> masked("nats://ann:secret@a:4222,nats://token@b:4222 and s3://bucket/x@y")
    'nats://***@a:4222,nats://***@b:4222 and s3://bucket/x@y'
    """
    return _USERINFO.sub(rf"\1{HIDDEN}@", text)
