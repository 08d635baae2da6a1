"""`python -m tests.fuzz.make_corpus` writes the inputs that a fuzzer begins with: small good ones of every format.

The files are kept in the repository, so that a change of a format shows what it does to the old ones. Findings lie beside them.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import zstandard

from headrace_collector.leases import Member
from headrace_collector.process import Process
from headrace_proto import frame
from headrace_proto.events import ChannelType, Kind, Outcome, pack
from headrace_proto.frame import Codec, Frame, FrameKind
from headrace_proto.home import Home
from headrace_proto.journal import JournalWriter
from headrace_proto.journal.layout import segment_name
from headrace_proto.limits import HEADER_BYTES
from headrace_proto.messages import FileMark, Mark, Rewind, encode
from headrace_proto.store.backend import open_store
from headrace_proto.store.chain import Batch, Chain
from tests.fuzz.bombs import EXPERIMENT, SOURCE, framed
from tests.fuzz.fuzzer import CORPUS


def _events(home: Home) -> tuple[bytes, bytes]:
    """A journal's segment, cut to what is used, and the events in it."""
    writer = JournalWriter(home, "a/b", EXPERIMENT)
    for i in range(150):
        writer.point("loss", i, 1.0 / (i + 1), i)
        writer.point("auto", None, i, i)
    writer.row({"a": 1.0, "b": 2.0}, 1.0, 2)
    writer.row({"a": 1.0, "b": 2.0}, None, 2)
    writer.channel_event(Kind.TEXT, "notes", ChannelType.TEXT, None, 5, "hello")
    spooled = {"file": "000001-0123abcd", "size": 70_000, "sha256": "ab" * 32}
    writer.channel_event(Kind.IMAGE, "samples", ChannelType.IMAGE, 1.0, 5, spooled, {"format": "png"})
    writer.event(Kind.CREATE, 1, {"name": "mlp", "created_ns": 1})
    writer.event(Kind.PARAMETERS, 1, {"lr": 0.1, "nested": {"a": [1, "x", None]}})
    writer.event(Kind.PROPERTY, 1, "k", "v")
    writer.event(Kind.TAGS, 1, ["one"], ["two"])
    writer.event(Kind.ARTIFACT, 1, "model/x.bin", spooled, {"mode": 0o600, "kind": "artifact"})
    writer.event(Kind.UNLINK, 1, ["model/x.bin"])
    writer.event(Kind.RESET, 1, "loss")
    writer.event(Kind.GAP, 1, 3, "disk")
    end = HEADER_BYTES + writer.position
    writer.close(Outcome.FAILED, "traceback")
    data = (Path(writer.folder) / segment_name(0)).read_bytes()[: end + 200]
    return data, data[HEADER_BYTES:end]


def _frames(raw: bytes) -> dict[str, bytes]:
    squeezed = zstandard.ZstdCompressor().compress(raw)
    chunk = Frame(
        FrameKind.CHUNK, "a/b", EXPERIMENT, SOURCE, 0, 4, b"abcd", file="000001-0123abcd", size=4, sha256="ab" * 32
    )
    return {
        "plain": framed(raw),
        "zstd": framed(squeezed, len(raw), Codec.ZSTD),
        "lost": frame.encode(Frame(FrameKind.LOST, "a/b", EXPERIMENT, SOURCE, 0, 9, reason="gone")),
        "chunk": frame.encode(chunk),
        "second_zstd_frame": framed(squeezed * 2, len(raw), Codec.ZSTD),
        "trailing_data": framed(squeezed + b"more", len(raw), Codec.ZSTD),
    }


def _messages() -> dict[str, bytes]:
    return {
        "mark": encode(Mark("s" * 32, EXPERIMENT, SOURCE, 4096, 7, "DIG-1")),
        "file_mark": encode(FileMark("s" * 32, EXPERIMENT, SOURCE, "000001-0123abcd", 10, bad="digest")),
        "rewind": encode(Rewind(SOURCE, 17)),
        "member": Member("c" * 32, 16, 1, [1, 2], Process("host", 1, 2, 3)).encode(),
    }


def _stored(raw: bytes) -> dict[str, dict[str, bytes]]:
    """What a store holds of an experiment."""
    with tempfile.TemporaryDirectory() as folder:
        chain = Chain(open_store(folder), "a/b", EXPERIMENT).load()
        chain.commit([Batch(SOURCE, 0, len(raw), raw)], now_ns=1_763_692_800_000_000_000)
        paths = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
        found = {
            "document": {str(n): path.read_bytes() for n, path in enumerate(paths) if path.suffix == ".json"},
            "part": {str(n): path.read_bytes() for n, path in enumerate(paths) if path.suffix == ".parquet"},
        }
    spooled = {"size": 1, "sha256": "ab" * 32, "copied": True}
    source = {"streamed": 1, "stored": 1, "files": 0}
    status = {"v": 1, "id": "DIG-1", "agent": 1, "written_at": 1.5, "sources": {SOURCE: source}}
    found["document"] |= {"facts": json.dumps(spooled).encode(), "status": json.dumps(status).encode()}
    return found


NAMES = (
    "team/project",
    "loss/train",
    "../../etc/passwd",
    "a\0b",
    "ä/ö",
    "x" * 300,
    "000001-0123abcd",
    "CON",
    "a//b",
    ".",
    "\u202e",
)


def main() -> None:
    """Write the corpus anew; what else lies there, found by fuzzing, stays."""
    with tempfile.TemporaryDirectory() as folder:
        segment, raw = _events(Home(folder))
    folder_of_one = len(segment).to_bytes(3, "little") + segment
    corpus = {
        "journal": {"one": folder_of_one, "two": folder_of_one * 2},
        "frame": _frames(raw),
        "batch": {"all_kinds": raw, "gaps": pack(Kind.GAP, 1, 1, "x") * 20},
        "commit": {
            "all_kinds": raw,
            "duplicate_keys": b"\x93\x0d\x01\x82\xa1a\x01\xa1a\x02",
            "bad_utf8": b"\x93\x0d\x01\x81\xa1\xff\x01",
        },
        "message": _messages(),
        "name": {str(number): name.encode() for number, name in enumerate(NAMES)},
        **_stored(raw),
    }
    for target, files in corpus.items():
        (CORPUS / target).mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (CORPUS / target / f"{name}.bin").write_bytes(data)


if __name__ == "__main__":
    main()
