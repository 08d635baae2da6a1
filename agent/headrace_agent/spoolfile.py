"""One spooled file on its way: read in chunks, framed, sent, and judged.

The file is not believed to stay what it was: a hard-linked one may be written to by its owner at any time. Its digest was computed
when it was logged and travels with every chunk; what arrives is held against it at the far end. Here its size, its time of change
and, when it was read in one go, its digest are compared too, so that the last chunk can say what happened.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from io import BufferedReader
from typing import Final

from headrace_agent.budget import Budget
from headrace_agent.patience import CURIOSITY_S, PATIENCE_S, Patience
from headrace_agent.source import Due
from headrace_agent.window import Flight, Window
from headrace_proto import subjects
from headrace_proto.frame import Frame, FrameKind, encode
from headrace_proto.home import Home, open_plain
from headrace_proto.journal import Header
from headrace_proto.limits import CHUNK_BYTES
from headrace_proto.messages import FileMark
from headrace_proto.spool import COMPANION_SUFFIX, SpoolFacts, read_facts

FLIGHTS_MAX: Final = 4
"""Chunks of one file in flight: 2 MiB keep a stream busy, and a small file's first answer is soon there."""
CHANGED: Final = "changed while it was read"
REFUSED_SUFFIX: Final = ".refused"


class FileLane:
    """A file of a source's spool, as a lane. The file is opened for each chunk: nothing stays open, whatever waits."""

    def __init__(
        self,
        home: Home,
        header: Header,
        name: str,
        budget: Budget,
        site: str,
        run: str,
        on_sent: Callable[[], None],
    ) -> None:
        self.header: Final = header
        self.name: Final = name
        self.path: Final = os.path.join(home.spool(header.source), name)
        self.subject = subjects.files(site, header.experiment, header.source)
        self.window = Window(0, budget, FLIGHTS_MAX)
        self.curiosity = Patience(time.monotonic(), CURIOSITY_S, PATIENCE_S)
        self.patience = Patience(time.monotonic())
        self.begun = False  # its turn has come: the files before it are sent
        self.stored = 0
        self.verdict: str | None = None  # the collector's last word: "" is good, else why not
        self.repeated = False
        self._site = site
        self._run = run
        self._on_sent = on_sent
        self._last_cut = False
        self._facts: SpoolFacts | None = None
        self._stamp: tuple[int, int, int] | None = None
        self._digest = hashlib.sha256()
        self._digested: int | None = 0  # how much of the file the digest covers; None when it was not read in one go
        self._changed = False

    def identity(self, flight: Flight) -> str:
        """As a source's frames have it, with the file's name."""
        return f"{self.header.source}:{self.name}:{flight.first}-{flight.end}:{self._run}.{flight.epoch}"

    @property
    def sent(self) -> bool:
        """Whether the stream has all of it."""
        return self._last_cut and not len(self.window)

    @property
    def outstanding(self) -> bool:
        """Whether the collector owes a word on what the stream has."""
        return self.sent and self.verdict is None

    def due(self, _now_ns: int) -> Due:
        """Files are backlog among themselves."""
        if not self.begun or self.verdict is not None:
            return Due.NOTHING
        return Due.BACKLOG if self.window.waits or not self._last_cut else Due.NOTHING

    # -- Reading ---------------------------------------------------------------------------------------------------------

    async def cut(self, bytes_max: int, _now_ns: int) -> bool:
        """Read the next chunk, in a thread: it may have to come from the disk."""
        if self._last_cut:
            return False
        first = self.window.cut
        try:
            facts, data = await asyncio.to_thread(self._read, first, min(bytes_max, CHUNK_BYTES))
        except OSError as error:
            self.verdict = f"it cannot be read: {error}"
            return False
        if self.window.cut != first:  # a request came meanwhile
            return False
        end = first + len(data)
        self._last_cut = end == facts.size
        frame = Frame(
            kind=FrameKind.CHUNK,
            project=self.header.project,
            experiment=self.header.experiment,
            source=self.header.source,
            first=first,
            end=end,
            body=data,
            reason=CHANGED if self._last_cut and self._changed else "",
            file=self.name,
            size=facts.size,
            sha256=facts.sha256,
            site=self._site,
        )
        self.window.add(first, end, encode(frame))
        return True

    def _read(self, first: int, size: int) -> tuple[SpoolFacts, bytes]:
        """[first, first + size) or up to the logged end; what is missing of it is zeros, and the digest will say so."""
        with open(self.path, "rb", opener=open_plain) as file:
            facts = self._facts or read_facts(self.path) or _facts_of(file)
            self._facts = facts
            wanted = min(size, facts.size - first)
            data = os.pread(file.fileno(), wanted, first)
            status = os.fstat(file.fileno())
        stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
        self._stamp = self._stamp or stamp
        if self._digested == first:
            self._digest.update(data)
            self._digested = first + len(data)
        else:
            self._digested = None
        other = self._digested == facts.size and self._digest.hexdigest() != facts.sha256
        self._changed = self._changed or other or stamp != self._stamp or len(data) < wanted
        return facts, data.ljust(wanted, b"\0")

    def intact(self) -> bool:
        """Whether the whole file is what was logged. Reads all of it; call it in a thread."""
        if self._facts is None:
            return False
        try:
            with open(self.path, "rb", opener=open_plain) as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == self._facts.sha256
        except OSError:
            return False

    # -- Answers ---------------------------------------------------------------------------------------------------------

    def acknowledged(self, flight: Flight) -> None:
        """The stream has this chunk."""
        self.window.acknowledged(flight)
        if self.sent:
            self._on_sent()

    def marked(self, mark: FileMark) -> None:
        """The collector has moved on. One that is ahead of us spares us what it has: an earlier agent sent it."""
        self.stored = max(self.stored, mark.offset)
        if mark.done or mark.bad:
            self.verdict = mark.bad
        elif mark.offset > self.window.cut:
            self._go_to(mark.offset)

    def rewind(self, offset: int) -> None:
        """Send again from `offset`."""
        self.stored = min(self.stored, offset)
        self._go_to(offset)

    def start_again(self) -> None:
        """Send again all that the collector is not known to have."""
        self._go_to(self.stored)

    def repeat(self) -> None:
        """Send the whole file once more: it was refused, although it is what was logged."""
        self.repeated = True
        self.verdict = None
        self.rewind(0)

    def _go_to(self, offset: int) -> None:
        self.window.rewind(offset)
        self._last_cut = False
        self._digested = 0 if offset == 0 else None
        self._digest = hashlib.sha256()

    # -- The end ---------------------------------------------------------------------------------------------------------

    def free(self) -> None:
        """Delete the file; its companion last, so that a kill in between leaves nothing that could be shipped."""
        for path in (self.path, self.path + COMPANION_SUFFIX):
            with suppress(FileNotFoundError):
                os.unlink(path)

    def set_aside(self) -> None:
        """Keep a file that was refused although it is what was logged, under a name that is not shipped."""
        with suppress(FileNotFoundError):
            os.rename(self.path, self.path + REFUSED_SUFFIX)


def _facts_of(file: BufferedReader) -> SpoolFacts:
    """The facts of a file whose companion is missing: it was in place before the file, so somebody has removed it."""
    return SpoolFacts(os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest())
