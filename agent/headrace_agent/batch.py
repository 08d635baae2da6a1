"""Cutting: what stands in a journal at a source's cursor becomes one frame, byte for byte.

No value is decoded. The reader hands out whole, verified events, or says what is damaged; this adds compression and the envelope.
"""

from __future__ import annotations

import os
from typing import Final

import zstandard

from headrace_agent.source import DEAD_LABEL, Source
from headrace_proto.frame import ABORTED, Codec, Frame, FrameKind, encode
from headrace_proto.home import FILE_MODE, FOLDER_MODE, Home
from headrace_proto.journal import Damage
from headrace_proto.limits import BATCH_RAW_TARGET, FRAME_BYTES_MAX, FRAME_HEADER_MAX

ZSTD_LEVEL: Final = 1
"""710 MB/s, 14.6 bytes a point; the store compresses again, so the level only spares the network."""
COMPRESS_FROM: Final = 256
"""Below, a zstd frame is about as long as what it holds."""
WORTH: Final = 0.9
"""Rows of noisy values shrink by a twentieth, and to unpack them would cost a collector a quarter of what it spends on them."""

TRIMMED: Final = "trimmed"
"""Why a range is lost that the store once vouched for: it was put back to an older state, and the journal had been freed."""


def raw_bytes_max(message_bytes_max: int) -> int:
    """Raw bytes that make a frame which the broker takes even if nothing can be compressed."""
    return min(BATCH_RAW_TARGET, min(message_bytes_max, FRAME_BYTES_MAX) - FRAME_HEADER_MAX)


class Cutter:
    """Makes frames. One compressor for all of them: its tables are as large as a batch."""

    def __init__(self, home: Home, site: str) -> None:
        self._home = home
        self._site = site
        self._compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)

    def cut(self, source: Source, bytes_max: int, now_ns: int) -> Frame | None:
        """The next frame of a source, which it then counts as cut; None when nothing can be cut now.

        Raises what the reader raises on segments that it cannot believe.
        """
        first = source.window.cut
        found = source.wake().read(first, bytes_max)
        if isinstance(found, Damage):
            frame = self._lost(source, found)
        elif found:
            frame = self._events(source, first, found)
        elif source.owes_flush:
            frame = self._frame(source, FrameKind.EVENTS, first, first, flush=True)
        elif source.owes_death:
            reason = f"{ABORTED}{source.aborted}" if source.aborted else "the writer is gone"
            frame = self._frame(source, FrameKind.DEAD, first, first, reason=reason, flush=True)
        else:
            return None
        if source.flush_to is not None and frame.end >= source.flush_to:
            source.flush_to = None
        source.was_cut(first, frame.end, encode(frame), now_ns, _label(frame, now_ns))
        return frame

    def _events(self, source: Source, first: int, raw: bytes) -> Frame:
        end = first + len(raw)
        asked = source.flush_to is not None and end >= source.flush_to
        soon = asked or first == 0 or (source.closed and end == source.end)  # people look for a beginning and an end
        body, codec = raw, Codec.NONE
        if len(raw) >= COMPRESS_FROM:
            packed = self._compressor.compress(raw)
            if len(packed) < WORTH * len(raw):
                body, codec = packed, Codec.ZSTD
        return self._frame(source, FrameKind.EVENTS, first, end, body=body, codec=codec, flush=soon)

    def _lost(self, source: Source, damage: Damage) -> Frame:
        """The range is given up in the store; its bytes stay here, for people to look at."""
        path = self._home.damaged(source.id, damage.first, damage.end)
        raw = source.wake().raw(damage.first, damage.end)
        if raw:
            os.makedirs(os.path.dirname(path), mode=FOLDER_MODE, exist_ok=True)
            with open(path, "wb", opener=_private) as file:
                file.write(raw)
        reason = TRIMMED if damage.end <= source.oldest else damage.reason
        return self._frame(source, FrameKind.LOST, damage.first, damage.end, reason=reason)

    def _frame(
        self,
        source: Source,
        kind: FrameKind,
        first: int,
        end: int,
        *,
        body: bytes = b"",
        codec: Codec = Codec.NONE,
        flush: bool = False,
        reason: str = "",
    ) -> Frame:
        header = source.header
        return Frame(
            kind=kind,
            project=header.project,
            experiment=header.experiment,
            source=header.source,
            first=first,
            end=end,
            body=body,
            codec=codec,
            flush=flush,
            reason=reason,
            site=self._site,
        )


def _label(frame: Frame, now_ns: int) -> str:
    if frame.kind is FrameKind.DEAD:
        return DEAD_LABEL
    return f"flush{now_ns}" if frame.first == frame.end else ""


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, FILE_MODE)
