"""What is fuzzed: each place where bytes of others come in, with what may come out of it."""

from __future__ import annotations

import tempfile
from binascii import crc32
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from headrace_agent.marks import read_mark
from headrace_collector.leases import Member
from headrace_proto import events, frame, names, spool, status
from headrace_proto.errors import Corrupt, FormatUnknown, HeadraceError
from headrace_proto.frame import FrameKind
from headrace_proto.ids import random_id
from headrace_proto.journal import machine
from headrace_proto.journal.layout import segment_name
from headrace_proto.limits import MIB
from headrace_proto.messages import FileMark, Mark, Rewind, decode
from headrace_proto.store import columns, parts
from headrace_proto.store.backend import open_store
from headrace_proto.store.chain import Batch, Chain
from headrace_proto.store.commits import PART_KINDS, Commit, Side
from headrace_proto.store.documents import PublicDocument
from headrace_proto.store.records import parse
from tests.proto.journal.reading import Reading

Judge = Callable[[bytes], Any]


class Target(NamedTuple):
    """A place. `run` raises one of `documented`, or nothing; it is given what `dress` makes of each input."""

    run: Judge
    documented: tuple[type[BaseException], ...] = ()
    dress: Callable[[bytes], bytes] = bytes
    size_max: int = 1024 * 1024
    memory_max: int = 64 * MIB
    """Above what was in use before the input."""


def journal(data: bytes) -> None:
    """A journal's folder: the segments one after another, each behind its length; read in its boot and after another one."""
    with tempfile.TemporaryDirectory(prefix="headrace-fuzz-") as name:
        folder = Path(name)
        for number in range(3):
            size = int.from_bytes(data[:3], "little")
            (folder / segment_name(number)).write_bytes(data[3 : 3 + size])
            data = data[3 + size :]
            if not data:
                break
        for boot in ("this boot", "another boot"):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(machine, "boot_id", lambda boot=boot: boot)
                reading = Reading(name, 1)
                columns.event_ends(reading.parts[0][1] if reading.parts else b"")


def resealed(data: bytes) -> bytes:
    """With a checksum that fits, so that more than the checksum is tried; every fourth keeps its wrong one."""
    return data if crc32(data) % 4 == 0 or len(data) < 10 else data[:-4] + crc32(data[:-4]).to_bytes(4, "little")


def a_frame(data: bytes) -> None:
    """A message of the stream, as far as a collector takes it apart."""
    opened = frame.decode(data)
    raw = frame.raw_body(opened)
    assert len(raw) == opened.raw_size
    if opened.kind is FrameKind.EVENTS:
        columns.decode(raw, opened.first, {})


def batch(data: bytes) -> None:
    """Events that arrived whole: in vectors, one by one, and cut in the middle."""
    for judge in (
        lambda: columns.decode(data, 0, {}),
        lambda: columns.cut(data, len(data) // 2, len(data)),
        lambda: events.unpack_one(data),
    ):
        try:
            judge()
        except (Corrupt, ValueError):
            continue


def commit(data: bytes) -> None:
    """A batch on its way into a store: stored, or poison; the next good one is stored in any case."""
    chain = Chain(open_store(f"memory://fuzz-{random_id()}"), "a/b", "e" * 32).load()
    chain.commit([Batch("a" * 32, 0, len(data), data)], now_ns=1)
    good = events.pack(events.Kind.TAGS, 5, ["fine"], [])
    chain.commit([Batch("b" * 32, 0, len(good), good)], now_ns=2)
    assert "fine" in chain.document.tags
    assert chain.watermark("a" * 32) == len(data)


def message(data: bytes) -> None:
    """What collectors say to agents and to each other: understood, or None."""
    for kind in (Mark, FileMark, Rewind):
        found: Any = decode(kind, data)
        assert found is None or isinstance(found, kind)
    Member.decode(data)
    with tempfile.TemporaryDirectory(prefix="headrace-fuzz-") as folder:
        (Path(folder) / "mark").write_bytes(data)
        read_mark(folder)


def name(data: bytes) -> None:
    """Whatever becomes a path or a subject: refused, or one plain part of a path."""
    text = data.decode("utf-8", "surrogateescape")
    for judge in (names.project_name, names.channel_name, names.tag, names.key, names.artifact_path):
        try:
            judge(text)
        except HeadraceError:
            continue
    if spool.is_spool_file(text):
        assert "/" not in text
        assert text.isascii()
    part = names.path_part(data.decode("utf-8", "replace") or "?")
    assert part not in ("", ".", "..")
    assert "/" not in part
    assert "\0" not in part


def document(data: bytes) -> None:
    """What a store's JSON objects hold."""
    failed = []
    for judge in (
        lambda: Commit.decode(data, "it"),
        lambda: Side.decode(data, "it"),
        lambda: parse(PublicDocument, data, "it"),
    ):
        try:
            judge()
        except (Corrupt, FormatUnknown) as error:
            failed.append(error)
    with tempfile.TemporaryDirectory(prefix="headrace-fuzz-") as folder:
        path = Path(folder) / "x"
        for suffix in ("", ".json"):
            Path(f"{path}{suffix}").write_bytes(data)
        status.read_status(str(path))
        spool.read_facts(str(path))


def part(data: bytes) -> None:
    """A Parquet part, as readers and compaction meet it."""
    store = open_store(f"memory://fuzz-{random_id()}")
    store.put("part.parquet", data)
    for kind in PART_KINDS:
        for channels in (None, ["loss"]):
            try:
                parts.read(store, kind, ["part.parquet"], channels)
            except (Corrupt, FormatUnknown):
                continue


TARGETS: Final = {
    "journal": Target(journal, (Corrupt, FormatUnknown), size_max=300_000),
    "frame": Target(a_frame, (Corrupt, FormatUnknown), resealed),
    "batch": Target(batch),
    "commit": Target(commit, size_max=100_000),
    "message": Target(message),
    "name": Target(name),
    "document": Target(document),
    # Arrow believes the sizes that a page declares. Parts are written by collectors alone, and their digests stand in the commit
    "part": Target(part, memory_max=8 * 1024 * MIB),
}
