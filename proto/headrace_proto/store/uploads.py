"""Files on their way: the chunks of one spooled file become pieces, and verified pieces become the file.

Invariants
1. A piece is created once, where the one before it ends, and never changed. So the pieces of a file are one contiguous
   prefix of it, whoever wrote them; `offset`, the end of the last one, never goes back, and is what may be told to an agent.
2. Of two collectors that write one piece, one wins; the other looks again where it stands.
3. The file comes into place only whole and with the digest that its event named. Until then nothing is at its path.
4. Pieces are removed only when the file is in place and a commit says so (`discard`), or when they can never become the file.
   A kill between `finish` and the commit repeats `finish`.

Memory: one piece (PIECE_BYTES) while chunks arrive, one while they are put together, whatever the file's size.
"""

from __future__ import annotations

from hashlib import sha256 as sha256_of
from typing import TYPE_CHECKING, Final

from headrace_proto.limits import PIECE_BYTES
from headrace_proto.store import layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from headrace_proto.store.backend import Store


class PiecesGone(Exception):
    """Somebody removed pieces of a file that is still awaited: it has to be sent again, from `Upload.received`."""


class _Mismatch(Exception):
    """The pieces are not the file. Raised inside a stream of blocks, so that the store does not complete the object."""


class _Unwanted(Exception):
    """Nobody awaits the file any more. Raised likewise."""


def _while_awaited(awaited: Callable[[], bool], blocks: Iterable[bytes]) -> Iterator[bytes]:
    yield from blocks
    if not awaited():
        raise _Unwanted


class Upload:
    """One file of one source's spool, gathered in `store`. One thread at a time."""

    def __init__(
        self, store: Store, project: str, experiment: str, source: str, file: str, *, size: int, sha256: str
    ) -> None:
        self.size: Final = size
        self.sha256: Final = sha256
        self._store: Final = store
        self._identity: Final = (project, experiment, source, file)
        self._folder: Final = layout.upload_folder(*self._identity)
        self._gathered = bytearray()
        self.offset = self._stored_offset()
        """Bytes of the file that pieces in the store hold."""

    @property
    def received(self) -> int:
        """Bytes of the file that need not be sent again to this collector: stored, or gathered for the next piece."""
        return self.offset + len(self._gathered)

    @property
    def complete(self) -> bool:
        """Whether pieces hold the whole file, so that `finish` can be called."""
        return self.offset >= self.size

    def add(self, first: int, data: bytes) -> bool:
        """Take the chunk [first, first + len(data)). True if a piece was written, so that `offset` has moved on.

        What lies below `received` is dropped: it is here already. Raises `ValueError` for a chunk that begins above it (ask
        the agent to send again from `received`) or ends beyond the file.
        """
        if first > self.received:
            raise ValueError(f"a chunk begins at {first}, the file is here up to {self.received}")
        if first + len(data) > self.size:
            raise ValueError(f"a chunk ends at {first + len(data)}, the file at {self.size}")
        self._gathered += data[self.received - first :]
        moved = False
        while len(self._gathered) >= PIECE_BYTES or (self._gathered and self.received == self.size):
            self._write(min(len(self._gathered), PIECE_BYTES))
            moved = True
        return moved

    def flush(self) -> bool:
        """Write what is gathered as a piece, however small. True if `offset` has moved on."""
        if not self._gathered:
            return False
        self._write(len(self._gathered))
        return True

    def finish(self, target: str, awaited: Callable[[], bool] = lambda: True) -> str:
        """Put the file at the path `target` of the store if the pieces are the file: "" then, else the reason why not.

        A file that is refused is nowhere in the store, and its pieces are removed: it can be sent again from 0. Call it when
        `complete`; calling it again is fine. `awaited` is asked as late as can be, for all of this may have taken long, and
        `target` may be another file's by now: if it says no, nothing is put there, and that is no fault of the file. Raises
        `PiecesGone`.
        """
        try:
            self._store.put_stream(target, _while_awaited(awaited, self._verified()))
        except _Unwanted:
            return ""
        except _Mismatch as mismatch:
            self.discard()
            return str(mismatch)
        except PiecesGone:
            self.discard()
            if awaited():
                raise
        return ""

    def discard(self) -> None:
        """Remove the pieces: a commit says that the file is in place, or nobody wants it any more."""
        offsets = self._piece_offsets()
        self._store.delete(self._piece(offset) for offset in reversed(offsets))
        self._gathered.clear()
        self.offset = 0

    def _write(self, length: int) -> None:
        """Make the next piece of the first `length` gathered bytes, or find that another collector has made one."""
        if self._store.create(self._piece(self.offset), bytes(memoryview(self._gathered)[:length])):
            del self._gathered[:length]
            self.offset += length
            return
        there = self._store.size(self._piece(self.offset))
        if there is None:  # another collector has removed the pieces: these bytes have nothing before them
            self._gathered.clear()
            self.offset = self._stored_offset()
            return
        # asked of the piece itself: a listing that is not fresh would have this write be tried for ever
        held = max(self.offset + there, self._stored_offset())
        del self._gathered[: held - self.offset]
        self.offset = held

    def _piece(self, offset: int) -> str:
        return layout.piece_file(*self._identity, offset)

    def _piece_offsets(self) -> list[int]:
        return layout.piece_offsets(self._store.names(self._folder))

    def _stored_offset(self) -> int:
        offsets = self._piece_offsets()
        if not offsets:
            return 0
        return offsets[-1] + (self._store.size(self._piece(offsets[-1])) or 0)

    def _verified(self) -> Iterator[bytes]:
        """The file's bytes, piece by piece; `PiecesGone` or `_Mismatch` if they are not the file."""
        digest, position = sha256_of(), 0
        for offset in self._piece_offsets():
            if offset != position:
                raise PiecesGone(f"a piece begins at {offset}, the one before it ends at {position}")
            piece = self._store.read(self._piece(offset))
            digest.update(piece)
            position += len(piece)
            yield piece
        if position != self.size:
            raise PiecesGone(f"the file has {position} bytes, not {self.size}")
        if digest.hexdigest() != self.sha256:
            raise _Mismatch(f"the file's digest is {digest.hexdigest()}, not {self.sha256}: it was changed on its way")
