"""The frame: one message from an agent to the collectors, the same over NATS, MQTT or a file.

Invariants
1. A frame describes itself. Message headers are hints; nothing is read from them.
2. Its checksum covers header and body. A frame that fails it says nothing at all, not even whose it was: it never moves a
   watermark (the journal still holds the good bytes), it is put aside and asked for again.
3. Every length is bounded before a byte is allocated for it: the header by FRAME_HEADER_MAX, the body by its own end, the
   decompressed body by the size that the header declares and BATCH_RAW_MAX.
4. The body of an EVENTS frame is [first, end) of the source's journal as it stands, whole events, check events included.

Layout (integers little-endian)
    0   4   magic "HRF" + version
    4   2   header length h
    6   h   header: a msgpack map, keys below
    6+h     body
    -4  4   crc32 of everything before it

A version that a collector does not know is put into quarantine with its bytes, acknowledged, and never moves a watermark.
"""

from __future__ import annotations

from enum import StrEnum
from struct import Struct
from typing import Any, Final, NamedTuple
from zlib import crc32

import msgpack

from headrace_proto.errors import Corrupt, FormatUnknown
from headrace_proto.ids import is_id
from headrace_proto.limits import BATCH_RAW_MAX, CHUNK_BYTES, FRAME_BYTES_MAX, FRAME_HEADER_MAX

FRAME_VERSION: Final = 1
_MAGIC: Final = b"HRF"
_HEAD: Final = Struct("<3sBH")
_CRC: Final = Struct("<I")


class FrameKind(StrEnum):
    """What a frame carries."""

    EVENTS = "events"  # [first, end) of a journal
    LOST = "lost"  # [first, end) of a journal cannot be had any more: lets the watermark pass; `reason` says why
    DEAD = "dead"  # the writer is gone without a closing event; first == end == all that it wrote
    CHUNK = "chunk"  # [first, end) of a file of the source's spool


SOURCE_GONE: Final = "source gone"
"""Why a collector itself gives a range up: nobody had sent it, for longer than anyone was expected to take, or a person said so.
Unlike what an agent gives up, it may still lie in somebody's journal."""


ABORTED: Final = "abort: "
"""What the reason of a DEAD frame begins with, if the writer's end was asked for; the rest says by whom, and why."""


class Codec(StrEnum):
    """How the body is compressed."""

    NONE = "none"
    ZSTD = "zstd"


class Frame(NamedTuple):
    """A frame, opened. `body` is decompressed only by `raw_body`; of a frame that was decoded it is a view of the message."""

    kind: FrameKind
    project: str  # workspace/name: tells a collector where the experiment lies
    experiment: str
    source: str
    first: int
    end: int
    body: bytes | memoryview = b""
    codec: Codec = Codec.NONE
    flush: bool = False  # somebody waits: commit soon
    reason: str = ""  # LOST and DEAD
    file: str = ""  # CHUNK: the file's name in the spool
    size: int = 0  # CHUNK: the whole file's size
    sha256: str = ""  # CHUNK: the whole file's digest, known from its first chunk on
    site: str = ""  # where answers go: hr.w.<site>....

    @property
    def raw_size(self) -> int:
        """Bytes of the body once decompressed."""
        return self.end - self.first if self.kind in (FrameKind.EVENTS, FrameKind.CHUNK) else 0


_KEYS: Final = {
    "kind": "k",
    "project": "p",
    "experiment": "e",
    "source": "s",
    "first": "a",
    "end": "b",
    "codec": "c",
    "flush": "f",
    "reason": "r",
    "file": "n",
    "size": "z",
    "sha256": "d",
    "site": "t",
}
_DEFAULTS: Final[dict[str, Any]] = {**Frame._field_defaults, "codec": str(Codec.NONE)}
_SHORT: Final = tuple(_KEYS.get(name, "") for name in Frame._fields)
_ABSENT: Final = tuple(_DEFAULTS.get(name, ...) for name in Frame._fields)


def encode(frame: Frame) -> bytes:
    """The frame as bytes, `body` as it is (compress it first and name the codec)."""
    header = {short: value for short, value, default in zip(_SHORT, frame, _ABSENT, strict=True) if value != default}
    header.pop("", None)  # the body
    packed: bytes = msgpack.packb(header)
    if len(packed) > FRAME_HEADER_MAX:
        raise ValueError(f"a frame's header of {len(packed)} bytes is over {FRAME_HEADER_MAX}")
    data = _HEAD.pack(_MAGIC, FRAME_VERSION, len(packed)) + packed + frame.body
    if len(data) + _CRC.size > FRAME_BYTES_MAX:
        raise ValueError(f"a frame of {len(data) + _CRC.size} bytes is over {FRAME_BYTES_MAX}: cut the batch smaller")
    return data + _CRC.pack(crc32(data))


def decode(data: bytes) -> Frame:
    """The frame in `data`. Raises `Corrupt` when a byte is wrong, `FormatUnknown` on another version."""
    if len(data) > FRAME_BYTES_MAX or len(data) < _HEAD.size + _CRC.size:
        raise Corrupt(f"a frame of {len(data)} bytes is outside {_HEAD.size + _CRC.size}..{FRAME_BYTES_MAX}")
    magic, version, length = _HEAD.unpack_from(data)
    if magic != _MAGIC:
        raise Corrupt(f"a frame begins with {magic!r}, not {_MAGIC!r}")
    if crc32(memoryview(data)[: -_CRC.size]) != _CRC.unpack_from(data, len(data) - _CRC.size)[0]:
        raise Corrupt("a frame's checksum does not fit its bytes")
    if version != FRAME_VERSION:
        raise FormatUnknown(f"a frame of version {version}; this release knows {FRAME_VERSION}")
    body_at = _HEAD.size + length
    if length > FRAME_HEADER_MAX or body_at + _CRC.size > len(data):
        raise Corrupt(f"a frame's header of {length} bytes does not fit its {len(data)} bytes")
    return _checked(_header(data[_HEAD.size : body_at]), memoryview(data)[body_at : -_CRC.size])


def _header(packed: bytes) -> dict[str, Any]:
    try:
        header = msgpack.unpackb(packed, raw=False, max_map_len=len(_KEYS) * 2, max_str_len=FRAME_HEADER_MAX)
    except Exception as error:  # msgpack raises a handful of unrelated types on hostile bytes
        raise Corrupt(f"a frame's header does not decode: {error}") from error
    if not isinstance(header, dict):
        raise Corrupt("a frame's header is no map")
    return header


def _checked(header: dict[str, Any], body: memoryview) -> Frame:
    fields: dict[str, Any] = {"body": body}
    for name, short in _KEYS.items():
        value = header.get(short, _DEFAULTS.get(name))
        wanted = int if name in ("first", "end", "size") else bool if name == "flush" else str
        if type(value) is not wanted:
            raise Corrupt(f"a frame's {name} is {value!r}")
        fields[name] = value
    try:
        fields["kind"], fields["codec"] = FrameKind(fields["kind"]), Codec(fields["codec"])
    except ValueError as error:
        raise FormatUnknown(f"a frame of a kind or codec that this release does not know: {error}") from error
    frame = Frame(**fields)
    if not (is_id(frame.experiment) and is_id(frame.source)) or not 0 <= frame.first <= frame.end < 1 << 62:
        raise Corrupt(f"a frame names {frame.experiment!r}/{frame.source!r} [{frame.first}, {frame.end})")
    if frame.raw_size > (CHUNK_BYTES if frame.kind is FrameKind.CHUNK else BATCH_RAW_MAX):
        raise Corrupt(f"a {frame.kind} frame declares {frame.raw_size} bytes")
    return frame


def raw_body(frame: Frame) -> bytes:
    """The body, decompressed and of exactly `raw_size` bytes, else `Corrupt`. Needs zstandard for Codec.ZSTD."""
    if frame.codec is Codec.NONE:
        raw = bytes(frame.body)
    else:
        import zstandard

        try:
            # zstandard ignores max_output_size when the frame declares its own size: check what it declares first
            if zstandard.get_frame_parameters(frame.body).content_size != frame.raw_size:
                raise Corrupt(f"a body declares another size than its range of {frame.raw_size} bytes")
            raw = zstandard.ZstdDecompressor().decompress(
                frame.body, max_output_size=frame.raw_size, allow_extra_data=False
            )
        except zstandard.ZstdError as error:
            raise Corrupt(f"a frame's body does not decompress: {error}") from error
    if len(raw) != frame.raw_size:
        raise Corrupt(f"a body of {len(raw)} bytes claims the range [{frame.first}, {frame.end})")
    return raw
