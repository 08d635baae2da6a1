"""A segment file, byte by byte, and what is true of a journal at every instant.

A journal is a folder `journal/<source>/` with one writer for its whole life. A *position* counts the bytes of events since
the journal's beginning; segments cut that one sequence into files `000000.seg`, `000001.seg`, ...

Invariants
1. What lies below the committed offset is whole events, and never changes. The offset is stored after the event's bytes, by one
   aligned 8-byte store (`memoryview.cast("Q")`; `struct.pack_into` first writes zeros, and a SIGKILL there would lose the segment).
2. The writer's next offset is set before the committed offset, so an exception between the two can add an event, never overwrite
   one that was shipped.
3. An event never straddles two segments. A segment is finished when the next one's base is set; it then ends where the base says.
4. Every byte of events is covered by a check event once CHECK_BYTES more have followed, once its segment is finished, or once the
   journal is closed. A check covers the bytes since the check before it in the same segment.
5. The file's space is allocated before it is mapped: a full disk fails a system call, never a store. It gets its name only when
   its header stands.
6. Exactly one process writes: the one that holds the record lock on `lock`, from before the folder has its name until it dies.
   Nothing else in that process opens `lock` (any close would drop the lock).
7. A reader believes nothing: lengths are bounded, offsets are compared with the file, a committed offset below one that was seen is
   ignored, and bytes are read (`pread`) no earlier than 1 ms after the committed offset that covers them.

Layout, little-endian (big-endian hosts are refused, because of 1)
       0     8  magic
       8     4  version
      12     4  number of the segment
      16     8  bytes of the file
      24     8  base: the position of the first event, UNSET until the segment is in use
      32     8  committed: the file offset of the first byte that is not committed
      40     8  closed: 1 once the CLOSED event and the last check are committed
      48     4  length of the facts
      52     4  crc32 of the facts
      64  4032  facts: a msgpack map, `Header`
    4096  4096  u32 file offsets of the segment's check events, in order, 0 where there is none yet
    8192        events

A segment of another version, or whose facts do not fit their crc32, is left alone and reported; nothing of it is deleted.
"""

from __future__ import annotations

import os
import sys
from binascii import crc32
from struct import Struct

import msgpack

from headrace_proto.errors import Corrupt, FormatUnknown, HomeUnusable
from headrace_proto.events import JOURNAL_VERSION
from headrace_proto.ids import is_id
from headrace_proto.limits import HEADER_BYTES
from headrace_proto.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

MAGIC: Final = b"HRJRNL\r\n"
UNSET: Final = (1 << 64) - 1
POSITION_MAX: Final = 1 << 62
"""No journal gets as far; what says so is damaged. A frame has the same limit."""
BASE_AT: Final = 24
COMMITTED_AT: Final = 32
CLOSED_AT: Final = 40
FACTS_AT: Final = 64
CHECKS_AT: Final = 4096
FACTS_MAX: Final = CHECKS_AT - FACTS_AT

_HEAD: Final = Struct("<8sIIQQQQII")
LIVE: Final = Struct("<QQQ")
"""What changes while the segment lives: base, committed, closed; read at BASE_AT."""
SECTOR: Final = 512
"""What a disk writes whole or not at all, and what a machine's crash may therefore tear a page into."""
LOCK_NAME: Final = "lock"
UNLOCKED_NAME: Final = "unlocked"
"""What the lock's file is called on a file system without locks: there, only its process proves that the writer lives."""
DEATH_NAME: Final = "declared-dead"
"""A file beside the segments of a journal that was carried here: a person's word that its writer, on another host, is gone."""


class NeverArrived(Corrupt):
    """A segment's header is such as a machine's crash leaves that came before the header's first sync."""


class SourceFacts(Record):
    """What its process says of a source."""

    role: str = "owner"
    rank: int | None = None
    label: str = ""
    attempt: int = 0
    parent: str = ""  # the source from which a forked child came
    hardware: bool = True  # whether the node's hardware is to be sampled for this experiment


class Header(Record):
    """The facts in a segment's header: whose events these are, and enough to tell whether their writer lives."""

    source: str
    experiment: str
    project: str
    host: str
    boot_id: str
    pid: int
    pid_start: int
    pid_namespace: int
    created_ns: int
    nonce: float  # in every check event of this source, so that a user's bytes cannot pass for one
    role: str
    rank: int | None
    label: str
    attempt: int
    parent: str
    hardware: bool


class SegmentHead(Record):
    """A segment's header page, decoded."""

    number: int
    size: int
    base: int
    committed: int
    closed: bool
    facts: Header


def segment_name(number: int) -> str:
    """The file name of a journal's segment."""
    return f"{number:06d}.seg"


def encode_head(number: int, size: int, base: int, header: Header) -> bytes:
    """The first HEADER_BYTES of a new segment."""
    if sys.byteorder != "little":
        raise HomeUnusable("journals are written on little-endian machines only: log from another machine")
    facts: bytes = msgpack.packb(header._asdict())
    if len(facts) > FACTS_MAX:
        raise ValueError(f"the facts of a source have {len(facts)} bytes; at most {FACTS_MAX} fit: shorten its label")
    head = _HEAD.pack(MAGIC, JOURNAL_VERSION, number, size, base, HEADER_BYTES, 0, len(facts), crc32(facts))
    return (head.ljust(FACTS_AT, b"\0") + facts).ljust(HEADER_BYTES, b"\0")


def decode_head(page: bytes) -> SegmentHead:
    """The header page of a segment. Raises `Corrupt` or `FormatUnknown`."""
    if len(page) < HEADER_BYTES:
        raise NeverArrived(f"a segment of {len(page)} bytes is shorter than its header")
    magic, version, number, size, base, committed, closed, length, crc = _HEAD.unpack_from(page)
    if _never_arrived(page, length):
        raise NeverArrived("a segment's header is zeros where it should say whose it is")
    if magic != MAGIC:
        raise Corrupt(f"a segment begins with {magic!r}, not {MAGIC!r}")
    if version != JOURNAL_VERSION:
        raise FormatUnknown(f"a journal of version {version}; this release knows {JOURNAL_VERSION}: use a newer one")
    facts = page[FACTS_AT : FACTS_AT + length]
    if length > FACTS_MAX or crc32(facts) != crc:
        raise Corrupt("a segment's facts do not fit their checksum")
    return SegmentHead(number, size, base, committed, closed == 1, _header(facts))


def _never_arrived(page: bytes, length: int) -> bool:
    """Whether a sector of a header is all zeros, up to the end of its facts: one that was ever synced has no such."""
    end = FACTS_AT + min(length, FACTS_MAX)
    return any(not any(page[at : at + SECTOR]) for at in range(0, end, SECTOR))


def _header(packed: bytes) -> Header:
    try:
        fields: dict[str, Any] = msgpack.unpackb(packed, raw=False, max_map_len=64, max_str_len=FACTS_MAX)
        header = Header(**{name: fields[name] for name in Header._fields})
    except Exception as error:  # msgpack raises a handful of unrelated types on hostile bytes
        raise Corrupt(f"a segment's facts do not decode: {error}") from error
    if not (is_id(str(header.source)) and is_id(str(header.experiment))):
        raise Corrupt(f"a segment names the source {header.source!r} of the experiment {header.experiment!r}")
    return header


def segment_numbers(folder: str) -> list[int]:
    """The numbers of the segments in a journal's folder, in order."""
    # `.NNNNNN.seg` is none yet
    return sorted(int(name[:-4]) for name in os.listdir(folder) if name.endswith(".seg") and name[:-4].isdigit())
