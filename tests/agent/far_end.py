"""A stand-in for collector and store: takes what is contiguous, keeps its bytes, and answers with marks, as the contract says.

It is small so that a test can make it silent, forgetful or wrong. It commits nothing to any disk.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import Self

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NothingThere

from headrace.service.broker import connect, ensure_streams
from headrace.service.cancelling import stay_cancelled
from headrace_proto import subjects
from headrace_proto.frame import Frame, FrameKind, decode, raw_body
from headrace_proto.journal import JournalWriter
from headrace_proto.messages import FileMark, Mark, Rewind, encode
from headrace_proto.subjects import EVENTS_STREAM, FILES_STREAM
from tests.waiting import until

STORE = "store-of-the-tests"


class FarEnd:
    """Everything that reached the far end. `async with` it; it consumes from the start of the streams."""

    def __init__(self, url: str, *, answering: bool = True, site: str = "local", store: str = STORE) -> None:
        self.url = url
        self.site = site
        self.store = store
        self.answering = answering
        self.consuming = True
        self.bytes: dict[str, bytearray] = defaultdict(bytearray)
        self.frames: list[Frame] = []
        self.gaps: list[Frame] = []
        self.lost: list[Frame] = []
        self.dead: list[str] = []
        self.flushed: list[str] = []
        self.files: dict[tuple[str, str], bytearray] = defaultdict(bytearray)
        self.bad_files: dict[tuple[str, str], str] = {}
        self.done_files: dict[tuple[str, str], bytes] = {}
        self.commit = 0
        self.experiment_of: dict[str, str] = {}
        self._client: Client | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._client = await connect(self.url, name="far-end", on_event=lambda _: None)
        await ensure_streams(self._client.jetstream())
        self._tasks = [
            asyncio.create_task(self._consume(EVENTS_STREAM, self._take_events)),
            asyncio.create_task(self._consume(FILES_STREAM, self._take_chunk)),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self.client.close()

    @property
    def client(self) -> Client:
        assert self._client is not None
        return self._client

    def watermark(self, source: str) -> int:
        """How many bytes of a source are here without a gap."""
        return len(self.bytes[source])

    async def has_all(self, writer: JournalWriter, what: str = "all bytes arrived", timeout_s: float = 30.0) -> None:
        """Wait until everything that a journal holds is here."""
        await until(lambda: self.watermark(writer.source) == writer.position, what, timeout_s)

    async def has_all_of(self, writers: Iterable[JournalWriter], what: str = "all bytes arrived") -> None:
        """Wait until everything that several journals hold is here."""
        for writer in writers:
            await self.has_all(writer, what)

    async def _consume(self, stream: str, take: Callable[[Frame], Awaitable[None]]) -> None:
        js = self.client.jetstream()
        pull = None
        while True:
            stay_cancelled()
            try:
                pull = pull or await js.pull_subscribe("", durable="far-end", stream=stream)
                while not self.consuming:
                    await asyncio.sleep(0.01)
                messages: list[Msg] = await pull.fetch(16, timeout=0.2)
            except NothingThere:
                continue
            except Exception:
                pull = None
                await asyncio.sleep(0.05)
                continue
            for message in messages:
                await take(decode(message.data))
                await message.ack()

    # -- Events ----------------------------------------------------------------------------------------------------------

    async def _take_events(self, frame: Frame) -> None:
        self.frames.append(frame)
        self.experiment_of[frame.source] = frame.experiment
        mine = self.bytes[frame.source]
        if frame.first > len(mine):
            self.gaps.append(frame)
            await self.rewind(frame.source, len(mine))
            return
        if frame.flush:
            self.flushed.append(frame.source)
        if frame.kind is FrameKind.DEAD:
            self.dead.append(frame.source)
        elif frame.kind is FrameKind.LOST:
            self.lost.append(frame)
            mine.extend(b"\0" * max(frame.end - len(mine), 0))
        else:
            mine.extend(raw_body(frame)[len(mine) - frame.first :])
        self.commit += 1
        if self.answering:
            await self.mark(frame.source)

    async def mark(
        self, source: str, *, position: int | None = None, commit: int | None = None, missing: int = -1
    ) -> None:
        """Say how far a source is stored, truly or not."""
        mark = Mark(
            self.store,
            self.experiment_of[source],
            source,
            self.watermark(source) if position is None else position,
            self.commit if commit is None else commit,
            "TST-1",
            dead=source in self.dead,
            missing=missing,
        )
        await self.client.publish(subjects.mark(self.site, source), encode(mark))

    async def rewind(self, source: str, position: int, file: str = "") -> None:
        """Ask for a source or a file again."""
        await self.client.publish(subjects.rewind(self.site, source), encode(Rewind(source, position, file)))

    # -- Files -----------------------------------------------------------------------------------------------------------

    async def _take_chunk(self, frame: Frame) -> None:
        self.frames.append(frame)
        key = (frame.source, frame.file)
        self.experiment_of[frame.source] = frame.experiment
        if key not in self.done_files and key not in self.bad_files:
            mine = self.files[key]
            if frame.first <= len(mine):
                mine.extend(raw_body(frame)[len(mine) - frame.first :])
            else:
                await self.rewind(frame.source, len(mine), frame.file)
            if len(mine) >= frame.size:
                self._finish(key, frame)
        if self.answering:
            await self.file_mark(key)

    def _finish(self, key: tuple[str, str], frame: Frame) -> None:
        data = bytes(self.files[key])
        if hashlib.sha256(data).hexdigest() == frame.sha256:
            self.done_files[key] = data
        else:
            self.bad_files[key] = f"the digest differs {frame.reason}"

    async def file_mark(self, key: tuple[str, str]) -> None:
        """Say how far a file is."""
        mark = FileMark(
            self.store,
            self.experiment_of[key[0]],
            *key,
            offset=len(self.files[key]),
            done=key in self.done_files,
            bad=self.bad_files.get(key, ""),
        )
        await self.client.publish(subjects.mark(self.site, *key), encode(mark))
