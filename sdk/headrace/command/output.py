"""What a program writes to its standard output and error, whoever in it does: C code, its children, CUDA.

Each of the two is a terminal of its own where ours is one, else a pipe; what comes out of it is written to ours at once, unchanged,
and kept line by line in the experiments that the program logs to, by this process: a crash of the program takes nothing of it.
Control keys and standard input stay the terminal's. Lines from before the first experiment are kept until there is one. Whoever
kills us takes the program's output away, as the reader of any pipe: that is why it has to be asked for.
"""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import select
import struct
import termios
import time
from collections import deque
from collections.abc import Collection
from contextlib import suppress
from threading import Lock, Thread
from typing import Any, Final, NamedTuple

from headrace.capture.lines import LineCutter
from headrace.command.drain import Logged
from headrace.secrets import KeyLines, masked_text
from headrace_proto.errors import HeadraceError
from headrace_proto.events import ChannelType, Kind, Outcome, Role
from headrace_proto.home import Home
from headrace_proto.journal import JournalWriter, SourceFacts
from headrace_proto.warning import warn

BACKLOG_LINES: Final = 10_000
_LOOK_S: Final = 0.2
_SILENCE_S: Final = 0.3
"""After the program's end: what its children, which may live on, have written by then is kept."""
_READ_BYTES: Final = 64 * 1024
_SIZE: Final = struct.Struct("HHHH")


class _Line(NamedTuple):
    """A line, and when it was written."""

    channel: str
    time_ns: int
    text: str


class Output:
    """The output of one program. `child_ends` are for it; then `start`, `keep_in` from time to time, and `finish`."""

    def __init__(self, home: Home) -> None:
        self._home: Final = home
        self._streams: Final = [_Stream("stdout", 1), _Stream("stderr", 2)]
        self._writers: Final[dict[Logged, JournalWriter]] = {}
        self._done: Final[set[Logged]] = set()
        self._backlog: deque[_Line] | None = deque()
        self._dropped = 0
        self._lock: Final = Lock()
        self._over = False
        self._thread: Final = Thread(target=self._pump, name="headrace-output", daemon=True)

    @property
    def child_ends(self) -> tuple[int, int]:
        """What the program is to have as standard output and error."""
        return self._streams[0].child_end, self._streams[1].child_end

    def start(self) -> None:
        """The program has its ends."""
        for stream in self._streams:
            os.close(stream.child_end)
        self._thread.start()

    def keep_in(self, live: Collection[Logged], ended: Collection[Logged]) -> None:
        """Keep lines in these experiments from now on, the first ones from the beginning.

        One that has ended keeps them until another is live, or the program ends: what was printed before its end may come after it,
        when buffers are written.
        """
        with self._lock:
            for logged in (*live, *(() if live else ended)):
                if logged not in self._writers and logged not in self._done:
                    self._open(logged)
            for logged in ended if live else ():
                self._close(logged)
            if self._writers or self._done:
                self._backlog = None

    def finish(self) -> None:
        """The program has ended: keep the rest, and close."""
        self._over = True
        self._thread.join()
        for stream in self._streams:
            self._keep(stream, stream.cutter.flush())
            stream.close()
        with self._lock:
            for logged in list(self._writers):
                self._close(logged)

    # -- Lines -----------------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        open_ends = {stream.our_end: stream for stream in self._streams}
        quiet_s = time.monotonic()
        while open_ends and not (self._over and time.monotonic() - quiet_s > _SILENCE_S):
            for stream in self._streams:
                stream.follow_size()
            ready, _, _ = select.select(list(open_ends), (), (), _LOOK_S if not self._over else _SILENCE_S / 4)
            for descriptor in ready:
                stream = open_ends[descriptor]
                data = stream.pass_on()
                if not data:
                    del open_ends[descriptor]
                    continue
                quiet_s = time.monotonic()
                self._keep(stream, stream.cutter.feed(stream.decoder.decode(data), quiet_s))

    def _keep(self, stream: _Stream, lines: list[str]) -> None:
        now_ns = time.time_ns()
        with self._lock:
            for text in lines:
                if stream.key_lines.hide(text):
                    continue
                line = _Line(stream.name, now_ns, masked_text(text))
                if self._backlog is not None:
                    self._backlog.append(line)
                    if len(self._backlog) > BACKLOG_LINES:
                        self._backlog.popleft()
                        self._dropped += 1
                for writer in self._writers.values():
                    _write(writer, line)

    def _open(self, logged: Logged) -> None:
        facts = SourceFacts(role=Role.WORKER, label="headrace run", hardware=False)
        try:
            writer = JournalWriter(self._home, logged.project, logged.experiment, facts)
        except (HeadraceError, OSError) as error:
            warn(f"the output of the program is not kept in {logged.experiment}: {error}")
            self._done.add(logged)
            return
        self._writers[logged] = writer
        if self._dropped and self._backlog is not None:
            writer.lose(self._dropped, "lines from before the experiment")
        for line in self._backlog or ():
            _write(writer, line)

    def _close(self, logged: Logged) -> None:
        self._done.add(logged)
        writer = self._writers.pop(logged, None)
        if writer is not None:
            writer.close(Outcome.SUCCEEDED)


def _write(writer: JournalWriter, line: _Line) -> None:
    with suppress(HeadraceError):  # the program logs texts of its own under this name as something else
        writer.channel_event(Kind.TEXT, line.channel, ChannelType.TEXT, None, line.time_ns, line.text)


class _Stream:
    """Standard output or error: our end, the program's, and where it goes on to."""

    def __init__(self, name: str, target: int) -> None:
        self.name: Final = name
        self.cutter: Final = LineCutter()
        self.key_lines: Final = KeyLines()
        self.decoder: Final = codecs.getincrementaldecoder("utf-8")("replace")
        self._target: Final = target
        self._terminal: Final = os.isatty(target)
        self._size: bytes | None = None
        self.our_end, self.child_end = pty.openpty() if self._terminal else os.pipe()
        if self._terminal:
            modes: list[Any] = termios.tcgetattr(target)
            modes[1] &= ~termios.OPOST  # our terminal does that, once
            termios.tcsetattr(self.child_end, termios.TCSANOW, modes)
            self.follow_size()

    def follow_size(self) -> None:
        """Be as large as the terminal is."""
        if not self._terminal:
            return
        with suppress(OSError):
            size = fcntl.ioctl(self._target, termios.TIOCGWINSZ, bytes(_SIZE.size))
            if size != self._size:
                self._size = size
                fcntl.ioctl(self.our_end, termios.TIOCSWINSZ, size)

    def pass_on(self) -> bytes:
        """Some of what the program has written, which then has been written on; nothing at the end."""
        try:
            data = os.read(self.our_end, _READ_BYTES)
            left = memoryview(data)
            while left:
                left = left[os.write(self._target, left) :]
            return data
        except OSError:  # the program's ends are all closed; or nobody reads ours, and the program is to see that, too
            self.close()
            return b""

    def close(self) -> None:
        """Close our end."""
        end, self.our_end = self.our_end, -1
        if end >= 0:
            os.close(end)
