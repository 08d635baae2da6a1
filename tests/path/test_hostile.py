"""A hostile agent: whatever it publishes straight to the broker, with right checksums, a real collector process stores what is
good, keeps what is bad in quarantine with a reason, writes nothing outside an experiment's own folders, and stays small."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from binascii import crc32
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgpack
import psutil
import pytest
import zstandard
from nats.js.errors import NoStreamResponseError

from headrace.service.nats_server import NatsServer
from headrace_collector.files import ASSEMBLIES_MAX
from headrace_proto import frame as frames
from headrace_proto import subjects
from headrace_proto.frame import Codec, Frame, FrameKind
from headrace_proto.ids import random_id
from headrace_proto.limits import BATCH_RAW_MAX, MIB
from tests.collector.frames import PROJECT, SITE, Source, encoded, subject_of
from tests.collector.harness import Broker, document, points

ABOVE_IDLE_MAX = 64 * MIB
NOW_NS = time.time_ns()
HOSTILE_PATHS = (
    "../escaped",
    "a/../../escaped",
    "/escaped",
    "//escaped",
    "..",
    ".",
    "",
    "a//b",
    "a/./b",
    "a\\..\\escaped",
    "..\\escaped",
    "C:escaped",
    "c:/escaped",
    "%2e%2e/escaped",
    "%2E%2E%2Fescaped",
    "a\0b",
    "a\nb",
    "\x1b[2J",
    "x" * 10_000,
    "/".join(["y" * 300] * 2),
    ".uploads/escaped",
    ".uploads",
    "a#b",
    "a?b",
    "\ud800",
)
"""What no artifact, source file or spooled file may be called."""
ODD_PATHS = (
    "..\u2024/x",
    "\uff0e\uff0e/x",
    "\u202egpj.exe",
    "experiment.json",
    "commits/00000000000000000001.json",
    "...",
    "a b",
    "\u0130",
)
"""Odd, but names of files below the experiment's own folder, and nothing else."""


class Collecting:
    """A real collector process, and what it takes in memory at its worst."""

    def __init__(self, broker: Broker, store: Path, process: subprocess.Popen[bytes], log: Path) -> None:
        self.broker = broker
        self.store = store
        self.log = log
        self.process = psutil.Process(process.pid)
        self.idle = 0

    def settle(self) -> None:
        """From here on `peak` counts."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        self.idle = self.process.memory_info().rss

    @property
    def peak(self) -> int:
        """Bytes above idle, at the worst moment since."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
        return int(kib) * 1024 - self.idle

    async def store_good(self) -> Source:
        """Have an experiment stored, as anyone's would be."""
        source = Source()
        source.log("loss", 100)
        source.close()
        await self.broker.send(source.cut(2))
        await self.broker.stored(source)
        return source

    async def publish(self, subject: str, data: bytes) -> None:
        await self.broker.js.publish(subject, data)

    async def send(self, *sent: Frame) -> None:
        for each in sent:
            await self.publish(subject_of(each), encoded(each))

    async def takes(self, *sent: Frame | tuple[str, bytes]) -> None:
        """Publish what is hostile, then what is good; the good is stored, the queues are emptied, and memory has stayed small."""
        for each in sent:
            await (self.send(each) if isinstance(each, Frame) else self.publish(*each))
        good = await self.store_good()
        await self.broker.emptied()
        assert len(points(str(self.store), good.experiment)) == 100
        assert self.process.is_running()
        self.stayed_small()

    def stayed_small(self) -> None:
        """At no moment since it was idle did it take more than it may."""
        assert self.peak <= ABOVE_IDLE_MAX, f"{self.peak / MIB:.0f} MiB above idle"

    def reasons(self) -> list[str]:
        """Why each thing in quarantine is there."""
        files = sorted(self.store.glob("_headrace/quarantine/*/*.json"))
        return [str(json.loads(file.read_text())["reason"]) for file in files]


def hostile(*events: tuple[Any, ...] | bytes, experiment: str | None = None) -> Source:
    """A source that logs a good point and, between others', any bytes."""
    source = Source(experiment)
    source.log("before")
    for event in events:
        source._append(event if isinstance(event, bytes) else msgpack.packb(event, unicode_errors="surrogatepass"))
    source.log("after")
    return source


def whole(source: Source) -> Frame:
    return source.frame(0, source.end)


def raw_frame(header: dict[str, Any] | bytes, body: bytes = b"", version: int = 1) -> bytes:
    """A frame with a right checksum around any header."""
    packed = header if isinstance(header, bytes) else msgpack.packb(header)
    data = struct.pack("<3sBH", b"HRF", version, len(packed)) + packed + body
    return data + struct.pack("<I", crc32(data))


@pytest.fixture
def collector(nats_server: NatsServer, tmp_path: Path) -> Iterator[tuple[str, Path, subprocess.Popen[bytes], Path]]:
    store, log = tmp_path / "below" / "the" / "store", tmp_path / "collector.log"
    command = [sys.executable, "-m", "headrace_collector", "--nats", nats_server.url, "--store", str(store)]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*command, "--partitions", "2", "--commit-interval", "0.1"],
            env={**os.environ, "HEADRACE_HOME": str(tmp_path / "home")},
            stdout=output,
            stderr=output,
        )
    yield nats_server.url, store, process, log
    process.kill()
    process.wait()


@asynccontextmanager
async def collecting(given: tuple[str, Path, subprocess.Popen[bytes], Path]) -> AsyncIterator[Collecting]:
    """The collector, warm and idle: it has stored an experiment with a file."""
    url, store, process, log = given
    async with Broker.connected(url) as broker:
        collecting = Collecting(broker, store, process, log)
        warm = Source()
        file = warm.artifact("warm.bin", b"x" * 200_000)
        warm.log("loss", 10_000)
        await broker.send([whole(warm), *warm.chunks(file, b"x" * 200_000)])
        await broker.file_done(warm, file)
        await collecting.store_good()
        collecting.settle()
        yield collecting


def outside(store: Path, allowed: Iterable[str]) -> list[str]:
    """Files around and in the store that belong to no experiment of `allowed`, nor to the store itself."""
    root = store.parents[2]
    found = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file() or path.is_symlink()]
    own = ("home/", "nats/", "collector.log", "below/the/store/_headrace/", "below/the/store/FORMAT.md")
    inside = [f"below/the/store/{PROJECT}/experiments/{experiment}/" for experiment in allowed]
    ours = (*own, *inside, *(f"below/the/store/{PROJECT}/{name}" for name in ("project.json", "ids/", "catalog/")))
    return [name for name in found if not name.startswith(ours)]


Given = tuple[str, Path, subprocess.Popen[bytes], Path]


# -- Fault 21: no name leads out of its experiment; bombs and floods stay within 64 MiB ------------------------------


async def test_no_name_leads_out_of_its_experiment(collector: Given) -> None:
    """Paths of artifacts, source files, spooled files, channels, texts and images: every name is refused or stays inside."""
    async with collecting(collector) as run:
        victim = await run.store_good()
        folder = run.store / PROJECT / "experiments" / victim.experiment
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        spooled = [{"file": path, "size": 1, "sha256": "0" * 64} for path in HOSTILE_PATHS if path != "\ud800"]
        events: list[tuple[Any, ...]] = []
        for path in (*HOSTILE_PATHS, *ODD_PATHS):
            events += [
                (17, NOW_NS, path, b"evil", {}),
                (17, NOW_NS, path, b"evil", {"kind": "source"}),
                (18, NOW_NS, [path]),
            ]
        for number, path in enumerate((*HOSTILE_PATHS, *ODD_PATHS), 10):
            events += [
                (5, number, path, 3),
                (8, number, 1.0, NOW_NS, b"evil", {"suffix": path, "name": path}),
                (19, NOW_NS, path),
            ]
        events += [(17, NOW_NS, f"fine{n}", payload, {}) for n, payload in enumerate(spooled)]
        events += [(7, 10, 1.0, NOW_NS, payload) for payload in spooled]
        evil = [hostile(event) for event in events]
        together = hostile(*(event for event in events if "\\ud800" not in repr(event)))
        await run.takes(*(whole(source) for source in evil), whole(together))
        changed = {path.name for path, data in before.items() if path.exists() and path.read_bytes() != data}
        assert changed <= {"experiment.json"}  # the victim's own last compaction
        assert len(points(str(run.store), victim.experiment)) == 100
        everyone = [path.name for path in (run.store / PROJECT / "experiments").iterdir()]
        assert outside(run.store, everyone) == []
        assert not [path for path in run.store.rglob("*") if path.is_symlink()]
        reasons = " ".join(run.reasons())
        for words in (
            "absolute",
            "backslash",
            "'..'",
            "%2e",
            "control character",
            "bytes",
            "no file of a spool",
            "gathered",
        ):
            assert words in reasons, words
        stored = points(str(run.store), together.experiment)
        assert [name for name, *_ in stored] == ["after", "before"]


async def test_no_frame_is_believed_about_whose_it_is(collector: Given) -> None:
    """Projects, experiments, sources, files and sites in a frame's header: what is no such name goes to quarantine as it came."""
    async with collecting(collector) as run:
        good = hostile()
        header = {"k": "events", "p": PROJECT, "e": good.experiment, "s": good.id, "a": 0, "b": 1, "t": SITE}
        subject = subjects.events(SITE, good.experiment, good.id)
        projects: tuple[str, ...] = (
            "../x",
            "a/../b",
            "/abs",
            "a/b/c",
            "_headrace/keys",
            ".hidden/x",
            "FORMAT.md/x",
            "format.MD/x",
        )
        projects += ("a/b\0", "\u202e/x", "a" * 99 + "/b", "", "a", "A/..")
        sent = [(subject, raw_frame({**header, "p": project}, b"\x90")) for project in projects]
        sent += [
            (subject, raw_frame({**header, key: value}, b"\x90"))
            for key in "es"
            for value in ("../x", "0" * 31, "F" * 32, "")
        ]
        sent += [
            (subject, raw_frame({**header, "a": a, "b": b}))
            for a, b in ((-1, 0), (1, 0), (0, 1 << 63), (1 << 62, 1 << 62))
        ]
        sent += [
            (subject, raw_frame({**header, "k": kind, "c": codec}))
            for kind, codec in (("evil", "none"), ("events", "lzma"))
        ]
        sent += [(subject, raw_frame(header, version=version)) for version in (0, 2, 255)]
        chunk = {**header, "k": "chunk", "z": 1, "d": "0" * 64}
        files = subjects.files(SITE, good.experiment, good.id)
        sent += [
            (files, raw_frame({**chunk, "n": name}, b"x"))
            for name in ("../x", ".hidden", "a/b", "", "x" * 200, "a\0b", "..")
        ]
        other = subjects.events(SITE, random_id(), good.id)
        sent += [(other, encoded(whole(good))), (f"{subjects.EVENTS_PREFIX}.{SITE}.7.x.y", encoded(whole(good)))]
        sent += [
            (subject, b""),
            (subject, b"HRF"),
            (subject, os.urandom(5000)),
        ]
        await run.takes(*sent)
        await run.broker.emptied(subjects.FILES_STREAM)
        assert outside(run.store, [path.name for path in (run.store / PROJECT / "experiments").iterdir()]) == []
        assert not (run.store / PROJECT / "experiments" / good.experiment).exists()
        assert len(run.reasons()) == len(sent)
        assert all(run.reasons())


BOMB = zstandard.compress(b"\0" * 256 * MIB, 19)


def zstd_bodies() -> dict[str, bytes]:
    """Bodies that claim [0, 100000) and unfold to something else."""
    fine = b"\0" * 100_000
    undeclared = zstandard.ZstdCompressor(write_content_size=False).compress(b"\0" * 64 * MIB)
    far = zstandard.ZstdCompressionParameters.from_level(1, window_log=27, enable_ldm=True)
    return {
        "256 MiB, declared": BOMB,
        "64 MiB, not declared": undeclared,
        "the right size, not declared": zstandard.ZstdCompressor(write_content_size=False).compress(fine),
        "two frames, the second a bomb": zstandard.compress(fine) + BOMB,
        "a lie about its size": zstandard.compress(b"\0" * 64 * MIB)[:5] + zstandard.compress(fine)[5:],
        "a huge window": zstandard.ZstdCompressor(compression_params=far).compress(fine),
        "cut short": zstandard.compress(os.urandom(100_000))[:500],
        "noise": os.urandom(2000),
        "nothing": b"",
    }


async def test_compressed_bombs_do_not_unfold(collector: Given) -> None:
    """Bodies that declare too much, nothing, or lie: what is not exactly the range is lost with its reason, in little memory."""
    async with collecting(collector) as run:
        sources = []
        for body in zstd_bodies().values():
            for _ in range(5):
                source = hostile()
                sources.append(source)
                bomb = source.frame(source.end, source.end + 100_000, FrameKind.EVENTS)
                bomb = bomb._replace(body=body, codec=Codec.ZSTD)
                await run.send(whole(source), bomb)
        await run.takes()
        for source in sources:
            lost = document(str(run.store), source.experiment).sources[source.id].lost
            assert [(gap.first, gap.end) for gap in lost] == [(source.end, source.end + 100_000)]
            assert [name for name, *_ in points(str(run.store), source.experiment)] == ["after", "before"]
        assert any("declares another size" in reason for reason in run.reasons())


def nested(depth: int) -> bytes:
    return b"\x91" * depth + b"\xc0"


def msgpack_bodies() -> dict[str, bytes]:
    """Events that are small on the wire and large, endless or senseless in memory."""
    room = BATCH_RAW_MAX - 20_000
    facts = b"\x93\x10" + msgpack.packb(NOW_NS)
    return {
        "empty maps, one event": facts + b"\x81\xa1x" + b"\xdd" + struct.pack(">I", room) + b"\x80" * room,
        "empty maps, many events": (facts + b"\x81\xa1x\xdc" + struct.pack(">H", 60_000) + b"\x80" * 60_000)
        * (room // 60_020),
        "arrays of arrays": facts + b"\x81\xa1x" + nested(100_000),
        "deep": nested(600_000),
        "4 G of elements": b"\xdd\xff\xff\xff\xff",
        "4 G of map": b"\x93\x10\x00\xdf\xff\xff\xff\xff",
        "4 G of bytes": b"\x93\x11\x00\xc6\xff\xff\xff\xff",
        "4 G of text": b"\x93\x10\x00\xdb\xff\xff\xff\xff",
        "extension": b"\x93\x10\x00\xc7\xff\x05" + b"x" * 255,
        "many tiny events": b"\x91\x7e" * (room // 2),
        "many empty arrays": b"\x90" * room,
        "one key twice": b"\x93\x10" + msgpack.packb(NOW_NS) + b"\x82\xa1k\x01\xa1k\x02",
        "invalid UTF-8": b"\x93\x10" + msgpack.packb(NOW_NS) + b"\x81\xa2\xff\xfe\x01",
        "keys that are no text": b"\x93\x10" + msgpack.packb(NOW_NS) + b"\x81\x01\x02",
        "a channel's number": msgpack.packb([5, (1 << 64) - 1, "x", 1]),
        "a schema of 8,000": msgpack.packb([6, 63, [9_999] * 8_000]),
        "time": msgpack.packb([16, (1 << 64) - 1, {"x": 1}]) + msgpack.packb([16, -1, {"x": 1}]),
        "numbers": b"".join(
            msgpack.packb([7, 0, step, NOW_NS, "t"]) for step in (1e308, -1e308, float("nan"), float("inf"))
        ),
        "many tags": msgpack.packb([15, NOW_NS, [f"tag-{n}" for n in range(9_000)], []]),
        "floating garbage": os.urandom(100_000),
    }


async def test_events_that_unfold_stay_small(collector: Given) -> None:
    """Maps without end, nesting without end, lengths that lie: refused, put aside or lost, in little memory; the rest goes on."""
    async with collecting(collector) as run:
        bodies = msgpack_bodies()
        sources = {}
        for name, body in bodies.items():
            source = sources[name] = hostile()
            first = source.end
            source._append(body)
            bomb = source.frame(first, source.end)
            follows = source.end
            source.log("later")
            run.settle()
            await run.takes(source.frame(0, first), bomb, source.frame(follows, source.end))
        for name, source in sources.items():
            names = [name for name, *_ in points(str(run.store), source.experiment)]
            assert names == ["after", "before", "later"], name
        reasons = " ".join(run.reasons())
        for words in ("msgpack", "more than", "besides points", "no such field"):
            assert words in reasons


async def test_frames_above_a_gap_do_not_pile_up(collector: Given) -> None:
    """Sources whose first frame never comes: what follows it is held within bounds, while a good source is stored beside them."""
    async with collecting(collector) as run:
        noise = os.urandom(400_000)
        for _ in range(4):
            source = hostile()
            far = Frame(FrameKind.EVENTS, PROJECT, source.experiment, source.id, 0, 0, noise, site=SITE)
            await run.send(*(far._replace(first=n * len(noise), end=(n + 1) * len(noise)) for n in range(1, 25)))
        await run.store_good()
        run.stayed_small()


async def test_events_of_no_size_do_not_pile_up(collector: Given) -> None:
    """Batches each just below what one may have, many to a commit of two experiments at once: all are stored, in little memory."""
    async with collecting(collector) as run:
        texts = msgpack.packb((7, 0, None, 0, "")) * 65_000
        sources = [hostile(*[texts] * 3) for _ in range(2)]
        for source in sources:
            for first, end in pairwise((0, *source.ends[-5:-2], source.end)):
                await run.send(source.frame(first, end))
        await run.broker.emptied(timeout_s=60)
        await run.takes()
        for source in sources:
            stored = document(str(run.store), source.experiment)
            assert sum(channel.count for channel in stored.channels.text.values()) == 3 * 65_000
        assert run.reasons() == []


async def test_files_that_nobody_names_do_not_pile_up(collector: Given) -> None:
    """More files on their way than one process takes at once: the rest is let go of, and a good file beside them is stored."""
    async with collecting(collector) as run:
        source = hostile()
        await run.send(whole(source))
        for number in range(ASSEMBLIES_MAX + 500):
            chunk = source.chunks(f"{number:06d}-00c0ffee", b"x")[0]
            await run.broker.client.publish(subject_of(chunk), encoded(chunk))
        await run.store_good()
        await run.broker.emptied(subjects.FILES_STREAM, left=ASSEMBLIES_MAX, timeout_s=60)
        run.stayed_small()


async def test_experiments_without_end_do_not_pile_up(collector: Given) -> None:
    """Each frame another experiment: all are stored, and let go of."""
    async with collecting(collector) as run:
        await run.takes(*(whole(hostile()) for _ in range(200)))


async def test_subject_that_nobody_consumes_is_not_taken(collector: Given) -> None:
    """A token that no experiment can have would lie in the queue for ever: the stream does not take it."""
    async with collecting(collector) as run:
        for prefix in (subjects.EVENTS_PREFIX, subjects.FILES_PREFIX):
            for rest in ("256.x.y", "-1.x.y", "00.x.y", "x.y.z", "evil", "1"):
                with pytest.raises(NoStreamResponseError):
                    await run.publish(f"{prefix}.{SITE}.{rest}", b"x")
        await run.takes()


def test_frames_of_these_tests_are_right_but_for_what_is_wrong() -> None:
    """The helper's frame is a frame: with honest fields it decodes."""
    header = {"k": "events", "p": PROJECT, "e": "0" * 32, "s": "1" * 32, "a": 0, "b": 1, "t": SITE}
    assert frames.decode(raw_frame(header, b"\x90")).raw_size == 1
