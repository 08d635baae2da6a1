"""Values as strict JSON: what JSON cannot say is said by a map with one `$` key, so that every document has one reading.

>>> plain({"lr": float("inf"), "layers": [1, 2]})
{'lr': {'$float': 'inf'}, 'layers': [1, 2]}
>>> unplain({"$float": "-inf"})
-inf
"""

from __future__ import annotations

import base64
from math import isfinite
from typing import Any, Final

FLOAT: Final = "$float"
BYTES: Final = "$bytes"
DEPTH_MAX: Final = 32
"""Deeper values come only from hostile bytes: msgpack nests a thousand deep, which would exhaust Python's own stack."""


def plain_float(value: float) -> float | dict[str, str]:
    """A float that strict JSON can hold."""
    return value if isfinite(value) else {FLOAT: repr(value)}


def plain(value: Any, depth: int = 0) -> Any:
    """What msgpack can hold as what strict JSON can hold. Keys become text; what nests too deep becomes None."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return plain_float(value)
    if isinstance(value, bytes):
        return {BYTES: base64.b64encode(value).decode()}
    if depth >= DEPTH_MAX:
        return None
    if isinstance(value, dict):
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, depth + 1) for item in value]
    return str(value)


def unplain(value: Any) -> Any:
    """The inverse of `plain` for a value read from a document."""
    if isinstance(value, dict):
        if len(value) == 1:
            (key, item), *_ = value.items()
            if key == FLOAT and item in ("nan", "inf", "-inf"):
                return float(item)
            if key == BYTES and isinstance(item, str):
                return base64.b64decode(item)
        return {key: unplain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [unplain(item) for item in value]
    return value
