"""Whether a running part is ready: the one question of `headrace up`; http.client would be a third of its process."""

from __future__ import annotations

import socket
from typing import Final

from headrace.service.ports import LOOPBACK

HTTP_S: Final = 2.0
_STATUS_BYTES: Final = 64
_QUESTION: Final = f"GET /readyz HTTP/1.0\r\nHost: {LOOPBACK}\r\n\r\n".encode()


def well(port: int) -> bool | None:
    """Whether a part says that it is well; None when it does not answer."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=HTTP_S) as connection:
            connection.sendall(_QUESTION)
            with connection.makefile("rb") as answer:
                words = answer.readline(_STATUS_BYTES).split()
    except OSError:
        return None
    return words[1] == b"200" if len(words) > 1 and words[0].startswith(b"HTTP/1.") else None
