"""Files on their way: chunks become pieces in the store, and a whole, verified file becomes part of a commit.

A chunk is acknowledged when a piece that holds it is in the store; the chunk that ends the file only when a commit says what
became of the file. So that one message is the reminder, in the queue, of what is still to do, and a kill at any place between
loses nothing: it comes again, the pieces are found complete, and the file is finished.

The event that names the file may come before or after its bytes: the pieces wait for it in the store, not in memory.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from typing import Final

from headrace.service.pausing import comes_within
from headrace_collector.committer import Committer
from headrace_collector.intake import REWIND_PAUSE_S, Arrival
from headrace_collector.shared import Shared
from headrace_proto.errors import Corrupt
from headrace_proto.frame import Frame, raw_body
from headrace_proto.messages import UNNAMED, FileMark, Rewind
from headrace_proto.store.chain import FileDone
from headrace_proto.store.uploads import PiecesGone, Upload

_LOG: Final = logging.getLogger(__name__)

FLUSH_S: Final = 2.0
"""A chunk that waits this long for the rest of its piece gets a smaller one: a hundred slow uploads must not hold a hundred
pieces in memory, nor their messages unacknowledged."""

IDLE_S: Final = 60.0
"""A file of which nothing has come for so long, and that no stored event names, is let go of: its pieces stay in the store, and its
last message, which would wait here, is acknowledged. An agent that has it still sends it again."""
ASSEMBLIES_MAX: Final = 2_000
"""Files at once, of one process. Chunks of further ones are dropped: they are on their node's disk, and come again."""

FileKey = tuple[str, str]
"""(source, file)"""


class Assembly:
    """Gathers one file. `run` is its one task; it returns when a commit says what became of the file."""

    def __init__(
        self, shared: Shared, committer: Committer, frame: Frame, turn: asyncio.Lock, hurry: Callable[[], None]
    ) -> None:
        self._shared: Final = shared
        self._committer: Final = committer
        self._turn: Final = turn
        self._hurry: Final = hurry
        self._frame: Final = frame._replace(body=b"")  # what all chunks of the file say alike
        self._site = ""
        self._arrived: list[Arrival] = []
        self._held: list[Arrival] = []  # in the upload, not yet in a piece; without their bodies
        self._last: list[str] = []  # messages that ended the file
        self._wake: Final = asyncio.Event()
        self._flush_at = 0.0
        self._active_at = time.monotonic()
        self._asked_at = float("-inf")
        self._suspicious = False
        self.report: FileDone | None = None
        """What the next commit is to be told."""

    @property
    def _key(self) -> FileKey:
        return self._frame.source, self._frame.file

    def offer(self, arrival: Arrival) -> None:
        """Take a chunk over."""
        self._site = arrival.site
        self._arrived.append(arrival)
        self._active_at = time.monotonic()
        self._shared.memory.add(ready=arrival.size)
        self._wake.set()

    def look(self) -> None:
        """A commit was made: perhaps it names the file, or says that it is done."""
        self._wake.set()

    def replies(self) -> Iterator[str]:
        """Every message that is held."""
        yield from (arrival.reply for arrival in (*self._arrived, *self._held))
        yield from self._last

    async def run(self) -> None:
        """Gather, finish, answer."""
        frame, committer = self._frame, self._committer
        place = (committer.project, committer.experiment, frame.source, frame.file)
        persist_file = self._shared.persist_file
        try:
            upload = await persist_file(Upload, committer.store, *place, size=frame.size, sha256=frame.sha256)
            while not committer.has_file(*self._key):
                await self._gather(upload)
                self._answer(upload)
                if self._suspicious and not upload.complete:
                    self._ask_again(upload)
                self._suspicious = False
                if upload.complete and not self.report and committer.pending(*self._key):
                    await self._finish(upload)
                elif upload.complete and not self.report and committer.is_over(frame.source):
                    self._answer_all(UNNAMED)
                    break
                elif self._forsaken(upload):
                    for reply in self._last:
                        self._shared.answers.ack(reply)
                    return
                else:
                    await self._rest(upload)
            else:
                self._answer_all(self.report.bad if self.report else "")
            await persist_file(upload.discard)
        finally:
            self._forget([*self._arrived, *self._held])

    async def _gather(self, upload: Upload) -> None:
        """Give what has arrived to the upload, which writes a piece now and then."""
        while self._arrived:
            arrival = self._arrived.pop(0)
            if (chunk := self._chunk(arrival.frame)) is None or arrival.frame.first > upload.received:
                self._refuse(arrival, upload)
                continue
            if upload.received == upload.offset:
                self._flush_at = time.monotonic() + FLUSH_S
            self._held.append(arrival._replace(frame=arrival.frame._replace(body=b"")))
            if await self._shared.persist_file(upload.add, arrival.frame.first, chunk):
                self._flush_at = time.monotonic() + FLUSH_S
                self._answer(upload)

    def _chunk(self, frame: Frame) -> bytes | None:
        if (frame.size, frame.sha256) != (self._frame.size, self._frame.sha256) or frame.end > frame.size:
            return None
        try:
            return raw_body(frame)
        except Corrupt:
            return None

    def _refuse(self, arrival: Arrival, upload: Upload) -> None:
        """A chunk above a gap, or of no use: have the file sent again from where it is here."""
        self._forget([arrival])
        self._shared.answers.ack(arrival.reply)
        self._ask_again(upload)

    def suspect(self) -> None:
        """A chunk could not be read, and may have been one of this file."""
        self._suspicious = True
        self._wake.set()

    def _ask_again(self, upload: Upload) -> None:
        now = time.monotonic()
        if now - self._asked_at >= REWIND_PAUSE_S:
            self._asked_at = now
            source, file = self._key
            self._shared.metrics.rewinds.inc()
            self._shared.answers.rewind(self._site, Rewind(source, upload.received, file))

    def _answer(self, upload: Upload) -> None:
        """Tell how far the file is in the store, and acknowledge what brought it there."""
        stored = [arrival for arrival in self._held if arrival.frame.end <= upload.offset]
        if not stored:
            return
        self._held = [arrival for arrival in self._held if arrival.frame.end > upload.offset]
        self._shared.metrics.file_bytes.inc(sum(arrival.frame.end - arrival.frame.first for arrival in stored))
        self._forget(stored)
        self._shared.answers.file_mark(self._site, self._mark(upload.offset))
        for arrival in stored:
            if arrival.frame.end < upload.size:
                self._shared.answers.ack(arrival.reply)
            else:
                self._last.append(arrival.reply)

    def _forsaken(self, upload: Upload) -> bool:
        """Whether nothing more seems to come of this file."""
        waits = self._arrived or self.report or upload.received > upload.offset
        return not waits and time.monotonic() - self._active_at >= IDLE_S

    async def _rest(self, upload: Upload) -> None:
        """Wait for more, and for the moment to flush what was gathered."""
        self._wake.clear()
        gathered = upload.received > upload.offset
        left_s = (self._flush_at if gathered else self._active_at + IDLE_S) - time.monotonic()
        if gathered and left_s <= 0:
            await self._shared.persist_file(upload.flush)
        elif not self._arrived:
            await comes_within(self._wake, None if self.report else max(left_s, 0.0))

    async def _finish(self, upload: Upload) -> None:
        """Put the file in place. In turn with commits: one of them may give its path to another file."""
        async with self._turn:
            pending = self._committer.pending(*self._key)
            if pending is None:
                return
            bad = "it was changed between the call that logged it and its upload"
            if (pending.size, pending.sha256) == (upload.size, upload.sha256):
                try:
                    bad = await self._shared.persist_file(
                        upload.finish, pending.path, lambda: self._committer.awaits(pending)
                    )
                except PiecesGone:
                    self._ask_again(upload)
                    return
        if bad:
            _LOG.error("a file is not what was logged", extra={"path": pending.path, "reason": bad})
        self.report = FileDone(*self._key, bad)
        self._hurry()

    def _answer_all(self, bad: str) -> None:
        """A commit says what became of the file, or that nothing ever will."""
        (self._shared.metrics.bad_files if bad else self._shared.metrics.files).inc()
        self._shared.answers.file_mark(self._site, self._mark(self._frame.size, done=not bad, bad=bad))
        for reply in self.replies():
            self._shared.answers.ack(reply)

    def _mark(self, offset: int, *, done: bool = False, bad: str = "") -> FileMark:
        return FileMark(self._shared.store_id, self._committer.experiment, *self._key, offset, done, bad)

    def _forget(self, arrivals: list[Arrival]) -> None:
        self._shared.memory.add(ready=-sum(arrival.size for arrival in arrivals))
        self._shared.weigh()


class Files:
    """All files of one experiment that are on their way."""

    def __init__(self, shared: Shared, committer: Committer, turn: asyncio.Lock, hurry: Callable[[], None]) -> None:
        self._shared: Final = shared
        self._committer: Final = committer
        self._turn: Final = turn
        self._hurry: Final = hurry
        self._assemblies: Final[dict[FileKey, Assembly]] = {}
        self._tasks: Final[set[asyncio.Task[None]]] = set()

    @property
    def reports(self) -> list[FileDone]:
        """What the next commit is to be told."""
        return [assembly.report for assembly in self._assemblies.values() if assembly.report]

    @property
    def holds(self) -> bool:
        """Whether any file is on its way."""
        return bool(self._assemblies)

    def offer(self, arrival: Arrival, tasks: asyncio.TaskGroup) -> None:
        """Take a chunk over. The first of a file begins its assembly's task."""
        frame = arrival.frame
        key = frame.source, frame.file
        if key not in self._assemblies:
            if self._committer.has_file(*key):
                self._answer_again(arrival)
                return
            if self._shared.assemblies >= ASSEMBLIES_MAX:
                self._shared.metrics.dropped.inc()
                self._shared.answers.ack(arrival.reply)
                return
            self._shared.assemblies += 1
            assembly = self._assemblies[key] = Assembly(self._shared, self._committer, frame, self._turn, self._hurry)
            task = tasks.create_task(self._serve(key, assembly), name=f"file {frame.file} of {frame.source}")
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        self._assemblies[key].offer(arrival)

    async def _serve(self, key: FileKey, assembly: Assembly) -> None:
        try:
            await assembly.run()
        except Exception:  # nothing is acknowledged, so it comes again; no file may stop an experiment
            _LOG.exception("a file was let go of", extra={"source": key[0], "file": key[1]})
        finally:
            del self._assemblies[key]

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._shared.assemblies -= 1
        self._tasks.discard(task)

    def _answer_again(self, arrival: Arrival) -> None:
        """A chunk of a file that needs none: its agent has forgotten, or never heard."""
        frame = arrival.frame
        mark = FileMark(
            self._shared.store_id, self._committer.experiment, frame.source, frame.file, frame.size, done=True
        )
        self._shared.metrics.duplicates.inc()
        self._shared.answers.file_mark(arrival.site, mark)
        self._shared.answers.ack(arrival.reply)

    def ask_again(self, source: str) -> None:
        """A chunk of the source could not be read: any of its files may lack it."""
        for (owner, _), assembly in self._assemblies.items():
            if owner == source:
                assembly.suspect()

    def committed(self) -> None:
        """A commit was made, here or elsewhere."""
        for assembly in self._assemblies.values():
            assembly.look()

    def stop(self) -> None:
        """End all tasks. What they hold comes again."""
        for task in list(self._tasks):
            task.cancel()

    def replies(self) -> Iterator[str]:
        """Every message that is held."""
        for assembly in self._assemblies.values():
            yield from assembly.replies()
