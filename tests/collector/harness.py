"""A real nats-server's client, a collector in this process, and a look into the store: what the tests here stand on."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from headrace.service.broker import connect, ensure_streams, stream_configs
from headrace_collector.collector import Collector
from headrace_collector.settings import CollectorSettings
from headrace_proto import messages, subjects
from headrace_proto.frame import Frame
from headrace_proto.messages import FileMark, Mark, Rewind
from headrace_proto.store.backend import open_store
from headrace_proto.store.chain import Chain
from headrace_proto.store.documents import ExperimentDocument
from tests.collector.frames import PROJECT, SITE, Source, encoded, subject_of
from tests.waiting import until, until_awaited

PARTITIONS = 4
TIMEOUT_S = 20.0


class Broker:
    """The sending side: publishes frames as an agent does, and hears what agents hear."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.js: JetStreamContext = client.jetstream()
        self.rewinds: list[Rewind] = []

    @classmethod
    @contextlib.asynccontextmanager
    async def connected(cls, url: str, *, make: bool = True) -> AsyncIterator[Broker]:
        """A connection; it makes the streams that are missing, or leaves that to the collector."""
        client = await connect(url, name="test", on_event=lambda text: None)
        try:
            broker = cls(client)
            if make:
                await ensure_streams(broker.js)
            await client.subscribe(subjects.control_of_site(SITE), cb=broker._on_control)
            yield broker
        finally:
            await client.close()

    async def _on_control(self, message: Any) -> None:
        rewind = messages.decode(Rewind, message.data)
        if rewind:
            self.rewinds.append(rewind)

    async def send(self, frames: Iterable[Frame]) -> None:
        for sent in frames:
            await self.js.publish(subject_of(sent), encoded(sent))

    async def mark(self, source: Source) -> Mark | None:
        """The newest mark of a source."""
        return messages.decode(Mark, await self.last(subjects.MARKS_STREAM, subjects.mark(SITE, source.id)))

    async def file_mark(self, source: Source, file: str) -> FileMark | None:
        """The newest mark of a file."""
        return messages.decode(FileMark, await self.last(subjects.MARKS_STREAM, subjects.mark(SITE, source.id, file)))

    async def last(self, stream: str, subject: str) -> bytes:
        """The newest message of a subject, b"" if there is none."""
        try:
            return (await self.js.get_last_msg(stream, subject)).data or b""
        except NotFoundError:
            return b""

    async def stored(self, source: Source, position: int | None = None) -> Mark:
        """Waits until the source's mark reaches `position` (all of its journal)."""
        wanted = source.end if position is None else position

        async def reached() -> Mark | None:
            mark = await self.mark(source)
            return mark if mark and mark.position >= wanted else None

        return await until_awaited(reached, f"{source.id} is stored up to {wanted}", TIMEOUT_S)

    async def file_done(self, source: Source, file: str) -> FileMark:
        """Waits until the file is done, or bad."""

        async def decided() -> FileMark | None:
            mark = await self.file_mark(source, file)
            return mark if mark and (mark.done or mark.bad) else None

        return await until_awaited(decided, f"{file} is done, or bad", TIMEOUT_S)

    async def streams(self) -> None:
        """Waits until every stream is there, by somebody else's doing."""

        async def all_there() -> bool:
            return len(await self.js.streams_info()) == len(stream_configs())

        await until_awaited(all_there, "every stream is there", TIMEOUT_S)

    async def left(self, stream: str = subjects.EVENTS_STREAM) -> int:
        """Messages in a stream."""
        return (await self.js.stream_info(stream)).state.messages

    async def waiting_bytes(self) -> int:
        """Bytes in the stream of events."""
        return (await self.js.stream_info(subjects.EVENTS_STREAM)).state.bytes

    async def emptied(self, stream: str = subjects.EVENTS_STREAM, left: int = 0, timeout_s: float = TIMEOUT_S) -> None:
        """Waits until everything was acknowledged, but for `left` messages at most."""

        async def is_emptied() -> bool:
            return await self.left(stream) <= left

        await until_awaited(is_emptied, f"{stream} holds {left} messages at most", timeout_s)

    async def left_only(self, count: int) -> None:
        """Waits until no more than `count` messages of events are left, all acknowledgements are in, and none is missing."""
        await self.emptied(left=count)
        for _ in range(20):  # an acknowledgement too many would come right behind the others
            await asyncio.sleep(0.01)
            assert await self.left() == count


@contextlib.asynccontextmanager
async def collecting(url: str, store: str, **settings: Any) -> AsyncIterator[Collector]:
    """A collector in this process, stopped in good order at the end."""
    told = {"partitions": PARTITIONS, "commit_interval_s": 0.1, "drain_s": 5.0, **settings}
    collector = Collector(CollectorSettings(nats=url, store=store, **told))
    stop = asyncio.Event()
    task = asyncio.create_task(collector.run(stop))
    try:
        yield collector
    finally:
        stop.set()
        await task


def held(collector: Collector) -> list[int]:
    """The partitions that a collector works."""
    partitions: list[int] = dict(collector.health().facts).get("partitions", [])
    return partitions


async def all_held(collector: Collector, what: str = "the collector serves") -> None:
    """Waits until a collector works every partition."""
    await until(lambda: len(held(collector)) == PARTITIONS, what, TIMEOUT_S)


def points(store: str, experiment: str, project: str = PROJECT) -> list[tuple[str, float, float]]:
    """All stored numeric points as (channel, step, value), sorted."""
    table = Chain(open_store(store, writable=False), project, experiment).load().read("numeric")
    columns = (table[name].to_pylist() for name in ("channel", "step", "value"))
    return sorted(zip(*columns, strict=True))


@contextlib.asynccontextmanager
async def child(module: str, *arguments: str) -> AsyncIterator[Process]:
    """A module run in a process of its own; killed at the end if it still lives."""
    command = [sys.executable, "-m", module, *arguments]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def document(store: str, experiment: str, project: str = PROJECT) -> ExperimentDocument:
    """The newest document."""
    return Chain(open_store(store, writable=False), project, experiment).load().document


def quarantined(store: str) -> list[Path]:
    """What was put aside, in a local store."""
    return sorted(Path(store).glob("_headrace/quarantine/*/*.bin"))
