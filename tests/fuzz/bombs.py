"""Small inputs that would become large: made here, because the repository should not hold them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgpack
import zstandard

from headrace_proto import frame
from headrace_proto.frame import Codec, Frame, FrameKind
from headrace_proto.ids import derived_id
from headrace_proto.limits import BATCH_RAW_MAX, MIB

EXPERIMENT: Final = derived_id("a/b", "fuzz")
SOURCE: Final = "a" * 32

MAPS: Final = b"\x80" * BATCH_RAW_MAX
"""As many events as bytes."""
MAPS_IN_AN_EVENT: Final = b"\x93\x0d\x01\xdd\x00\x08\x00\x00" + b"\x80" * (512 * 1024)
"""One event that would be half a million objects: 70 times its bytes, decoded."""
POINTS_OF_EMPTY_TEXT: Final = b"\x95\x07\x00\xc0\x01\xa0" * (BATCH_RAW_MAX // 6)
NESTED: Final = b"\x91" * 100_000 + b"\x80"
DECLARED: Final = (b"\x93\x0d\x01\xdf\xff\xff\xff\xff", b"\x93\x0d\x01\xc6\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff")


def framed(body: bytes, size: int | None = None, codec: Codec = Codec.NONE) -> bytes:
    """An EVENTS frame that says its body is `size` bytes."""
    end = len(body) if size is None else size
    return frame.encode(Frame(FrameKind.EVENTS, "a/b", EXPERIMENT, SOURCE, 0, end, body, codec))


def _squeezed(data: bytes, *, says_size: bool = True) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=says_size).compress(data)


def _frames() -> list[bytes]:
    honest = (bytes(BATCH_RAW_MAX), MAPS, MAPS_IN_AN_EVENT, POINTS_OF_EMPTY_TEXT, NESTED)
    return [
        *(framed(_squeezed(raw), len(raw), Codec.ZSTD) for raw in honest),
        framed(_squeezed(bytes(256 * MIB)), BATCH_RAW_MAX, Codec.ZSTD),
        framed(_squeezed(bytes(256 * MIB), says_size=False), BATCH_RAW_MAX, Codec.ZSTD),
        framed(_squeezed(bytes(1024)) + _squeezed(bytes(64 * MIB)), 1024, Codec.ZSTD),
    ]


def _batches() -> list[bytes]:
    return [MAPS, MAPS_IN_AN_EVENT, POINTS_OF_EMPTY_TEXT, NESTED, *DECLARED]


def _messages() -> list[bytes]:
    maps = msgpack.packb({"v": 1, "store": [{}] * 900_000})
    return [maps, b"\x82\xa1v\x01\xa5store" + b"\x91" * 900_000 + b"\x80", b"\x81\xa1v\xdd\xff\xff\xff\xff"]


def _documents() -> list[bytes]:
    return [b'{"format":1,"a":' + b"[" * 500_000, b'{"format":1,"tags":[' + b"{}," * 20_000 + b"{}]}"]


BOMBS: Final[dict[str, Callable[[], list[bytes]]]] = {
    "frame": _frames,
    "batch": _batches,
    "commit": _batches,
    "message": _messages,
    "document": _documents,
}
